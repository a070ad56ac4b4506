"""What a container's securityContext makes of its program, as the kernel tells it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.node.site import Site, container, pod, waits_for

pytestmark = pytest.mark.net

NET_ADMIN, SYS_ADMIN, DAC_READ_SEARCH = 1 << 12, 1 << 21, 1 << 2
THREE = ["NET_ADMIN", "SYS_ADMIN", "DAC_READ_SEARCH"]
STRICT = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def status(site: Site, name: str, container: str = "main") -> dict[str, str]:
    """Return /proc/self/status of a program executed in a container."""
    result = site.execute(name, "cat", "/proc/self/status", container=container)
    lines = (line.partition(":") for line in result.stdout.decode().splitlines())
    return {key: value.strip() for key, _, value in lines}


def of_process_1(site: Site, name: str) -> dict[str, str]:
    lines = (line.partition(":") for line in site.says(name, "cat /proc/1/status").splitlines())
    return {key: value.strip() for key, _, value in lines}


def sets(told: dict[str, str]) -> dict[str, int]:
    return {name: int(told[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}


def running(**security: Any) -> dict[str, Any]:
    return container("sleep", "infinity", securityContext=security)


def test_a_root_container_has_exactly_the_capabilities_it_adds(site: Site) -> None:
    site.run(pod("net", running(capabilities={"drop": ["ALL"], "add": THREE})))
    mask = NET_ADMIN | SYS_ADMIN | DAC_READ_SEARCH
    for told in (of_process_1(site, "net"), status(site, "net")):
        assert sets(told) == {"Inh": 0, "Prm": mask, "Eff": mask, "Bnd": mask, "Amb": 0}


def test_a_container_with_a_user_of_its_own_has_no_capability_in_any_set(rooted: Site) -> None:
    rooted.run(pod("serve", running(runAsUser=64912, runAsGroup=64912, **STRICT)))
    for told in (of_process_1(rooted, "serve"), status(rooted, "serve")):
        assert sets(told) == dict.fromkeys(("Inh", "Prm", "Eff", "Bnd", "Amb"), 0)
        assert told["Uid"].split() == ["64912"] * 4
        assert told["Gid"].split() == ["64912"] * 4
        assert told["NoNewPrivs"] == "1"


def test_of_a_user_that_is_not_root_added_capabilities_only_bound(rooted: Site) -> None:
    # containerd sets no ambient capabilities: without a file that has them, exec clears the rest.
    wanted = {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    rooted.run(pod("user", running(runAsUser=1000, capabilities=wanted)))
    none = dict.fromkeys(("Inh", "Prm", "Eff", "Amb"), 0)
    assert sets(of_process_1(rooted, "user")) == {**none, "Bnd": NET_ADMIN}


def test_groups_are_the_specs_own_and_no_others(rooted: Site) -> None:
    security = {
        "runAsUser": 1000,
        "runAsGroup": 2000,
        "fsGroup": 3000,
        "supplementalGroups": [4, 5],
    }
    rooted.run(pod("groups", container("sleep", "infinity"), securityContext=security))
    told = of_process_1(rooted, "groups")
    assert told["Groups"].split() == ["4", "5", "3000"]
    assert told["Gid"].split() == ["2000"] * 4


@pytest.mark.parametrize(("given", "forbidden"), [(None, "0"), (True, "0"), (False, "1")])
def test_new_privileges_are_forbidden_where_the_spec_forbids_escalation(
    site: Site, given: bool | None, forbidden: str
) -> None:
    said = {} if given is None else {"allowPrivilegeEscalation": given}
    site.run(pod("pod", running(**said)))
    assert of_process_1(site, "pod")["NoNewPrivs"] == forbidden


def test_two_containers_of_a_pod_have_users_and_capabilities_of_their_own(rooted: Site) -> None:
    net = {"drop": ["ALL"], "add": THREE}
    rooted.run(
        pod(
            "two",
            container("sleep", "infinity", name="net", securityContext={"capabilities": net}),
            container(
                "sleep",
                "infinity",
                name="serve",
                securityContext={"runAsUser": 64912, "runAsNonRoot": True, **STRICT},
            ),
            hostNetwork=True,
        )
    )
    net_told, serve_told = (status(rooted, "two", each) for each in ("net", "serve"))
    assert sets(net_told)["Eff"] == NET_ADMIN | SYS_ADMIN | DAC_READ_SEARCH
    assert sets(serve_told)["Bnd"] == 0
    assert (net_told["Uid"].split()[0], serve_told["Uid"].split()[0]) == ("0", "64912")


def test_a_container_that_must_not_be_root_waits_with_the_reason(site: Site) -> None:
    site.create(pod("root", running(runAsNonRoot=True)))
    found = site.until("root", waits_for("CreateContainerConfigError"))
    message = found["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    assert "container has runAsNonRoot and image will run as root" in message

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.agent import uid
from tests.kernel.conftest import KINDS
from tests.kernel.topology import PODS, pod_cgroups, run

pytestmark = pytest.mark.net

_OTHERS = ["net_admin", "sys_admin"]
BY_CGROUP = [([*_OTHERS, "dac_read_search"], False, False)]
if "root" in KINDS:
    BY_CGROUP += [([*_OTHERS, "dac_read_search"], True, True), (_OTHERS, True, False)]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def seen(kind: str) -> Iterator[dict[str, Any]]:
    """What an agent saw of p2's requests and of p1's attacks in p2's name."""
    if kind == "rootless":
        yield run("spoofing", rootless=True)
    else:
        with pod_cgroups([uid(name) for name in PODS]) as root:
            yield run("spoofing", cgroups=str(root))


def test_an_ordinary_request_is_proven(seen: dict[str, Any], kind: str) -> None:
    assert seen["ordinary"]["verdict"] == "proven"
    assert seen["ordinary"]["uid"] == (uid("p2") if kind == "root" else "")


@pytest.mark.parametrize("way", ["arp", "mac", "arp, listening", "address"])
def test_an_attack_holds_a_conversation_under_the_victims_address_and_is_found_out(
    seen: dict[str, Any], way: str
) -> None:
    assert seen[way]["who"] == "agent"
    assert seen[way]["peer"] == PODS["p2"]
    assert seen[way]["verdict"] == "forged"


def test_the_attacker_is_named_where_the_kernel_knows_him(seen: dict[str, Any], kind: str) -> None:
    by_namespace = "p1, p2 hold the address, and pods have no cgroups to tell them apart"
    by_cgroup = f"the socket in p1 belongs to pod {uid('p1')}"
    assert seen["address"]["detail"] == (by_cgroup if kind == "root" else by_namespace)
    assert seen["address"]["uid"] == (uid("p1") if kind == "root" else "")


def test_an_attacker_with_the_owners_address_locks_him_out_only_where_there_are_no_cgroups(
    seen: dict[str, Any], kind: str
) -> None:
    assert seen["owner"]["peer"] == PODS["p2"]
    assert seen["owner"]["verdict"] == ("proven" if kind == "root" else "forged")


def test_a_process_in_the_pods_network_but_not_of_the_pod_is_not_the_pod(
    seen: dict[str, Any], kind: str
) -> None:
    assert seen["no cgroup"]["verdict"] == ("forged" if kind == "root" else "proven")


def test_no_attack_reached_the_real_imds(seen: dict[str, Any]) -> None:
    assert seen["leaked"] == 0


@pytest.mark.parametrize(("capabilities", "in_a_pod", "by_cgroup"), BY_CGROUP)
def test_the_proof_is_by_cgroup_where_this_process_is_in_a_pods_cgroup_and_may_look_it_up(
    capabilities: list[str], *, in_a_pod: bool, by_cgroup: bool
) -> None:
    rootless = KINDS == ["rootless"]
    with contextlib.ExitStack() as stack:
        cgroup = ""
        if in_a_pod:
            root = stack.enter_context(pod_cgroups([uid("p1")]))
            cgroup = f"{root}/kubepods/burstable/pod{uid('p1')}/main"
        seen = run("privileges", rootless=rootless, capabilities=capabilities, cgroup=cgroup)
    assert seen["by cgroup"] is by_cgroup


def test_each_state_of_a_connection_has_its_verdict(*, rootless: bool) -> None:
    seen = run("states", rootless=rootless)
    assert {what: verdict for what, (verdict, _) in seen.items()} == {
        "ordinary": "proven",
        "IPv6 socket": "proven",
        "bound to an interface": "proven",
        "half-closed": "proven",
        "closed": "gone",
        "reset": "gone",
        "only a listener": "gone",
        "its second address": "proven",
        "which another has taken since": "forged",
        "an address of no pod": "gone",
        "IPv6": "gone",
        "no address": "gone",
    }


def test_namespaces_and_addresses_are_known_as_of_the_last_refresh(*, rootless: bool) -> None:
    seen = run("changes", rootless=rootless)
    table = {what: (opened, holders) for what, (_, opened, holders) in seen.items()}
    assert table == {
        "start": (3, ["p1"]),
        "nothing new": (3, ["p1"]),
        "an address more": (3, ["p1"]),
        "an address less": (3, []),
        "a file without a namespace": (3, ["p1"]),
        "our own namespace, under a name": (4, ["second"]),
        "a second name": (4, ["p2"]),
        "a namespace less": (3, []),
        "another of the same name": (4, ["p1"]),
        "a crowd of addresses": (3, []),
    }
    assert [what for what, (refreshed, *_) in seen.items() if not refreshed] == [
        "nothing new",
        "a file without a namespace",
        "a second name",
    ]


def test_a_folder_that_is_not_there_yet_is_named_and_found_later(*, rootless: bool) -> None:
    seen = run("absent", rootless=rootless)
    refreshed, failure = seen["before"]
    assert not refreshed
    assert "with propagation HostToContainer" in failure
    assert seen["after"] == [True, "", 1]


def test_the_namespace_of_a_pod_that_ends_is_let_go_with_no_request_coming() -> None:
    assert run("absent", rootless=True)["let go"] == 0

"""A pod's spec and the rights that it gives, as values."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.node.security import capability_mask, rights
from podidentity_sandbox.node.spec import ContainerRefused, HttpGet, grace_of, parse_pod
from tests.sandbox.node.site import container, pod


def test_command_and_arguments_make_the_program() -> None:
    spec = parse_pod(pod("p", container("podidentity", args=["nmi", "--v"])))
    assert spec.containers[0].program == ("podidentity", "nmi", "--v")


def test_arguments_alone_are_the_command_unless_they_are_flags_for_an_image() -> None:
    run, idle = container(args=["sleep", "1"]), container(args=["--serve"])
    spec = parse_pod(pod("p", run, {**idle, "name": "other"}))
    assert [one.program for one in spec.containers] == [("sleep", "1"), ()]


@pytest.mark.parametrize(
    ("metadata", "spec", "seconds"),
    [
        ({}, {}, 30.0),
        ({}, {"terminationGracePeriodSeconds": 5}, 5.0),
        ({"deletionGracePeriodSeconds": 0}, {"terminationGracePeriodSeconds": 5}, 0.0),
    ],
)
def test_the_grace_of_a_deletion_wins_over_the_specs(
    metadata: dict[str, Any], spec: dict[str, Any], seconds: float
) -> None:
    assert grace_of({"metadata": metadata, "spec": spec}) == seconds


def test_a_probe_has_the_apis_defaults_and_may_name_a_port() -> None:
    ports = [{"name": "health", "containerPort": 8085}]
    probed = container("x", ports=ports, readinessProbe={"httpGet": {"port": "health"}})
    probe = parse_pod(pod("p", probed)).containers[0].readiness
    assert probe is not None
    assert isinstance(probe.action, HttpGet)
    assert (probe.action.port, probe.action.path, probe.action.scheme) == (8085, "/", "HTTP")
    assert (probe.period, probe.timeout) == (10, 1)
    assert (probe.successes, probe.failures, probe.initial_delay) == (1, 3, 0)


@pytest.mark.parametrize(
    ("propagation", "follows"),
    [("", False), ("None", False), ("HostToContainer", True), ("Bidirectional", True)],
)
def test_mounts_made_later_follow_only_where_the_spec_asks(propagation: str, follows: bool) -> None:
    mount = {"name": "v", "mountPath": "/v", "mountPropagation": propagation}
    spec = parse_pod(pod("p", container(volumeMounts=[mount])))
    assert spec.containers[0].mounts[0].follow is follows


def test_a_long_name_makes_a_hostname_that_the_kernel_takes() -> None:
    assert parse_pod(pod("a" * 62 + ".b")).hostname == "a" * 62


# ---- Rights

# `grep Cap /proc/self/status` in a container of containerd, nothing asked for.
DEFAULT = 0x00000000A80425FB
NET_ADMIN, NET_RAW, SYS_ADMIN = 1 << 12, 1 << 13, 1 << 21
EVERY = (1 << 41) - 1


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), DEFAULT),
        (("NET_ADMIN",), (), DEFAULT | NET_ADMIN),
        (("CAP_NET_ADMIN",), (), DEFAULT | NET_ADMIN),
        ((), ("NET_RAW",), DEFAULT & ~NET_RAW),
        ((), ("ALL",), 0),
        (("NET_ADMIN", "SYS_ADMIN"), ("ALL",), NET_ADMIN | SYS_ADMIN),
        (("ALL",), (), EVERY),
        (("ALL",), ("SYS_ADMIN",), EVERY & ~SYS_ADMIN),
    ],
)
def test_capabilities_are_the_runtimes_default_with_the_specs_changes(
    add: tuple[str, ...], drop: tuple[str, ...], expected: int
) -> None:
    assert capability_mask(add, drop) == expected


def test_an_unknown_capability_refuses_the_container() -> None:
    with pytest.raises(ContainerRefused, match='unknown capability "MAGIC"'):
        capability_mask(("MAGIC",), ())


def test_a_privileged_container_has_every_capability() -> None:
    assert rights({}, {"privileged": True}).capabilities == EVERY


def test_the_containers_user_wins_over_the_pods() -> None:
    result = rights({"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000}, {"runAsUser": 7})
    assert (result.uid, result.gid, result.groups) == (7, 2000, (3000,))


def test_a_container_that_must_not_be_root_and_would_be_is_refused() -> None:
    with pytest.raises(ContainerRefused, match="image will run as root"):
        rights({"runAsNonRoot": True}, {})

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.node.spec import HttpGet, grace_of, parse_pod
from tests.sandbox.node.objects import container, pod


def test_command_and_arguments_make_the_program() -> None:
    spec = parse_pod(pod("p", container("podidentity", args=["nmi", "--v"])))
    assert spec.containers[0].command == ("podidentity", "nmi", "--v")


def test_arguments_alone_are_the_command_unless_they_are_flags_for_an_image() -> None:
    run, idle = container(args=["sleep", "1"]), container(args=["--serve"])
    spec = parse_pod(pod("p", run, {**idle, "name": "other"}))
    assert [one.command for one in spec.containers] == [("sleep", "1"), ()]


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


def test_a_probe_has_the_apis_defaults() -> None:
    probed = container("x", readinessProbe={"httpGet": {"port": 80}})
    probe = parse_pod(pod("p", probed)).containers[0].readiness
    assert probe is not None
    assert isinstance(probe.action, HttpGet)
    assert (probe.action.path, probe.action.scheme) == ("/", "http")
    assert (probe.period, probe.timeout) == (10, 1)
    assert (probe.successes, probe.failures, probe.initial_delay) == (1, 3, 0)


def test_a_probe_may_name_a_port_of_its_container() -> None:
    probed = container(
        "x",
        ports=[{"name": "health", "containerPort": 8085}],
        livenessProbe={"httpGet": {"port": "health", "path": "/healthz"}},
    )
    probe = parse_pod(pod("p", probed)).containers[0].liveness
    assert probe is not None
    assert isinstance(probe.action, HttpGet)
    assert (probe.action.port, probe.action.path) == (8085, "/healthz")


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

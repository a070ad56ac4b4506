"""`check --pod`: the question to NMI's pod, and what its answer comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from podidentity.cli import path_check
from tests.cli.binding import Run
from tests.cli.conftest import PODS
from tests.cli.world import World

NUMBER = "0123456789abcdef"
EVENTS = "/api/v1/namespaces/kube-system/events"
LABELS = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "nmi"}


@pytest.fixture
def agent(world: World, ns: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A pod of NMI, and one of a tenant, on the same node; nobody answers."""
    monkeypatch.setattr(path_check, "SECONDS", 60.0)
    monkeypatch.setattr(path_check, "token_hex", lambda _: NUMBER)
    world.pod("kube-system", "nmi-by-hand", LABELS, node=1)
    world.pod(ns, "a", {}, node=1)
    yield world
    world.send("DELETE", f"{PODS}/nmi-by-hand", gracePeriodSeconds="0")


@pytest.fixture
def answer(agent: World) -> Iterator[object]:
    """Have NMI's pod answer beforehand, by this reason and message."""
    name = f"podidentity-probe.{NUMBER}"

    def told(reason: str, message: str) -> None:
        pod = agent.get(f"{PODS}/nmi-by-hand")["metadata"]
        about = {"kind": "Pod", "apiVersion": "v1", "name": pod["name"], "uid": pod["uid"]}
        metadata = {"name": name, "namespace": "kube-system"}
        body = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "reason": reason}
        involved = {**about, "namespace": "kube-system"}
        more = {"message": message, "type": "Warning", "involvedObject": involved}
        agent.send("POST", EVENTS, body | more)

    yield told
    agent.send("DELETE", f"{EVENTS}/{name}")


def test_a_request_that_arrived_is_told_with_the_node(
    agent: World, ns: str, podidentity: Run, answer: object
) -> None:
    assert callable(answer)
    answer("ProbeArrived", "a request from the pod has arrived at NMI (routed)")
    ran = podidentity("check", "--pod", f"{ns}/a")
    assert (ran.code, ran.err) == (0, "")
    assert f"Pod {ns}/a on node " in ran.out
    assert "has arrived at NMI (routed)." in ran.out
    assert json.loads(podidentity("check", "--pod", f"{ns}/a", "-o", "json").out) == []
    asked = agent.get(f"{PODS}/nmi-by-hand")["metadata"]["annotations"]
    assert asked == {"aadpodidentity.k8s.io/probe": f"{NUMBER} {ns}/a"}


def test_one_that_was_lost_is_red_with_the_next_step(
    ns: str, podidentity: Run, answer: object
) -> None:
    assert callable(answer)
    answer("ProbeLost", "a request got no answer; let pods out")
    ran = podidentity("check", "--pod", f"{ns}/a", "-o", "json")
    assert ran.code == 1
    (found,) = json.loads(ran.out)
    assert (found["namespace"], found["name"], found["reason"]) == (ns, "a", "ProbeLost")
    assert "a request got no answer." in found["message"]
    assert found["nextStep"] == "Let pods out."


@pytest.mark.usefixtures("agent")
def test_an_agent_that_does_not_answer_is_said_and_is_no_proof(
    ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_check, "SECONDS", 1.0)
    ran = podidentity("check", "--pod", f"{ns}/a")
    assert ran.code == 1
    assert "pod kube-system/nmi-by-hand did not answer within 1 s" in ran.err


def test_a_node_without_nmi_and_a_pod_that_is_not_there_are_said(
    world: World, ns: str, podidentity: Run
) -> None:
    assert f"pod {ns}/b does not exist" in podidentity("check", "--pod", f"{ns}/b").err
    world.pod(ns, "a", {}, node=1)
    ran = podidentity("check", "--pod", f"{ns}/a")
    assert (ran.code, "there is no NMI on node" in ran.err) == (1, True)

"""A node whose kubelet is silent: what becomes of it, of its pods, and when it is back."""

from __future__ import annotations

from typing import Any

from podidentity.cli.rollout import ready, trouble
from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.controllers.nodes import GRACE, UNREACHABLE, tolerated_for
from tests.sandbox.cluster.conftest import pod
from tests.sandbox.cluster.settled import READY, Settled

LEASES = "leases.coordination.k8s.io"


def seconds(world: Settled, count: float) -> None:
    """Let so much time pass, and something happen after it."""
    world.late += type(world.late)(seconds=count)
    world.create("configmaps", {"metadata": {"generateName": "tick-"}})


def alive(world: Settled, name: str, renewed: str) -> None:
    """Renew a node's Lease, as its kubelet does."""
    lease = {"metadata": {"name": name}, "spec": {"renewTime": renewed}}
    if world.get(LEASES, name, "kube-node-lease") is None:
        world.create(LEASES, lease, "kube-node-lease")
    else:
        world.patch(LEASES, name, lease, namespace="kube-node-lease")


def node(world: Settled, name: str = "a") -> Obj:
    found = world.the("nodes", name)
    return found.object


def state(world: Settled) -> str:
    return str(node(world)["status"]["conditions"][0]["status"])


def keys(world: Settled) -> list[tuple[str, str]]:
    taints = node(world).get("spec", {}).get("taints", [])
    return [(taint["key"], taint["effect"]) for taint in taints]


def test_a_node_is_alive_as_long_as_its_lease_is_renewed(world: Settled) -> None:
    world.node("a")
    for turn in range(4):
        alive(world, "a", f"{turn}")
        seconds(world, GRACE - 1)
        assert (state(world), keys(world)) == ("True", [])
    seconds(world, 2)
    assert state(world) == "Unknown"


def test_a_dead_node_is_not_ready_tainted_and_gets_no_pods(world: Settled) -> None:
    world.node("a")
    alive(world, "a", "1")
    world.create("pods", pod("old"))
    world.run("old")
    seconds(world, GRACE + 1)
    condition = node(world)["status"]["conditions"][0]
    assert condition["reason"] == "NodeStatusUnknown"
    assert condition["message"] == "Kubelet stopped posting node status."
    assert keys(world) == [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
    old = world.the("pods", "old")
    (ready,) = [c for c in old.object["status"]["conditions"] if c["type"] == "Ready"]
    assert ready["status"] == "False"
    assert not old.deleted  # it bears it for five minutes
    world.create("pods", pod("new"))
    assert world.pods()["new"] == ""
    alive(world, "a", "2")
    world.patch("nodes", "a", {"status": {"conditions": READY}}, "status")
    assert (state(world), keys(world)) == ("True", [])
    assert world.pods()["new"] == "a"


def test_the_commands_call_the_agent_of_a_dead_node_not_ready(world: Settled) -> None:
    """Its pod tolerates all, and so stays; `explain` and `check` go by its condition."""
    world.node("a")
    alive(world, "a", "1")
    world.create("pods", pod("nmi", tolerations=[{"operator": "Exists"}]))
    world.run("nmi")
    living = world.the("pods", "nmi")
    assert ready(living.object)
    seconds(world, GRACE + 1)
    left = world.the("pods", "nmi")
    assert not left.deleted
    assert (ready(left.object), trouble(left.object)) == (False, "not Ready")


def test_a_pod_is_deleted_when_it_bears_a_dead_node_no_longer(world: Settled) -> None:
    world.node("a")
    alive(world, "a", "1")
    at_once = {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"}
    world.create("pods", pod("hasty", tolerations=[{**at_once, "tolerationSeconds": 0}]))
    world.create("pods", pod("patient", tolerations=[at_once]))
    seconds(world, GRACE + 1)
    assert list(world.pods()) == ["patient"]
    hasty = world.get("pods", "hasty")
    assert hasty is not None  # it is Terminating: nobody says that it has ended
    assert hasty.deleted


def test_a_node_that_no_kubelet_made_is_left_alone(world: Settled) -> None:
    world.node("a")
    seconds(world, 10 * GRACE)
    assert state(world) == "True"


def test_of_several_tolerations_the_shortest_counts() -> None:
    def borne(*tolerations: dict[str, Any]) -> float | None:
        return tolerated_for({"spec": {"tolerations": list(tolerations)}})

    exists = {"key": UNREACHABLE, "operator": "Exists"}
    assert borne() == 0
    assert borne({**exists, "tolerationSeconds": 9}, {**exists, "tolerationSeconds": 5}) == 5
    assert borne({**exists, "effect": "NoSchedule"}) == 0
    assert borne({"operator": "Exists"}) is None
    assert borne({"key": "other", "operator": "Exists"}) == 0

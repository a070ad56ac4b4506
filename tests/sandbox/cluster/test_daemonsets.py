"""Pods get nodes, and daemon sets their pods.

https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from podidentity_sandbox.cluster import Obj
from tests.sandbox.cluster.conftest import pod
from tests.sandbox.cluster.settled import Settled


def daemon_set(image: str = "nmi:1", **spec: Any) -> Obj:
    template = {
        "metadata": {"labels": {"app": "nmi"}},
        "spec": {"containers": [{"name": "nmi", "image": image}]},
    }
    return {
        "metadata": {"name": "nmi"},
        "spec": {"selector": {"matchLabels": {"app": "nmi"}}, "template": template, **spec},
    }


def test_pods_are_placed_in_turn_on_nodes_that_are_ready(world: Settled) -> None:
    world.create("pods", pod("early"))
    assert world.pods() == {"early": ""}
    world.node("a")
    world.node("b")
    world.node("c", ready=False)
    for name in ("x", "y"):
        world.create("pods", pod(name))
    assert world.pods()["early"] == "a"
    assert {world.pods()["x"], world.pods()["y"]} == {"a", "b"}


@pytest.mark.parametrize(
    ("spec", "node"),
    [
        ({"nodeSelector": {"disk": "fast"}}, "b"),
        ({"nodeSelector": {"disk": "none"}}, ""),
        ({"tolerations": [{"key": "only", "operator": "Exists"}], "nodeSelector": {"c": "c"}}, "c"),
        ({"nodeSelector": {"c": "c"}}, ""),
    ],
)
def test_a_pod_goes_only_where_it_fits(world: Settled, spec: Obj, node: str) -> None:
    world.node("a")
    world.node("b", labels={"disk": "fast"})
    world.node("c", labels={"c": "c"})
    taint = {"key": "only", "value": "x", "effect": "NoSchedule"}
    world.patch("nodes", "c", {"spec": {"taints": [taint]}})
    world.create("pods", pod("p", **spec))
    assert world.pods()["p"] == node


def test_a_daemon_set_has_one_pod_on_each_node_and_a_new_node_gets_one(world: Settled) -> None:
    world.node("a")
    world.create("daemonsets.apps", daemon_set())
    world.node("b")
    assert sorted(world.pods().values()) == ["a", "b"]
    for name in world.pods():
        world.run(name)
    told = state(world)
    assert (told["desiredNumberScheduled"], told["numberReady"]) == (2, 2)
    assert (told["numberMisscheduled"], told["numberUnavailable"]) == (0, 0)
    assert told["observedGeneration"] == 1


def test_a_daemon_set_runs_also_where_nodes_are_not_ready_yet(world: Settled) -> None:
    world.node("a", ready=False)
    world.create("daemonsets.apps", daemon_set())
    assert list(world.pods().values()) == ["a"]


def test_a_daemon_set_s_pod_that_is_gone_or_failed_is_replaced(world: Settled) -> None:
    world.node("a")
    world.create("daemonsets.apps", daemon_set())
    (first,) = world.pods()
    world.delete("pods", first)
    assert world.pods() == {}, "it waits until the other is gone"
    world.delete("pods", first, grace_seconds=0)
    (second,) = world.pods()
    world.patch("pods", second, {"status": {"phase": "Failed"}}, "status")
    (third,) = world.pods()
    assert len({first, second, third}) == 3


def test_a_new_template_replaces_running_pods_one_after_the_other(world: Settled) -> None:
    world.node("a")
    world.node("b")
    world.create("daemonsets.apps", daemon_set())
    old = set(world.pods())
    for name in old:
        world.run(name)
    retemplate(world)
    ending = old - set(world.pods())
    assert len(ending) == 1
    world.delete("pods", ending.pop(), grace_seconds=0)
    assert len(old & set(world.pods())) == 1  # the second waits until the first is replaced
    new = next(iter(set(world.pods()) - old))
    world.run(new)
    assert set(world.pods()) == {new}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"selector": None}, "spec.selector: Required value"),
        ({"selector": {}}, "spec.selector: Required value"),
        ({"selector": {"matchLabels": {"app": "x"}}}, "`selector` does not match template"),
        ({"minReadySeconds": 1}, "spec.minReadySeconds: Forbidden: only a real control plane"),
    ],
)
def test_a_daemon_set_selects_its_own_pods(world: Settled, spec: Obj, says: str) -> None:
    assert says in world.refused("daemonsets.apps", daemon_set(**spec))


def rolling(surge: int | str = 1, unavailable: int | str = 0) -> Obj:
    limits = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {"type": "RollingUpdate", "rollingUpdate": limits}


def surging(
    world: Settled, nodes: int = 2, surge: int | str = 1, *, running: bool = True
) -> set[str]:
    """Make a set with surge that runs on each node, give it a new template; return its old pods."""
    for number in range(nodes):
        world.node(f"n{number}")
    world.create("daemonsets.apps", daemon_set(updateStrategy=rolling(surge)))
    old = set(world.pods())
    for name in old if running else ():
        world.run(name)
    world.late += timedelta(seconds=1)  # of two pods of one second, that with the first name counts
    retemplate(world)
    return old


def state(world: Settled) -> Obj:
    told: Obj = world.the("daemonsets.apps", "nmi").object["status"]
    return told


def retemplate(world: Settled, image: str = "nmi:2") -> None:
    template = daemon_set(image)["spec"]["template"]
    world.patch("daemonsets.apps", "nmi", {"spec": {"template": template}})


def test_with_surge_the_old_pod_goes_once_the_new_one_beside_it_is_ready_and_then_the_next_follows(
    world: Settled,
) -> None:
    old = surging(world)
    assert old < set(world.pods())
    (first,) = set(world.pods()) - old
    assert (state(world)["updatedNumberScheduled"], state(world)["numberAvailable"]) == (0, 2)
    node = world.pods()[first]
    world.run(first)
    (gone,) = old - set(world.pods())
    second = (set(world.pods()) - old - {first}).pop()
    assert world.pods()[second] != node
    world.delete("pods", gone, grace_seconds=0)
    assert state(world)["updatedNumberScheduled"] == 1
    world.run(second)
    for name in old & {each.name for each in world.cluster.storage.all("pods")}:
        world.delete("pods", name, grace_seconds=0)
    assert set(world.pods()) == {first, second}
    assert (state(world)["updatedNumberScheduled"], state(world)["numberAvailable"]) == (2, 2)


def test_with_surge_a_template_whose_pods_never_get_ready_stops_at_the_first_node(
    world: Settled,
) -> None:
    old = surging(world, nodes=4)
    (new,) = set(world.pods()) - old
    waiting = {"conditions": [{"type": "Ready", "status": "False"}], "phase": "Running"}
    world.patch("pods", new, {"status": waiting}, "status")
    assert set(world.pods()) == old | {new}
    assert state(world)["numberUnavailable"] == 0


def test_with_surge_a_template_that_is_taken_back_removes_the_new_pod_alone(
    world: Settled,
) -> None:
    old = surging(world)
    retemplate(world, "nmi:1")
    assert set(world.pods()) == old


def test_with_surge_an_old_pod_that_is_not_ready_gives_way_on_every_node_at_once(
    world: Settled,
) -> None:
    old = surging(world, nodes=3, running=False)
    assert not old & set(world.pods())
    assert len(world.pods()) == 3


@pytest.mark.parametrize(("surge", "made"), [("50%", 2), ("10%", 1), (3, 3)])
def test_surge_as_a_share_is_rounded_up(world: Settled, surge: int | str, made: int) -> None:
    old = surging(world, nodes=4, surge=surge)
    assert len(set(world.pods()) - old) == made


def in_the_nodes_network(image: str, *ports: int) -> Obj:
    made = daemon_set(image, updateStrategy=rolling())
    spec = made["spec"]["template"]["spec"]
    spec["hostNetwork"] = True
    spec["containers"][0]["ports"] = [{"containerPort": port} for port in ports]
    return made


@pytest.mark.parametrize(("ports", "placed"), [((), True), ((2579,), False)])
def test_with_surge_in_the_nodes_network_a_declared_port_keeps_the_new_pod_waiting(
    world: Settled, ports: tuple[int, ...], placed: bool
) -> None:
    world.node("a")
    world.create("daemonsets.apps", in_the_nodes_network("nmi:1", *ports))
    (old,) = world.pods()
    world.run(old)
    template = in_the_nodes_network("nmi:2", *ports)["spec"]["template"]
    world.patch("daemonsets.apps", "nmi", {"spec": {"template": template}})
    (new,) = set(world.pods()) - {old}
    assert bool(world.pods()[new]) == placed
    if not placed:
        found = world.the("pods", new)
        message = found.object["status"]["conditions"][0]["message"]
        assert "1 node(s) didn't have free ports for the requested pod ports" in message


def test_a_pod_of_another_scheduler_is_left_alone(world: Settled) -> None:
    """ResponsibleForPod in pkg/scheduler/eventhandlers.go of kubernetes 1.32."""
    world.node("a")
    world.create("pods", pod("theirs", schedulerName="nobody"))
    world.create("pods", pod("ours"))
    assert world.pods() == {"theirs": "", "ours": "a"}
    found = world.the("pods", "theirs")
    assert "conditions" not in found.object["status"]


def test_a_pod_that_waits_for_a_port_is_placed_when_its_holder_is_gone(world: Settled) -> None:
    world.node("a")
    for name in ("one", "two"):
        ported = pod(name, hostNetwork=True)
        ported["spec"]["containers"][0]["ports"] = [{"containerPort": 80}]
        world.create("pods", ported)
    assert world.pods() == {"one": "a", "two": ""}
    world.delete("pods", "one", grace_seconds=0)
    assert world.pods() == {"two": "a"}

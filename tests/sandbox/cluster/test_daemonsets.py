"""Pods get nodes, and daemon sets their pods.

https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
"""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.status import StatusError
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
    found = world.get("daemonsets.apps", "nmi")
    assert found is not None
    assert found.object["status"] == {
        "currentNumberScheduled": 2,
        "desiredNumberScheduled": 2,
        "numberAvailable": 2,
        "numberMisscheduled": 0,
        "numberReady": 2,
        "numberUnavailable": 0,
        "observedGeneration": 1,
        "updatedNumberScheduled": 2,
    }


def test_a_daemon_set_runs_also_where_nodes_are_not_ready_yet(world: Settled) -> None:
    world.node("a", ready=False)
    world.create("daemonsets.apps", daemon_set())
    assert list(world.pods().values()) == ["a"]


def test_a_daemon_set_s_pod_that_goes_is_replaced_once_it_is_gone(world: Settled) -> None:
    world.node("a")
    world.create("daemonsets.apps", daemon_set())
    first = next(iter(world.pods()))
    world.delete("pods", first)
    assert world.pods() == {}
    world.delete("pods", first, grace_seconds=0)
    assert list(world.pods().values()) == ["a"]
    assert first not in world.pods()


def test_a_daemon_set_s_pod_that_failed_is_replaced(world: Settled) -> None:
    world.node("a")
    world.create("daemonsets.apps", daemon_set())
    first = next(iter(world.pods()))
    world.patch("pods", first, {"status": {"phase": "Failed"}}, "status")
    assert list(world.pods().values()) == ["a"]
    assert first not in world.pods()


def test_a_new_template_replaces_running_pods_one_after_the_other(world: Settled) -> None:
    world.node("a")
    world.node("b")
    world.create("daemonsets.apps", daemon_set())
    old = set(world.pods())
    for name in old:
        world.run(name)
    world.patch("daemonsets.apps", "nmi", {"spec": daemon_set("nmi:2")["spec"]})
    ending = old - set(world.pods())
    assert len(ending) == 1
    world.delete("pods", ending.pop(), grace_seconds=0)
    assert len(old & set(world.pods())) == 1  # the second waits until the first is replaced
    new = next(iter(set(world.pods()) - old))
    world.run(new)
    assert set(world.pods()) == {new}


def test_a_set_that_is_updated_on_delete_waits_for_the_delete(world: Settled) -> None:
    world.node("a")
    world.create("daemonsets.apps", daemon_set(updateStrategy={"type": "OnDelete"}))
    old = set(world.pods())
    world.patch(
        "daemonsets.apps", "nmi", {"spec": {"template": daemon_set("2")["spec"]["template"]}}
    )
    assert set(world.pods()) == old


def test_a_daemon_set_takes_its_pods_with_it(world: Settled) -> None:
    world.node("a")
    world.create("daemonsets.apps", daemon_set())
    world.delete("daemonsets.apps", "nmi")
    assert world.pods() == {}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"selector": None}, "spec.selector: Required value"),
        ({"selector": {}}, "empty selector is invalid for daemonset"),
        ({"selector": {"matchLabels": {"app": "x"}}}, "`selector` does not match template"),
    ],
)
def test_a_daemon_set_selects_its_own_pods(world: Settled, spec: Obj, says: str) -> None:
    with pytest.raises(StatusError, match=says):
        world.create("daemonsets.apps", daemon_set(**spec))

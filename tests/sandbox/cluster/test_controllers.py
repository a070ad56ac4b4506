"""What the cluster does by itself. The loop is settled by hand where order matters.

https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.sandbox.cluster.conftest import pod

from podidentity_sandbox.cluster.cluster import Cluster
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.main import make_cluster
from podidentity_sandbox.cluster.patch import merge
from podidentity_sandbox.cluster.resources import Deletion
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Record


class World:
    """A cluster without HTTP, settled after each step."""

    def __init__(self, folder: Path) -> None:
        self.cluster: Cluster = make_cluster(folder)

    def create(self, key: str, body: Obj, namespace: str = "default") -> Record:
        kind = self.cluster.registry.by_key(key)
        made = self.cluster.resources.create(kind, namespace if kind.namespaced else "", body)
        self.cluster.loop.settle()
        return made

    def get(self, key: str, name: str, namespace: str = "default") -> Record | None:
        place = namespace if self.cluster.registry.by_key(key).namespaced else ""
        return self.cluster.storage.get(key, place, name)

    def patch(self, key: str, name: str, patch: Obj, subresource: str = "") -> None:
        record = self.get(key, name)
        assert record is not None
        kind = self.cluster.registry.by_key(key)
        body = merge(record.thaw(), patch)
        self.cluster.resources.update(kind, record, body, subresource=subresource)
        self.cluster.loop.settle()

    def delete(self, key: str, name: str, namespace: str = "default", **how: Any) -> None:
        record = self.get(key, name, namespace)
        assert record is not None
        kind = self.cluster.registry.by_key(key)
        self.cluster.resources.delete(kind, record, Deletion(**how))
        self.cluster.loop.settle()

    def node(self, name: str, *, ready: bool = True, **metadata: Any) -> None:
        state = {"conditions": [{"type": "Ready", "status": str(ready)}]}
        self.create("nodes", {"metadata": {"name": name, **metadata}, "status": state})

    def pods(self) -> dict[str, str]:
        """Return the nodes of all living pods, by name."""
        living = [p for p in self.cluster.storage.all("pods") if not p.deleted]
        return {p.name: p.object["spec"].get("nodeName", "") for p in living}

    def run(self, name: str) -> None:
        """Say that a pod runs, as its kubelet does."""
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.patch("pods", name, {"status": ready}, "status")


@pytest.fixture
def world(folder: Path) -> World:
    return World(folder)


def daemon_set(image: str = "nmi:1", **spec: Any) -> Obj:
    template = {
        "metadata": {"labels": {"app": "nmi"}},
        "spec": {"containers": [{"name": "nmi", "image": image}]},
    }
    return {
        "metadata": {"name": "nmi"},
        "spec": {"selector": {"matchLabels": {"app": "nmi"}}, "template": template, **spec},
    }


def test_pods_are_placed_in_turn_on_nodes_that_are_ready(world: World) -> None:
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
def test_a_pod_goes_only_where_it_fits(world: World, spec: Obj, node: str) -> None:
    world.node("a")
    world.node("b", labels={"disk": "fast"})
    world.node("c", labels={"c": "c"})
    taint = {"key": "only", "value": "x", "effect": "NoSchedule"}
    world.patch("nodes", "c", {"spec": {"taints": [taint]}})
    world.create("pods", pod("p", **spec))
    assert world.pods()["p"] == node


def test_a_daemon_set_has_one_pod_on_each_node_and_a_new_node_gets_one(world: World) -> None:
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


def test_a_daemon_set_runs_also_where_nodes_are_not_ready_yet(world: World) -> None:
    world.node("a", ready=False)
    world.create("daemonsets.apps", daemon_set())
    assert list(world.pods().values()) == ["a"]


def test_a_daemon_set_s_pod_that_goes_is_replaced_once_it_is_gone(world: World) -> None:
    world.node("a")
    world.create("daemonsets.apps", daemon_set())
    first = next(iter(world.pods()))
    world.delete("pods", first)
    assert world.pods() == {}
    world.delete("pods", first, grace_seconds=0)
    assert list(world.pods().values()) == ["a"]
    assert first not in world.pods()


def test_a_daemon_set_s_pod_that_failed_is_replaced(world: World) -> None:
    world.node("a")
    world.create("daemonsets.apps", daemon_set())
    first = next(iter(world.pods()))
    world.patch("pods", first, {"status": {"phase": "Failed"}}, "status")
    assert list(world.pods().values()) == ["a"]
    assert first not in world.pods()


def test_a_new_template_replaces_running_pods_one_after_the_other(world: World) -> None:
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


def test_a_set_that_is_updated_on_delete_waits_for_the_delete(world: World) -> None:
    world.node("a")
    world.create("daemonsets.apps", daemon_set(updateStrategy={"type": "OnDelete"}))
    old = set(world.pods())
    world.patch(
        "daemonsets.apps", "nmi", {"spec": {"template": daemon_set("2")["spec"]["template"]}}
    )
    assert set(world.pods()) == old


def test_a_daemon_set_takes_its_pods_with_it(world: World) -> None:
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
def test_a_daemon_set_selects_its_own_pods(world: World, spec: Obj, says: str) -> None:
    with pytest.raises(StatusError, match=says):
        world.create("daemonsets.apps", daemon_set(**spec))


def owned(name: str, *owners: Record, **more: Any) -> Obj:
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": o.name, "uid": o.uid, **more}
        for o in owners
    ]
    return {"metadata": {"name": name, "ownerReferences": references}}


def test_dependents_go_with_the_last_of_their_owners(world: World) -> None:
    one, two = (world.create("configmaps", {"metadata": {"name": n}}) for n in ("one", "two"))
    world.create("configmaps", owned("child", one, two))
    world.delete("configmaps", "one")
    child = world.get("configmaps", "child")
    assert child is not None
    assert [o["name"] for o in child.metadata["ownerReferences"]] == ["two"]
    world.delete("configmaps", "two")
    assert world.get("configmaps", "child") is None


def test_orphans_stay(world: World) -> None:
    owner = world.create("configmaps", {"metadata": {"name": "owner"}})
    world.create("configmaps", owned("child", owner))
    world.delete("configmaps", "owner", propagation="Orphan")
    child = world.get("configmaps", "child")
    assert world.get("configmaps", "owner") is None
    assert child is not None
    assert "ownerReferences" not in child.metadata


def test_in_the_foreground_an_owner_waits_for_its_dependents(world: World) -> None:
    owner = world.create("configmaps", {"metadata": {"name": "owner"}})
    child = owned("child", owner, blockOwnerDeletion=True)
    child["metadata"]["finalizers"] = ["example.com/hold"]
    world.create("configmaps", child)
    world.delete("configmaps", "owner", propagation="Foreground")
    waiting = world.get("configmaps", "owner")
    assert waiting is not None
    assert waiting.deleted
    world.patch("configmaps", "child", {"metadata": {"finalizers": None}})
    assert world.get("configmaps", "child") is None
    assert world.get("configmaps", "owner") is None


def test_a_dependent_of_nobody_is_collected(world: World) -> None:
    owner = world.create("configmaps", {"metadata": {"name": "owner"}})
    world.delete("configmaps", "owner")
    world.create("configmaps", owned("late", owner))
    assert world.get("configmaps", "late") is None


def test_the_pods_of_a_deleted_node_go(world: World) -> None:
    world.node("a")
    world.create("pods", pod("p"))
    world.delete("nodes", "a")
    assert world.pods() == {}


def test_a_namespace_has_an_account_and_the_root_certificate(world: World) -> None:
    world.create("namespaces", {"metadata": {"name": "shop"}})
    assert world.get("serviceaccounts", "default", "shop") is not None
    root = world.get("configmaps", "kube-root-ca.crt", "shop")
    assert root is not None
    assert root.object["data"]["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
    world.delete("serviceaccounts", "default", "shop")
    assert world.get("serviceaccounts", "default", "shop") is not None


def test_a_namespace_waits_for_what_is_in_it_and_takes_nothing_new(world: World) -> None:
    world.create("namespaces", {"metadata": {"name": "shop"}})
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    world.create("configmaps", held, "shop")
    world.delete("namespaces", "shop")
    left = world.get("namespaces", "shop")
    assert left is not None
    assert left.object["status"]["phase"] == "Terminating"
    assert world.get("serviceaccounts", "default", "shop") is None
    with pytest.raises(StatusError, match="because it is being terminated") as refusal:
        world.create("configmaps", {"metadata": {"name": "new"}}, "shop")
    assert refusal.value.code == 403
    record = world.get("configmaps", "held", "shop")
    assert record is not None
    free = merge(record.thaw(), {"metadata": {"finalizers": None}})
    kind = world.cluster.registry.by_key("configmaps")
    world.cluster.resources.update(kind, record, free)
    world.cluster.loop.settle()
    assert world.get("namespaces", "shop") is None

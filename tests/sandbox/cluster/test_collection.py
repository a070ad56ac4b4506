"""What is no longer needed goes: dependents, pods of lost nodes, namespaces.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.storage import Record
from tests.sandbox.cluster.conftest import pod
from tests.sandbox.cluster.settled import Settled


def owned(name: str, *owners: Record, **more: Any) -> Obj:
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": o.name, "uid": o.uid, **more}
        for o in owners
    ]
    return {"metadata": {"name": name, "ownerReferences": references}}


def test_dependents_go_with_the_last_of_their_owners(world: Settled) -> None:
    one, two = (world.create("configmaps", {"metadata": {"name": n}}) for n in ("one", "two"))
    world.create("configmaps", owned("child", one, two))
    world.delete("configmaps", "one")
    child = world.the("configmaps", "child")
    assert [o["name"] for o in child.metadata["ownerReferences"]] == ["two"]
    world.delete("configmaps", "two")
    assert world.get("configmaps", "child") is None


def test_in_the_foreground_an_owner_waits_for_its_dependents(world: Settled) -> None:
    owner = world.create("configmaps", {"metadata": {"name": "owner"}})
    child = owned("child", owner, blockOwnerDeletion=True)
    child["metadata"]["finalizers"] = ["example.com/hold"]
    world.create("configmaps", child)
    world.delete("configmaps", "owner", propagation="Foreground")
    waiting = world.the("configmaps", "owner")
    assert waiting.deleted
    world.patch("configmaps", "child", {"metadata": {"finalizers": None}})
    assert world.get("configmaps", "child") is None
    assert world.get("configmaps", "owner") is None


def test_a_dependent_of_nobody_is_collected(world: Settled) -> None:
    owner = world.create("configmaps", {"metadata": {"name": "owner"}})
    world.delete("configmaps", "owner")
    world.create("configmaps", owned("late", owner))
    assert world.get("configmaps", "late") is None


def test_the_pods_of_a_deleted_node_go(world: Settled) -> None:
    world.node("a")
    world.create("pods", pod("p"))
    world.delete("nodes", "a")
    assert world.pods() == {}


def test_a_namespace_has_an_account_and_the_root_certificate(world: Settled) -> None:
    world.create("namespaces", {"metadata": {"name": "shop"}})
    assert world.get("serviceaccounts", "default", "shop") is not None
    root = world.the("configmaps", "kube-root-ca.crt", "shop")
    assert root.object["data"]["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
    world.delete("serviceaccounts", "default", "shop")
    assert world.get("serviceaccounts", "default", "shop") is not None

"""Who made which object: the reference to a controller, and a set's own pods."""

from __future__ import annotations

from collections.abc import Sequence

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.storage import Record, Storage


def controller_of(obj: Obj) -> Obj | None:
    """Return the owner reference of an object's controller."""
    owners: list[Obj] = obj["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner.get("controller")), None)


def reference_to(owner: Record) -> Obj:
    """Return the owner reference that makes `owner` the controller of an object."""
    return {
        "apiVersion": owner.object["apiVersion"],
        "kind": owner.object["kind"],
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned(storage: Storage, key: str, owner: Record) -> Sequence[Record]:
    """Return the objects of a type that `owner` controls, in the order of their names."""
    return [
        record
        for record in storage.all(key, owner.namespace)
        if (controller_of(record.object) or {}).get("uid") == owner.uid
    ]

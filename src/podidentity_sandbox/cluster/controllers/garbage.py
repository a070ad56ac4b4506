"""Removes what belongs to nothing any more: dependents of deleted owners, pods of deleted nodes.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.resources import Deletion, Resources
from podidentity_sandbox.cluster.storage import Change, Record, field_of

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"

Place = tuple[str, str, str]
"""Storage key, namespace and name."""


class Garbage:
    """Knows who depends on whom."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._dependents: dict[str, set[Place]] = {}

    def react(self, change: Change) -> None:
        """Update the graph of owners, and collect the objects that a change leaves without one."""
        record = change.record
        self._book(change)
        if change.event == "DELETED":
            for place in sorted(self._dependents.pop(record.uid, ())):
                self._collect(place)
            if change.key == "nodes":
                self._evict(record.name)
            self._finish_owners(record)
        elif record.metadata.get("ownerReferences"):
            self._collect((change.key, record.namespace, record.name))
        if record.deleted and change.event != "DELETED":
            self._end(change.key, record)

    def _book(self, change: Change) -> None:
        """Note who depends on whom."""
        record = change.record
        place = change.key, record.namespace, record.name
        for owner in (change.previous or record).metadata.get("ownerReferences", []):
            self._dependents.get(owner["uid"], set()).discard(place)
        if change.event != "DELETED":
            for owner in record.metadata.get("ownerReferences", []):
                self._dependents.setdefault(owner["uid"], set()).add(place)

    def _find(self, place: Place) -> tuple[ResourceType, Record] | None:
        key, namespace, name = place
        record = self._resources.storage.get(key, namespace, name)
        if record is None:
            return None
        try:
            return self._resources.registry.by_key(key), record
        except KeyError:
            return None

    def _collect(self, place: Place) -> None:
        """Delete an object none of whose owners lives; else take the dead ones from its list."""
        found = self._find(place)
        if found is None or found[1].deleted:
            return
        kind, record = found
        owners = record.metadata.get("ownerReferences", [])
        living = [owner for owner in owners if owner["uid"] in self._resources.storage.uids]
        if owners and not living:
            self._resources.delete(kind, record, Deletion(propagation="Background"))
        elif len(living) < len(owners):
            self._disown(kind, record, [o["uid"] for o in owners if o not in living])

    def _disown(self, kind: ResourceType, record: Record, uids: list[str]) -> None:
        # It may be disowned already: of what was done just now the book does not know yet.
        new = record.thaw()
        owners = [o for o in new["metadata"].pop("ownerReferences", []) if o["uid"] not in uids]
        if owners:
            new["metadata"]["ownerReferences"] = owners
        self._resources.settle(kind, record, new)

    def _end(self, key: str, owner: Record) -> None:
        """Carry out an owner's finalizer: orphan its dependents, or delete them first."""
        finalizers = owner.metadata.get("finalizers", [])
        places = sorted(self._dependents.get(owner.uid, ()))
        if ORPHAN in finalizers:
            for kind, record in filter(None, map(self._find, places)):
                self._disown(kind, record, [owner.uid])
            self._release(key, owner, ORPHAN)
        elif FOREGROUND in finalizers:
            blocking = False
            for kind, record in filter(None, map(self._find, places)):
                blocking = blocking or _blocks(record.object, owner.uid)
                if not record.deleted:
                    self._resources.delete(kind, record, Deletion(propagation="Foreground"))
            if not blocking:
                self._release(key, owner, FOREGROUND)

    def _finish_owners(self, dependent: Record) -> None:
        """Look again at the owners that wait for the end of a dependent."""
        for owner in dependent.metadata.get("ownerReferences", []):
            kind = self._resources.registry.by_kind(owner["apiVersion"], owner["kind"])
            if kind is None:
                continue
            namespace = dependent.namespace if kind.namespaced else ""
            found = self._resources.storage.get(kind.key, namespace, owner["name"])
            if found is not None and found.uid == owner["uid"] and found.deleted:
                self._end(kind.key, found)

    def _release(self, key: str, owner: Record, finalizer: str) -> None:
        found = self._find((key, owner.namespace, owner.name))
        if found is None:
            return
        kind, record = found
        new = record.thaw()
        left = [f for f in new["metadata"].get("finalizers", []) if f != finalizer]
        new["metadata"]["finalizers"] = left
        self._resources.settle(kind, record, new)

    def _evict(self, node: str) -> None:
        """Remove the pods of a node that is gone: no kubelet will."""
        for pod in self._resources.storage.all("pods"):
            if field_of(pod.object, "spec.nodeName") == node:
                self._resources.delete("pods", pod, Deletion(grace_seconds=0))


def _blocks(dependent: Obj, owner: str) -> bool:
    owners = dependent["metadata"].get("ownerReferences", [])
    return any(o["uid"] == owner and o.get("blockOwnerDeletion") for o in owners)

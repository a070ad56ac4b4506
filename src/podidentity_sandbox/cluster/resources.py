"""The verbs that change something, the same for every type: create, update, patch, delete.

Each reads, decides and writes without a pause, so that none sees another's half. HTTP is not known
here; the controllers use the same verbs as the clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from podidentity_sandbox.cluster import Obj, names, objects, schema, status
from podidentity_sandbox.cluster.objects import Write
from podidentity_sandbox.cluster.registry import Registry, ResourceType
from podidentity_sandbox.cluster.status import Cause
from podidentity_sandbox.cluster.storage import Record, Storage, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """DeleteOptions."""

    grace_seconds: int | None = None
    propagation: str = ""
    """Background, Foreground, Orphan or "" for the default, Background."""
    uid: str = ""
    revision: str = ""
    dry_run: bool = False


Admission = Callable[[ResourceType, Obj], None]
"""Looks at an object about to be created; raises a StatusError to refuse it."""

_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
SUBRESOURCES = {"status": "status", "finalize": "spec"}
"""Subresources that write one field of the object, and the field."""


class Resources:
    """Everything that may be done to objects, by type."""

    def __init__(self, storage: Storage, registry: Registry, now: Callable[[], datetime]) -> None:
        self.storage = storage
        self.registry = registry
        self.now = now
        self.admissions: list[Admission] = []

    def _type(self, kind: ResourceType | str) -> ResourceType:
        """Return a type, which may be named by its storage key."""
        return self.registry.by_key(kind) if isinstance(kind, str) else kind

    def get(self, kind: ResourceType | str, namespace: str, name: str) -> Record:
        kind = self._type(kind)
        record = self.storage.get(kind.key, namespace, name)
        if record is None:
            raise kind.error(status.not_found, name)
        return record

    def create(
        self, kind: ResourceType | str, namespace: str, body: object, write: Write | None = None
    ) -> Record:
        """Store a new object; raise 400, 403, 409 or 422."""
        kind, write = self._type(kind), write or Write()
        obj = objects.decode(kind, body, write)
        metadata = obj["metadata"]
        if "resourceVersion" in metadata:
            raise status.bad_request("resourceVersion should not be set on objects to be created")
        objects.place(kind, metadata, namespace)
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = names.generated(metadata["generateName"])
        if kind.has_status and not kind.status_at_creation:
            obj.pop("status", None)
        objects.begin(metadata, self.now(), generation=kind.generation)
        kind.strategy.prepare_create(obj)
        for admit in self.admissions:
            admit(kind, obj)
        write.judge(kind, obj, None)
        _refuse(kind, obj, objects.faults(kind.name_faults, metadata))
        _refuse(kind, obj, _object_faults(kind, obj, None))
        there = self.storage.get(kind.key, metadata.get("namespace", ""), metadata["name"])
        if there is not None:
            raise status.already_exists(kind.plural, kind.group, there.name, dying=there.deleted)
        return self._store(kind, obj, write)

    def update(
        self,
        kind: ResourceType,
        record: Record,
        body: object,
        write: Write | None = None,
        *,
        subresource: str = "",
    ) -> Record:
        """Replace an object, or with `status` its status alone; raise 400, 409 or 422.

        An update that changes nothing writes nothing. One that takes the last finalizer from an
        object being deleted removes it.
        """
        write = write or Write()
        old = record.object
        new = objects.decode(kind, body, write)
        objects.same_object(kind, record, new["metadata"])
        if subresource:
            new = _with_part(record.thaw(), new, SUBRESOURCES[subresource])
        else:
            if kind.has_status:
                new = _with_part(new, old, "status")
            objects.carry(new["metadata"], old["metadata"])
        if not subresource:
            kind.strategy.prepare_update(new, old)
        write.judge(kind, new, old)
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if kind.generation and not subresource and _content(kind, new) != _content(kind, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        _refuse(kind, new, objects.faults(kind.name_faults, new["metadata"]))
        _refuse(kind, new, objects.new_finalizers(new["metadata"], old["metadata"]))
        _refuse(kind, new, _object_faults(kind, new, old))
        return self.settle(kind, record, new, write)

    def settle(
        self, kind: ResourceType | str, record: Record, new: Obj, write: Write | None = None
    ) -> Record:
        """Store a new state that needs no check; remove the object when nothing holds it any more.

        The controllers, which are part of the server, write by this what no client may.
        """
        if new == record.object:
            return record
        kind = self._type(kind)
        write = write or Write()
        metadata = new["metadata"]
        over = "deletionTimestamp" in metadata and not metadata.get("deletionGracePeriodSeconds")
        if over and not metadata.get("finalizers") and not kind.strategy.holds(new):
            return record if write.dry_run else self.storage.remove(kind.key, record)
        return self._store(kind, new, write)

    def delete(
        self, kind: ResourceType | str, record: Record, deletion: Deletion | None = None
    ) -> tuple[Record, bool]:
        """Delete an object; returns its last state and whether it is gone; raise 403 or 409.

        It lingers while a grace period runs, or finalizers or its strategy hold it.
        """
        kind, deletion = self._type(kind), deletion or Deletion()
        objects.demanded(kind, record, deletion.uid, deletion.revision)
        if why := kind.strategy.keeps(record.object):
            raise kind.error(status.forbidden, record.name, why)
        new = record.thaw()
        metadata = new["metadata"]
        grace = kind.strategy.grace_seconds(record.object, deletion.grace_seconds)
        finalizer = _FINALIZERS.get(deletion.propagation)
        if finalizer and finalizer not in metadata.get("finalizers", []):
            metadata.setdefault("finalizers", []).append(finalizer)
        if not grace and not metadata.get("finalizers") and not kind.strategy.holds(new):
            if deletion.dry_run:
                return record, True
            return self.storage.remove(kind.key, record), True
        self._mark(kind, new, grace)
        if new == record.object:
            return record, False
        return self._store(kind, new, Write(dry_run=deletion.dry_run)), False

    def _mark(self, kind: ResourceType, new: Obj, grace: int) -> None:
        metadata = new["metadata"]
        first = "deletionTimestamp" not in metadata
        if not first and grace >= metadata.get("deletionGracePeriodSeconds", 0):
            return
        metadata["deletionTimestamp"] = objects.stamp(self.now() + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
        if first:
            if "generation" in metadata:
                metadata["generation"] += 1
            kind.strategy.prepare_deletion(new)

    def _store(self, kind: ResourceType, obj: Obj, write: Write) -> Record:
        if write.dry_run:
            return Record(obj, encode(obj), 0)
        return self.storage.put(kind.key, obj)


def _with_part(obj: Obj, other: Obj, part: str) -> Obj:
    """Return `obj` with one field as it is in `other`."""
    rest = {key: value for key, value in obj.items() if key != part}
    return {**rest, part: other[part]} if other.get(part) is not None else rest


def _object_faults(kind: ResourceType, new: Obj, old: Obj | None) -> Sequence[Cause]:
    found = schema.validate(kind.schema, new) if kind.schema is not None else []
    return [*found, *kind.strategy.validate(new, old)]


def _refuse(kind: ResourceType, obj: Obj, faults: Sequence[Cause]) -> None:
    if faults:
        name = obj["metadata"].get("name", "")
        raise status.invalid_object(kind.kind, kind.group, name, faults)


def _content(kind: ResourceType, obj: Obj) -> Obj:
    """Return what metadata.generation counts the changes of."""
    apart = ("metadata", "status") if kind.has_status else ("metadata",)
    return {key: value for key, value in obj.items() if key not in apart}

"""Serves the types that CustomResourceDefinitions describe, and says so in their status."""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj, objects
from podidentity_sandbox.cluster.kinds import crds
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.storage import Change, Record

KEY = f"customresourcedefinitions.{crds.GROUP}"
_CONDITIONS = (
    ("NamesAccepted", "NoConflicts", "no conflicts found"),
    ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
)


class Definitions:
    """Keeps the registry in step with the definitions."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._served: dict[str, ResourceType] = {}

    def react(self, change: Change) -> None:
        """Serve, change or withdraw a type; finish a deletion once its last object is gone."""
        if change.key == KEY:
            self._define(change)
        elif change.key in self._served:
            definition = self._resources.storage.get(KEY, "", change.key)
            if definition is not None and definition.deleted:
                self._clean(definition)

    def _define(self, change: Change) -> None:
        name = change.record.name
        if change.event == "DELETED":
            kind = self._served.pop(name, None)
            if kind is not None:
                self._resources.registry.remove(kind)
                self._resources.storage.close(kind.key)
            return
        current = self._resources.storage.get(KEY, "", name)
        if current is None or current.revision != change.record.revision:
            return  # a later change is on its way
        if current.deleted:
            self._clean(current)
        else:
            self._serve(current)

    def _serve(self, record: Record) -> None:
        kind = crds.type_of(record.object)
        if record.name in self._served:
            self._resources.registry.remove(self._served[record.name])
        self._resources.registry.add(kind)
        self._served[record.name] = kind
        new = record.thaw()
        old: Obj = new.get("status", {})
        stored, now = old.get("storedVersions", []), objects.stamp(self._resources.now())
        new["status"] = {
            "conditions": old.get("conditions")
            or [
                objects.condition(name, "True", reason, message, now)
                for name, reason, message in _CONDITIONS
            ],
            "acceptedNames": new["spec"]["names"],
            "storedVersions": stored if kind.version in stored else [*stored, kind.version],
        }
        self._resources.settle(KEY, record, new)

    def _clean(self, record: Record) -> None:
        """Delete all objects of a type that goes; when none is left, let it go."""
        kind = self._served.get(record.name)
        for one in self._resources.storage.all(record.name) if kind is not None else ():
            if kind is not None and not one.deleted:
                self._resources.delete(kind, one)
        if self._resources.storage.all(record.name):
            return
        new = record.thaw()
        finalizers = new["metadata"].get("finalizers", [])
        new["metadata"]["finalizers"] = [f for f in finalizers if f != crds.CLEANUP]
        self._resources.settle(KEY, record, new)

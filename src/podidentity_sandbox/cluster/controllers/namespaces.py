"""Gives each namespace what belongs in it, and empties one that is deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from podidentity_sandbox.cluster import Obj, objects
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.storage import Change, Record

_SETTLED = (
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
)
"""Conditions of failures that cannot happen here."""


@dataclass(frozen=True, slots=True)
class _NamespaceCondition:
    """A condition, but for its time."""

    type: str
    status: str
    reason: str
    message: str

    def entry(self, known: Mapping[str, Obj], now: str) -> Obj:
        """Return the condition; its time is that of the last change of its status."""
        before = known.get(self.type, {"status": ""})
        since = before["lastTransitionTime"] if before["status"] == self.status else now
        return {
            "type": self.type,
            "status": self.status,
            "lastTransitionTime": since,
            "reason": self.reason,
            "message": self.message,
        }


def conditions(status: Obj, left: Mapping[str, Sequence[Record]], now: str) -> list[Obj]:
    """Return the conditions of a namespace in which objects are left, by resource and group."""
    known = {condition["type"]: condition for condition in status.get("conditions", [])}
    settled = (
        _NamespaceCondition(kind, "False", reason, message) for kind, reason, message in _SETTLED
    )
    return [told.entry(known, now) for told in (*settled, _remaining(left), _held(left))]


def _remaining(left: Mapping[str, Sequence[Record]]) -> _NamespaceCondition:
    counts = ", ".join(f"{key} has {len(left[key])} resource instances" for key in sorted(left))
    message = f"Some resources are remaining: {counts}"
    return _NamespaceCondition("NamespaceContentRemaining", "True", "SomeResourcesRemain", message)


def _held(left: Mapping[str, Sequence[Record]]) -> _NamespaceCondition:
    kind = "NamespaceFinalizersRemaining"
    records = [record for each in left.values() for record in each]
    found = Counter(name for r in records for name in r.metadata.get("finalizers", []))
    if not found:
        message = "All content-preserving finalizers finished"
        return _NamespaceCondition(kind, "False", "ContentHasNoFinalizers", message)
    counts = ", ".join(f"{name} in {n} resource instances" for name, n in sorted(found.items()))
    message = f"Some content in the namespace has finalizers remaining: {counts}"
    return _NamespaceCondition(kind, "True", "SomeFinalizersRemain", message)


# ---- The controller

ROOT_CA = "kube-root-ca.crt"


class Namespaces:
    """Makes the default service account and the root certificate; ends what terminates."""

    def __init__(self, resources: Resources, authority: str) -> None:
        self._resources = resources
        self._content: dict[tuple[str, str], Obj] = {
            ("serviceaccounts", "default"): {"metadata": {"name": "default"}},
            ("configmaps", ROOT_CA): {"metadata": {"name": ROOT_CA}, "data": {"ca.crt": authority}},
        }

    def react(self, change: Change) -> None:
        """Fill a new namespace, replace its deleted objects, empty a terminating one."""
        if change.key == "namespaces":
            self._look(change.record.name)
        elif change.event == "DELETED" and change.record.namespace:
            self._look(change.record.namespace)

    def _look(self, name: str) -> None:
        namespace = self._resources.storage.get("namespaces", "", name)
        if namespace is None:
            return
        if namespace.deleted:
            self._empty(namespace)
        else:
            self._fill(name)

    def _fill(self, namespace: str) -> None:
        for (key, name), body in self._content.items():
            if self._resources.storage.get(key, namespace, name) is None:
                kind = self._resources.registry.by_key(key)
                self._resources.create(kind, namespace, {**body, "metadata": {"name": name}})

    def _empty(self, namespace: Record) -> None:
        """Delete all content; when nothing is left, let the namespace go."""
        left = {}
        for kind in self._resources.registry:
            if kind.namespaced and (lingering := self._clear(kind, namespace.name)):
                left[f"{kind.plural}.{kind.group}"] = lingering
        current = self._resources.storage.get("namespaces", "", namespace.name)
        if current is None:
            return
        new = current.thaw()
        if left:
            now = objects.stamp(self._resources.now())
            new["status"]["conditions"] = conditions(new["status"], left, now)
        else:
            new["spec"].pop("finalizers", None)
        self._resources.settle(self._resources.registry.by_key("namespaces"), current, new)

    def _clear(self, kind: ResourceType, namespace: str) -> list[Record]:
        """Delete the objects of one type; returns those that linger."""
        for record in self._resources.storage.all(kind.key, namespace):
            if not record.deleted:
                self._resources.delete(kind, record)
        return self._resources.storage.all(kind.key, namespace)

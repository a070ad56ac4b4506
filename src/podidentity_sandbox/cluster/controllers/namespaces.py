"""Gives each namespace what belongs in it, and empties one that is deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

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


def conditions(status: Obj, left: Mapping[str, Sequence[Record]], now: str) -> list[Obj]:
    """Return the conditions of a namespace in which objects are left, by resource and group.

    The time of each is that of the last change of its status.
    """
    counts = ", ".join(f"{key} has {len(left[key])} resource instances" for key in sorted(left))
    records = [record for each in left.values() for record in each]
    held = Counter(name for r in records for name in r.metadata.get("finalizers", []))
    holders = ", ".join(f"{name} in {n} resource instances" for name, n in sorted(held.items()))
    some = f"Some content in the namespace has finalizers remaining: {holders}"
    told = [
        *((kind, "False", reason, message) for kind, reason, message in _SETTLED),
        (
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            f"Some resources are remaining: {counts}",
        ),
        (
            "NamespaceFinalizersRemaining",
            str(bool(held)),
            "SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
            some if held else "All content-preserving finalizers finished",
        ),
    ]
    known = status.get("conditions", [])
    since = {(each["type"], each["status"]): each["lastTransitionTime"] for each in known}
    return [
        objects.condition(kind, state, reason, message, since.get((kind, state), now))
        for kind, state, reason, message in told
    ]


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
        of_namespace = change.key == "namespaces"
        if not of_namespace and change.event != "DELETED":
            return
        name = change.record.name if of_namespace else change.record.namespace
        namespace = self._resources.storage.get("namespaces", "", name)
        if namespace is not None and namespace.deleted:
            self._empty(namespace)
        elif namespace is not None:
            self._fill(name)

    def _fill(self, namespace: str) -> None:
        for (key, name), body in self._content.items():
            if self._resources.storage.get(key, namespace, name) is None:
                self._resources.create(key, namespace, {**body, "metadata": {"name": name}})

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
        self._resources.settle("namespaces", current, new)

    def _clear(self, kind: ResourceType, namespace: str) -> list[Record]:
        """Delete the objects of one type; returns those that linger."""
        for record in self._resources.storage.all(kind.key, namespace):
            if not record.deleted:
                self._resources.delete(kind, record)
        return self._resources.storage.all(kind.key, namespace)

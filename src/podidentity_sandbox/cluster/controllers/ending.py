"""What the status of a namespace says while it ends: why it is still there.

The conditions and their words are those of
https://github.com/kubernetes/kubernetes/tree/master/pkg/controller/namespace/deletion
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.storage import Record

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
"""What never fails here."""


@dataclass(frozen=True, slots=True)
class _Told:
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
    settled = (_Told(kind, "False", reason, message) for kind, reason, message in _SETTLED)
    return [told.entry(known, now) for told in (*settled, _remaining(left), _held(left))]


def _remaining(left: Mapping[str, Sequence[Record]]) -> _Told:
    counts = ", ".join(f"{key} has {len(left[key])} resource instances" for key in sorted(left))
    message = f"Some resources are remaining: {counts}"
    return _Told("NamespaceContentRemaining", "True", "SomeResourcesRemain", message)


def _held(left: Mapping[str, Sequence[Record]]) -> _Told:
    kind = "NamespaceFinalizersRemaining"
    records = [record for each in left.values() for record in each]
    found = Counter(name for r in records for name in r.metadata.get("finalizers", []))
    if not found:
        message = "All content-preserving finalizers finished"
        return _Told(kind, "False", "ContentHasNoFinalizers", message)
    counts = ", ".join(f"{name} in {n} resource instances" for name, n in sorted(found.items()))
    message = f"Some content in the namespace has finalizers remaining: {counts}"
    return _Told(kind, "True", "SomeFinalizersRemain", message)

"""Roles and bindings: the rules of the objects; `authorization` reads what they grant."""

from __future__ import annotations

import json
from collections.abc import Sequence

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

GROUP = "rbac.authorization.k8s.io"


class RoleStrategy(Strategy):
    """A rule names verbs."""

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check each rule."""
        del old
        return [
            status.required(f"rules[{n}].verbs", "verbs must contain at least one value")
            for n, rule in enumerate(new.get("rules", []))
            if not rule.get("verbs")
        ]


class BindingStrategy(Strategy):
    """A binding's role never changes, only its subjects."""

    def default(self, new: Obj) -> None:
        """Fill in the API groups."""
        if "roleRef" in new:
            new["roleRef"].setdefault("apiGroup", GROUP)
        for subject in new.get("subjects", []):
            if subject.get("kind") != "ServiceAccount":
                subject.setdefault("apiGroup", GROUP)
            elif not subject.get("apiGroup"):
                subject.pop("apiGroup", None)  # the core group goes without saying

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check roleRef and subjects."""
        reference = new.get("roleRef") or {}
        faults = []
        if reference.get("kind") not in ("Role", "ClusterRole"):
            kinds = ("Role", "ClusterRole")
            faults.append(status.unsupported("roleRef.kind", reference.get("kind", ""), kinds))
        if not reference.get("name"):
            faults.append(status.required("roleRef.name"))
        for index, subject in enumerate(new.get("subjects", [])):
            faults += _subject_faults(subject, f"subjects[{index}]")
        if old is not None and reference != old["roleRef"]:
            message = f"Invalid value: {_as_struct(reference)}: cannot change roleRef"
            faults.append(Cause("roleRef", "FieldValueInvalid", message))
        return faults


def _subject_faults(subject: Obj, where: str) -> list[Cause]:
    kinds = ("ServiceAccount", "User", "Group")
    faults = []
    if not subject.get("name"):
        faults.append(status.required(f"{where}.name"))
    if subject.get("kind") not in kinds:
        faults.append(status.unsupported(f"{where}.kind", subject.get("kind", ""), kinds))
    if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
        faults.append(status.required(f"{where}.namespace"))
    return faults


def _as_struct(reference: Obj) -> str:
    """Return a roleRef as the real server shows it: Go's syntax of its struct."""
    group, kind, name = (json.dumps(reference.get(key, "")) for key in ("apiGroup", "kind", "name"))
    return f"rbac.RoleRef{{APIGroup:{group}, Kind:{kind}, Name:{name}}}"

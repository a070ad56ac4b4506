"""Roles and bindings: the rules of the objects; `authorization` reads what they grant."""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

GROUP = "rbac.authorization.k8s.io"
_ROLES = ("Role", "ClusterRole")
_SUBJECTS = ("ServiceAccount", "User", "Group")


class RoleStrategy(Strategy):
    """A rule names verbs."""

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        del old
        for n, rule in enumerate(new.get("rules", [])):
            if not rule.get("verbs"):
                detail = "verbs must contain at least one value"
                yield status.required(f"rules[{n}].verbs", detail)


class BindingStrategy(Strategy):
    """A binding's role never changes, only its subjects."""

    def default(self, new: Obj) -> None:
        if "roleRef" in new:
            new["roleRef"].setdefault("apiGroup", GROUP)
        for subject in new.get("subjects", []):
            if subject.get("kind") != "ServiceAccount":
                subject.setdefault("apiGroup", GROUP)
            elif not subject.get("apiGroup"):
                subject.pop("apiGroup", None)  # the core group goes without saying

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        reference = new.get("roleRef") or {}
        if reference.get("kind") not in _ROLES:
            yield status.unsupported("roleRef.kind", reference.get("kind", ""), _ROLES)
        if not reference.get("name"):
            yield status.required("roleRef.name")
        for index, subject in enumerate(new.get("subjects", [])):
            yield from _subject_faults(subject, f"subjects[{index}]")
        if old is not None and reference != old["roleRef"]:
            yield status.invalid("roleRef", reference, "cannot change roleRef")


def _subject_faults(subject: Obj, where: str) -> Iterator[Cause]:
    if not subject.get("name"):
        yield status.required(f"{where}.name")
    if subject.get("kind") not in _SUBJECTS:
        yield status.unsupported(f"{where}.kind", subject.get("kind", ""), _SUBJECTS)
    if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
        yield status.required(f"{where}.namespace")

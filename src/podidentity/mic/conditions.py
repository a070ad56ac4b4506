"""What people read of MIC on their objects: a condition on each identity, binding and exception.

A condition says whether the object can be used, and if not, why and what to do. It is written when
it differs from the one that the object has, so a cluster in which nothing changes costs no write.

https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from podidentity.core.assignments import is_attachable
from podidentity.core.budgets import over_budget
from podidentity.core.decision import Rules, lacking, unusable_credential, without_effect
from podidentity.core.hosts import Host
from podidentity.core.permissions import IdentityPermission
from podidentity.core.refusals import Refusal
from podidentity.core.resources import (
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    ObjectRef,
)
from podidentity.mic.calls import About, Condition, Failure, Fault, Result, WriteCondition

AGAIN = 30.0
"""Seconds until a condition that could not be written is written again."""
SOON = 1.0
"""The same after a conflict."""

_BY_AZURE = {"Denied", "Forbidden", "RefusedByAzure"}
_PERMITTED = IdentityPermission()
_USABLE = Condition(
    holds=True,
    reason="Usable",
    message="It is there for the pods that it is bound to, where RBAC lets them use it.",
)
_BOUND = Condition(holds=True, reason="Usable", message="The AzureIdentity that it names is ready.")
_EFFECTIVE = Condition(
    holds=True, reason="Effective", message="The node's own IMDS answers the pods that it names."
)


class ConditionOf(NamedTuple):
    """An object that has a condition."""

    about: About
    ref: ObjectRef


Object = AzureIdentity | AzureIdentityBinding | AzurePodIdentityException | Malformed


def of_identity(
    identity: AzureIdentity | Malformed,
    rules: Rules,
    refused: Condition | None,
    permission: IdentityPermission = _PERMITTED,
) -> Condition:
    """Return the condition of an identity; `refused` is what Azure says of it, if it refuses."""
    if isinstance(identity, Malformed):
        return _malformed(identity)
    refusal = unusable_credential(identity, rules)
    if refusal is not None:
        return _refused(refusal)
    if not is_attachable(identity):
        return Condition(
            holds=False,
            reason="NoResourceID",
            message="spec.resourceID is missing: without the ARM id of the managed identity it "
            "cannot be attached to a node's machine.",
        )
    if permission.lacking is not None:
        return _refused(lacking(permission.lacking))
    return refused or _USABLE


def of_binding(
    binding: AzureIdentityBinding | Malformed,
    condition: Condition | None,
    left_out: Malformed | None = None,
) -> Condition:
    """Return the condition of a binding, from that of the identity that it names, if any.

    `left_out` says why that identity is not read, if it is there.
    """
    if isinstance(binding, Malformed):
        return _malformed(binding)
    if condition is None and left_out is not None:
        message = f"AzureIdentity {binding.identity!r} is not read, if it exists: {left_out.why}."
        return Condition(holds=False, reason="IdentityNotReady", message=message)
    if condition is None:
        return Condition(
            holds=False,
            reason="NoIdentity",
            message=f"AzureIdentity {binding.identity!r} does not exist in namespace "
            f"{binding.ref.namespace}.",
        )
    if condition.holds:
        return _BOUND
    message = f"AzureIdentity {binding.identity} is not ready: {condition.message}"
    return Condition(holds=False, reason="IdentityNotReady", message=message)


def of_exception(exception: AzurePodIdentityException | Malformed, rules: Rules) -> Condition:
    if isinstance(exception, Malformed):
        return _malformed(exception)
    refusal = without_effect(exception, rules)
    if refusal is not None:
        return _refused(refusal)
    if not exception.pod_labels:
        message = "spec.podLabels is empty, which matches no pod."
        return Condition(holds=False, reason="NoLabels", message=message)
    return _EFFECTIVE


def of_failure(failure: Failure, host: Host) -> Condition:
    if failure.kind is Fault.DENIED:
        message = (
            f"{host.name} may not be changed: {failure.message} An identity of spec.type 3 "
            "(federated) needs no change of it."
        )
        return Condition(holds=False, reason="Denied", message=message)
    reason = "Forbidden" if failure.kind is Fault.FORBIDDEN else "RefusedByAzure"
    message = f"It cannot be attached to {host.name}: {failure.message}"
    return Condition(holds=False, reason=reason, message=message)


def _malformed(found: Malformed) -> Condition:
    return Condition(holds=False, reason="Malformed", message=f"It cannot be used: {found.why}.")


def _refused(refusal: Refusal) -> Condition:
    return Condition(holds=False, reason=refusal.reason.value, message=str(refusal))


class Conditions:
    """The work on all conditions. Times are seconds since 1970."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._objects: dict[ConditionOf, Object] = {}
        self._stored: dict[ConditionOf, Condition | None] = {}
        self._bound: dict[ObjectRef, dict[ConditionOf, None]] = {}
        """Bindings by the identity that they name."""
        self._by_id: dict[str, dict[ConditionOf, None]] = {}
        """Identities by ARM id in lower case."""
        self._refusals: dict[str, dict[Host, Condition]] = {}
        self._permissions: dict[ObjectRef, IdentityPermission] = {}
        """By identity, where its pods may not use it, or that is not known."""
        self._proved: set[str] = set()
        """ARM ids that a host was seen to have."""
        self._over_budget: set[str] = set()
        """Namespaces with AzureIdentities that are left out."""
        self._flights: dict[ConditionOf, Condition] = {}
        self._rest_until: dict[ConditionOf, float] = {}
        self.marked: dict[ConditionOf, None] = {}
        """Those to look at."""

    # What happens.

    def see(self, about: About, found: Object, stored: Condition | None) -> None:
        subject = ConditionOf(about, found.ref)
        if subject not in self._objects or self._objects[subject] != found:
            self._unindex(subject)
            self._objects[subject] = found
            if isinstance(found, AzureIdentityBinding):
                target = ObjectRef(found.ref.namespace, found.identity)
                self._bound.setdefault(target, {})[subject] = None
            elif isinstance(found, AzureIdentity) and found.resource_id is not None:
                self._by_id.setdefault(found.resource_id.folded, {})[subject] = None
        self._stored[subject] = stored
        self._mark(subject)

    def lose(self, about: About, ref: ObjectRef) -> None:
        subject = ConditionOf(about, ref)
        self._unindex(subject)
        self._objects.pop(subject, None)
        self._stored.pop(subject, None)
        self._rest_until.pop(subject, None)
        self._mark(subject)

    def refuse(self, folded: str, host: Host, condition: Condition | None) -> bool:
        """Take why `host` cannot have an identity, None if it can; return whether it is news."""
        refusals = self._refusals.setdefault(folded, {})
        before = refusals.pop(host, None)
        if condition is not None:
            refusals[host] = condition
        if not refusals:
            del self._refusals[folded]
        if before == condition:
            return False
        if condition is not None:
            self._proved.discard(folded)
        for subject in self._by_id.get(folded, ()):
            self._mark(subject)
        return True

    def permit(self, identity: ObjectRef, permission: IdentityPermission) -> bool:
        """Take whether the pods of an identity may use it; return whether that is news."""
        before = self._permissions.pop(identity, _PERMITTED)
        if permission != _PERMITTED:
            self._permissions[identity] = permission
        if before == permission:
            return False
        self._mark(ConditionOf(About.IDENTITY, identity))
        return True

    def leave_out(self, namespace: str, *, holds: bool) -> None:
        """Take that a namespace has AzureIdentities over its budget, or none any more."""
        (self._over_budget.add if holds else self._over_budget.discard)(namespace)
        bound = (each for each in self._bound if each.namespace == namespace)
        for identity in bound:
            self.marked.update(self._bound[identity])

    def prove(self, folded: str) -> None:
        """Take that a host has the identity: what was refused once is not any more."""
        if folded not in self._proved:
            self._proved.add(folded)
            for subject in self._by_id.get(folded, ()):
                self._mark(subject)

    def mark_all(self) -> None:
        """Have all of them looked at: this MIC leads now. Calls under way do not count any more."""
        self._flights.clear()
        self.marked.update(dict.fromkeys(self._objects))

    # The next call.

    def next(self, subject: ConditionOf, now: float) -> WriteCondition | float | None:
        if subject not in self._objects or subject in self._flights:
            return None
        wanted = self._wanted(subject)
        if self._stored[subject] == wanted or self._is_doubtful(subject, wanted):
            return None
        until = self._rest_until.get(subject, now)
        if now < until:
            return until
        self._flights[subject] = wanted
        return WriteCondition(subject.about, subject.ref, wanted)

    def take(self, subject: ConditionOf, result: Result, now: float) -> None:
        written = self._flights.pop(subject, None)
        if isinstance(result, Failure):
            # After a conflict the watch tells the new object first.
            pause = SOON if result.kind is Fault.CONFLICT else AGAIN
            self._rest_until[subject] = now + max(pause, result.retry_after)
        elif subject in self._objects:
            self._rest_until.pop(subject, None)
            self._stored[subject] = written
        self._mark(subject)

    def _wanted(self, subject: ConditionOf) -> Condition:
        found = self._objects[subject]
        match subject.about:
            case About.IDENTITY:
                assert isinstance(found, (AzureIdentity, Malformed))  # noqa: S101 - as it was seen
                permission = self._permissions.get(subject.ref, _PERMITTED)
                return of_identity(found, self._rules, self._refusal(found), permission)
            case About.BINDING:
                assert isinstance(found, (AzureIdentityBinding, Malformed))  # noqa: S101 - as above
                return self._of_binding(found)
            case About.EXCEPTION:
                assert isinstance(found, (AzurePodIdentityException, Malformed))  # noqa: S101 - too
                return of_exception(found, self._rules)

    def _is_doubtful(self, subject: ConditionOf, wanted: Condition) -> bool:
        """Whether what holds may not: RBAC has not answered yet, or an earlier MIC was refused."""
        stored, found = self._stored[subject], self._objects[subject]
        if not wanted.holds:
            return False
        if isinstance(found, AzureIdentityBinding):
            named = ConditionOf(About.IDENTITY, ObjectRef(found.ref.namespace, found.identity))
            return self._is_doubtful(named, self._wanted(named))
        if not isinstance(found, AzureIdentity):
            return False
        if not self._permissions.get(found.ref, _PERMITTED).decided:
            return True
        was_refused = stored is not None and stored.reason in _BY_AZURE
        folded = found.resource_id.folded if found.resource_id else None
        return was_refused and folded is not None and folded not in self._proved

    def _of_binding(self, binding: AzureIdentityBinding | Malformed) -> Condition:
        if isinstance(binding, Malformed):
            return of_binding(binding, None)
        named = ObjectRef(binding.ref.namespace, binding.identity)
        subject = ConditionOf(About.IDENTITY, named)
        if subject in self._objects:
            return of_binding(binding, self._wanted(subject))
        is_over = named.namespace in self._over_budget
        return of_binding(binding, None, over_budget(subject.about, named) if is_over else None)

    def _refusal(self, identity: AzureIdentity | Malformed) -> Condition | None:
        """Return the refusal of the first host by name, so that it is the same each time."""
        if isinstance(identity, Malformed) or identity.resource_id is None:
            return None
        refusals: Mapping[Host, Condition] = self._refusals.get(identity.resource_id.folded, {})
        first = min(refusals, key=lambda host: host.folded, default=None)
        return None if first is None else refusals[first]

    def _mark(self, subject: ConditionOf) -> None:
        self.marked[subject] = None
        if subject.about is About.IDENTITY:
            self.marked.update(self._bound.get(subject.ref, {}))

    def _unindex(self, subject: ConditionOf) -> None:
        before = self._objects.get(subject)
        if isinstance(before, AzureIdentityBinding):
            target = ObjectRef(before.ref.namespace, before.identity)
            self._bound[target].pop(subject, None)
            if not self._bound[target]:
                del self._bound[target]
        elif isinstance(before, AzureIdentity) and before.resource_id is not None:
            folded = before.resource_id.folded
            self._by_id[folded].pop(subject, None)
            if not self._by_id[folded]:
                del self._by_id[folded]

"""What people read of MIC on their objects: a condition on each identity, binding and exception.

A condition says whether the object can be used, and if not, why and what to do. It is written when
it differs from the one that the object has, so a cluster in which nothing changes costs no write.

https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from podidentity.core.assignments import is_attachable
from podidentity.core.budgets import over_budget
from podidentity.core.decision import Rules, lacking, unusable_credential, without_effect
from podidentity.core.hosts import Host
from podidentity.core.indexes import Index
from podidentity.core.permissions import IdentityPermission
from podidentity.core.refusals import Refusal, shortened
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


def _keys(found: Object) -> Iterable[Hashable]:
    """Return of a binding the identity that it names, of an identity its ARM id in lower case."""
    if isinstance(found, AzureIdentityBinding):
        return (ObjectRef(found.ref.namespace, found.identity),)
    if isinstance(found, AzureIdentity) and found.resource_id is not None:
        return (found.resource_id.folded,)
    return ()


class Conditions:
    """The work on all conditions. Times are seconds since 1970."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._objects: dict[About, Index[Object]] = {about: Index(_keys) for about in About}
        self._stored: dict[ConditionOf, Condition | None] = {}
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
        self._objects[about].put(found)
        subject = ConditionOf(about, found.ref)
        self._stored[subject] = stored
        self._mark(subject)

    def lose(self, about: About, ref: ObjectRef) -> None:
        subject = ConditionOf(about, ref)
        self._objects[about].remove(ref)
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
        self._mark_attached(folded)
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
        if holds == (namespace in self._over_budget):
            return  # told for each object that is left out: to look at all bindings costs ms
        self._over_budget ^= {namespace}
        for each in self._objects[About.BINDING].values():
            if each.ref.namespace == namespace:
                self.marked[ConditionOf(About.BINDING, each.ref)] = None

    def prove(self, folded: str) -> None:
        """Take that a host has the identity: what was refused once is not any more."""
        if folded not in self._proved:
            self._proved.add(folded)
            self._mark_attached(folded)

    def mark_all(self) -> None:
        """Have all of them looked at: this MIC leads now. Calls under way do not count any more."""
        self._flights.clear()
        self.marked.update(dict.fromkeys(self._stored))

    # The next call.

    def next(self, subject: ConditionOf, now: float) -> WriteCondition | float | None:
        if subject not in self._stored or subject in self._flights:
            return None
        whole = self._wanted(*subject)
        wanted = whole and replace(whole, message=shortened(whole.message))
        if wanted is None or self._stored[subject] == wanted:
            return None
        if wanted.holds and self._is_doubtful(*subject):
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
        elif subject in self._stored:
            self._rest_until.pop(subject, None)
            self._stored[subject] = written
        self._mark(subject)

    def _wanted(self, about: About, ref: ObjectRef) -> Condition | None:
        """Return the condition that an object should have; None: there is no such object."""
        found: Any = self._objects[about].get(ref)
        if found is None:
            return None
        if about is About.IDENTITY:
            permission = self._permissions.get(ref, _PERMITTED)
            refusals: Mapping[Host, Condition] = {}
            if isinstance(found, AzureIdentity) and found.resource_id is not None:
                refusals = self._refusals.get(found.resource_id.folded, {})
            # That of the first host by name, so that it is the same each time.
            first = min(refusals, key=lambda host: host.folded, default=None)
            refusal = refusals[first] if first else None
            return of_identity(found, self._rules, refusal, permission)
        if about is About.EXCEPTION:
            return of_exception(found, self._rules)
        if isinstance(found, Malformed):
            return of_binding(found, None)
        named = ObjectRef(ref.namespace, found.identity)
        is_over = ref.namespace in self._over_budget
        left_out = over_budget(About.IDENTITY, named) if is_over else None
        return of_binding(found, self._wanted(About.IDENTITY, named), left_out)

    def _is_doubtful(self, about: About, ref: ObjectRef) -> bool:
        """Whether what holds may not: RBAC has not answered yet, or an earlier MIC was refused."""
        found = self._objects[about].get(ref)
        if isinstance(found, AzureIdentityBinding):
            return self._is_doubtful(About.IDENTITY, ObjectRef(ref.namespace, found.identity))
        if not isinstance(found, AzureIdentity):
            return False
        if not self._permissions.get(ref, _PERMITTED).decided:
            return True
        stored = self._stored[ConditionOf(about, ref)]
        was_refused = stored is not None and stored.reason in _BY_AZURE
        folded = found.resource_id.folded if found.resource_id else None
        return was_refused and folded is not None and folded not in self._proved

    def _mark(self, subject: ConditionOf) -> None:
        self.marked[subject] = None
        if subject.about is About.IDENTITY:
            for each in self._objects[About.BINDING].by_key(subject.ref):
                self.marked[ConditionOf(About.BINDING, each.ref)] = None

    def _mark_attached(self, folded: str) -> None:
        for each in self._objects[About.IDENTITY].by_key(folded):
            self._mark(ConditionOf(About.IDENTITY, each.ref))

"""What the node agent decides: whose request it is, which identity it gets, how long it waits.

Read `TokenService.answer`: prove the caller, match its pod, select an identity, fetch its token.
Everything here goes through ports; nothing knows HTTP, the kernel or the API server.

Two situations wait instead of refusing, because a client such as az never asks again: the watch
may not have told us of the pod yet, and a binding or identity may have been made a moment ago.
"""

from __future__ import annotations

from dataclasses import dataclass

from podidentity.core.entitlements import Entitlement
from podidentity.core.errors import NotYetKnown, PodIdentityError, Refused, UnknownCaller
from podidentity.core.matching import match
from podidentity.core.permission import Authorization, not_permitted, uses_of
from podidentity.core.ports import (
    Attestor,
    Clock,
    Cluster,
    Permissions,
    TokenSource,
)
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import Assignment, Pod
from podidentity.core.selection import Ambiguity, granted, select
from podidentity.core.tokens import TokenRequest
from podidentity.core.usability import STRICT, Rules
from podidentity.nmi.callers import Callers
from podidentity.nmi.outcomes import Caller, Outcome
from podidentity.nmi.waiting import change_within

RETRY_PAUSE = 1.0
"""Seconds between questions while an identity that was attached a moment ago spreads."""

_MAY_COME = frozenset(
    {
        Reason.NO_BINDING,
        Reason.OTHER_NAMESPACE,
        Reason.NO_IDENTITY,
        Reason.MALFORMED_BINDING,
        Reason.MALFORMED_IDENTITY,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds that a request waits for a controller in standard mode; the old flags' defaults."""

    unseen: float = 80.0
    """While no record says that it has begun."""
    begun: float = 100.0
    """Once one does: a scale set takes 40 to 60 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an operator chose."""

    hold: float = 8.0
    """Seconds after a change within which a request waits for what may still come."""
    ambiguity: Ambiguity = Ambiguity.WEIGHT
    authorization: Authorization = Authorization.RBAC
    rules: Rules = STRICT
    patience: Patience = Patience()


class TokenService:
    """Answers token requests of the pods of one node."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        tokens: TokenSource,
        permissions: Permissions | None,
        attestor: Attestor | None,
        clock: Clock,
        policy: Policy,
    ) -> None:
        """`permissions` None: nobody is asked, whoever is entitled is permitted."""
        self._cluster = cluster
        self._tokens = tokens
        self._permissions = permissions
        self._callers = Callers(cluster, attestor, clock)
        self._clock = clock
        self._policy = policy

    async def answer(self, caller: Caller, request: TokenRequest) -> Outcome:
        """Return the token that answers `request`, or why there is none; raises nothing."""
        outcome = Outcome()
        try:
            outcome.pod = pod = await self._callers.pod(caller, outcome)
            await self.serve(outcome, pod, request)
        except PodIdentityError as error:
            outcome.error = error
        return outcome

    # What does it get?

    async def serve(self, outcome: Outcome, pod: Pod, request: TokenRequest) -> None:
        """Put the token that answers a request of `pod` into `outcome`; raise PodIdentityError."""
        while True:
            entitlement = await self._entitlement(outcome, pod, request)
            outcome.identity, outcome.basis = entitlement.identity, entitlement.basis
            grant = granted(entitlement, outcome.pod or pod, request)
            try:
                outcome.token, outcome.origin = await self._tokens.fetch(
                    grant, request.resource, bypass_cache=request.bypass_cache
                )
            except NotYetKnown:
                left = self._hold_left(pod)
                if left <= 0:
                    raise
                await change_within(self._cluster, self._clock, min(RETRY_PAUSE, left))
            else:
                return

    async def _entitlement(self, outcome: Outcome, pod: Pod, request: TokenRequest) -> Entitlement:
        """Return what the pod may use, waiting for it where it may still come; raise Refused."""
        begun = self._clock.monotonic()
        while True:
            pod = outcome.pod = self._as_it_is_now(pod)
            found = await self._permitted(outcome, pod, request)
            if isinstance(found, Entitlement):
                return found
            left = self._wait_left(pod, found, begun)
            if left <= 0:
                raise Refused(found)
            await change_within(self._cluster, self._clock, left)

    async def _permitted(
        self, outcome: Outcome, pod: Pod, request: TokenRequest
    ) -> Entitlement | Refusal:
        matched = match(pod, self._cluster, self._policy.rules)
        candidates = select(matched, request, self._policy.ambiguity)
        if isinstance(candidates, Refusal):
            return candidates
        refusals = []
        for entitlement in candidates:
            outcome.identity = entitlement.identity
            refusal = await self._objection(outcome, pod, entitlement)
            if refusal is None:
                return entitlement.awaited or entitlement
            refusals.append(refusal)
        return refusals[0]

    async def _objection(
        self, outcome: Outcome, pod: Pod, entitlement: Entitlement
    ) -> Refusal | None:
        """Return why the cluster's RBAC forbids the pod this identity, if it does."""
        permissions = self._permissions
        if permissions is None:
            return None
        for use in uses_of(pod, entitlement):
            allowed = permissions.known(use)
            if allowed is None:
                allowed = await permissions.ask(use)
            if allowed:
                continue
            refusal = not_permitted(pod, entitlement.identity, use)
            if self._policy.authorization is not Authorization.OBSERVE:
                return refusal
            outcome.observed = refusal
        return None

    def _as_it_is_now(self, pod: Pod) -> Pod:
        """Return the pod as last watched: while a request waited, its label may have changed."""
        now = self._cluster.pod(pod.ref)
        if now is None or now.uid != pod.uid or now.ended:
            raise UnknownCaller("the pod has ended")
        return now

    def _wait_left(self, pod: Pod, refusal: Refusal, begun: float) -> float:
        """Return how long what `refusal` misses may still come, in seconds."""
        if refusal.reason is Reason.NOT_ASSIGNED:
            return self._assignment_left(pod, begun)
        return self._hold_left(pod) if refusal.reason in _MAY_COME else 0.0

    def _assignment_left(self, pod: Pod, begun: float) -> float:
        """The archived project's patience: less where the controller has not even begun."""
        patience = self._policy.patience
        started = any(
            record.state is Assignment.CREATED for record in self._cluster.assigned(pod.ref)
        )
        limit = patience.begun if started else patience.unseen
        return begun + limit - self._clock.monotonic()

    def _hold_left(self, pod: Pod) -> float:
        return self._cluster.changed_at(pod) + self._policy.hold - self._clock.monotonic()

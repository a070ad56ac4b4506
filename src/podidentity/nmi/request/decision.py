"""What the node agent decides: whose request it is, which identity it gets, how long it waits.

Read `TokenService.answer`: prove the caller, decide by the rules and the cluster's RBAC, fetch the
token. Everything here goes through ports; nothing knows HTTP, the kernel or the API server.

Who waits decides again after each wait, from the beginning: nothing is carried over but the pod's
uid. So a pod that died, a binding that went and a permission that was withdrawn meanwhile count.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from podidentity.core.deciding import Decision, decide
from podidentity.core.entitlements import Entitlement, Match
from podidentity.core.errors import (
    NotReady,
    NotYetKnown,
    PodIdentityError,
    Refused,
    UnknownCaller,
)
from podidentity.core.ids import ObjectRef
from podidentity.core.matching import match
from podidentity.core.permission import Authorization, Use
from podidentity.core.ports import Attestor, Clock, Cluster, Fetched, Permissions, TokenSource
from podidentity.core.resources import Pod
from podidentity.core.selection import Ambiguity, granted
from podidentity.core.tokens import Grant, TokenRequest
from podidentity.core.usability import STRICT, Rules
from podidentity.nmi.request.caller import Callers
from podidentity.nmi.request.outcome import Outcome
from podidentity.nmi.request.patience import Patience, Waits
from podidentity.nmi.request.waiting import change_within, within
from podidentity.nmi.server.messages import Caller

RETRY_PAUSE = 1.0
"""Seconds between questions while an identity that was attached a moment ago spreads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an operator chose."""

    ambiguity: Ambiguity = Ambiguity.WEIGHT
    authorization: Authorization = Authorization.RBAC
    rules: Rules = STRICT
    patience: Patience = field(default_factory=Patience)
    tenant_array: bool = False
    """Fetch the tokens of all auxiliary tenants as well, as the archived project did."""


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
        self._waits = Waits(cluster, clock, policy.patience)
        self._clock = clock
        self._policy = policy
        self._matched_at = -1
        self._matched: dict[ObjectRef, Match] = {}
        self._authorization = policy.authorization if permissions else Authorization.OFF

    def revision(self) -> tuple[int, int]:
        """Return what grows with each change of what decides: cluster and permissions."""
        return self._cluster.revision, self._permissions.revision if self._permissions else 0

    def decided(self, pod: Pod) -> tuple[Match, Decision]:
        """Return what a request of `pod` that names no identity would get now; nobody waits."""
        return self._decide(pod, TokenRequest(resource=""), {})

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
            revision = self.revision()
            outcome.grant = grant = granted(entitlement, outcome.pod or pod, request)
            try:
                fetched = await self._fetch(grant, request)
                others = [(await self._fetch(each, request)).token for each in self._others(grant)]
            except NotYetKnown as error:
                left = self._waits.hold_left(pod)
                if left <= 0:
                    raise
                await self._pause(error, left)
                continue
            if self.revision() == revision or self._stands(pod, request, entitlement):
                outcome.token, outcome.origin = fetched.token, fetched.origin
                outcome.others = tuple(others)
                return

    async def _pause(self, error: NotYetKnown, left: float) -> None:
        """Return when asking again makes sense, within so many seconds."""
        if error.comes is None:
            await self._clock.sleep(min(RETRY_PAUSE, left))
        else:
            await within(error.comes(), self._clock, left)

    async def _fetch(self, grant: Grant, request: TokenRequest) -> Fetched:
        return await self._tokens.fetch(grant, request.resource, bypass_cache=request.bypass_cache)

    def _others(self, grant: Grant) -> list[Grant]:
        """Return what else belongs into the answer."""
        entra = grant.identity.entra
        if not self._policy.tenant_array or entra is None or grant.tenant is not None:
            return []
        return [replace(grant, tenant=tenant) for tenant in entra.auxiliary_tenants]

    async def _entitlement(self, outcome: Outcome, pod: Pod, request: TokenRequest) -> Entitlement:
        """Return what the pod may use, waiting for it where it may still come; raise Refused."""
        begun = self._clock.monotonic()
        told: dict[Use, bool] = {}
        while True:
            matched, found = self._decide(self._as_it_is_now(pod), request, told)
            outcome.pod, outcome.identity = matched.pod, found.identity
            outcome.observed = found.observed
            if found.entitlement is not None:
                outcome.basis = found.entitlement.basis
                return found.entitlement
            if found.question is not None:
                told[found.question] = await self._ask(found.question)
                continue
            assert found.refusal is not None  # noqa: S101 - a decision is one of the three
            left = self._waits.left(matched, found.refusal, begun)
            if left <= 0:
                raise Refused(found.refusal)
            await change_within(self._cluster, self._clock, left)
            told.clear()

    def _decide(
        self, pod: Pod, request: TokenRequest, told: dict[Use, bool]
    ) -> tuple[Match, Decision]:
        """Return what is decided by what is known now; `told` is what was just asked."""
        known = self._permissions.known if self._permissions else told.get
        matched = self._match(pod)
        return matched, decide(
            matched,
            request,
            lambda use: told[use] if use in told else known(use),
            ambiguity=self._policy.ambiguity,
            authorization=self._authorization,
        )

    def _match(self, pod: Pod) -> Match:
        """Return what the pod may use; found once while nothing changes, however often it asks."""
        revision = self._cluster.revision
        if self._matched_at != revision:
            self._matched_at, self._matched = revision, {}
        found = self._matched.get(pod.ref)
        if found is None or found.pod is not pod:
            found = match(pod, self._cluster, self._policy.rules)
            self._matched[pod.ref] = found
        return found

    async def _ask(self, use: Use) -> bool:
        """Return the cluster's decision; raise NotReady where it must be known and cannot be."""
        assert self._permissions is not None  # noqa: S101 - else there is no question
        try:
            return await self._permissions.ask(use)
        except NotReady:
            if self._authorization is Authorization.OBSERVE:
                return True
            raise

    def _stands(self, pod: Pod, request: TokenRequest, entitlement: Entitlement) -> bool:
        """Whether what was given before a fetch would be given now, after it."""
        _, found = self._decide(self._as_it_is_now(pod), request, {})
        return found.entitlement is not None and found.entitlement.identity == entitlement.identity

    def _as_it_is_now(self, pod: Pod) -> Pod:
        """Return the pod as last watched: while a request waited, its label may have changed."""
        now = self._cluster.pod(pod.ref)
        if now is None or now.uid != pod.uid or now.ended:
            raise UnknownCaller("the pod has ended")
        return now

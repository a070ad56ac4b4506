"""What a pod gets: decided by the rules and the cluster's RBAC, held while the reason may pass.

Everything here goes through ports; nothing knows HTTP, the kernel or the API server. After every
wait the request is decided anew from the cluster as it is then; only the pod's uid is kept. So a
pod that ended, a binding that is gone and a permission that was withdrawn meanwhile count.

How a token request ends is a value, the Outcome: answer, log and metrics are made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from podidentity.core.attestation import Verdict
from podidentity.core.decision import (
    STRICT,
    Allowed,
    Ambiguity,
    Authorization,
    Basis,
    Decision,
    Match,
    Rules,
    Undecided,
    Use,
    decide,
    match,
)
from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    TokenUnavailable,
    UnknownCaller,
)
from podidentity.core.ports import Clock, Cluster, Permissions
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    AccessToken,
    AzureIdentity,
    Fetched,
    ObjectRef,
    Pod,
    TokenRequest,
)
from podidentity.nmi.request.hold import Hold, HoldTimes, wait_until_found

Revision = tuple[int, int]
"""Of cluster and permissions; it grows with each change of what decides."""


# How a request ends.


class TokenQuery(NamedTuple):
    """A token request as it arrived."""

    address: str
    """Of the connection."""
    request: TokenRequest
    asked_for: ObjectRef | None = None
    """The pod that the client names, at the route of the CSI driver's provider; a claim."""


_GRANT_PAUSE = 0.5
"""Seconds until the permission of a request that waited for a binding is asked for again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found out about the client of a connection."""

    verdict: Verdict | None = None
    """None if the kernel was not asked."""
    detail: str = ""
    """For operators: the kernel's words."""
    proxy: ObjectRef | None = None
    """The pod of a trusted proxy that made the connection for the client."""
    delegated: bool = False
    """Whether the token is asked for in a pod's name, from the node."""
    delegate: ObjectRef | None = None
    """The pod that asks in its name, if it is a pod."""


NO_EVIDENCE = Evidence()


@dataclass(frozen=True, slots=True)
class Subject:
    """The pod whose token is asked for; the client may have it, by what was found out."""

    pod: Pod
    evidence: Evidence = NO_EVIDENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A token is given."""

    subject: Subject
    allowed: Allowed
    fetched: Fetched
    others: tuple[AccessToken, ...] = ()
    """Those of the identity's auxiliary tenants, if an old switch asks for them."""

    @property
    def pod(self) -> Pod:
        return self.allowed.pod

    @property
    def identity(self) -> AzureIdentity:
        return self.allowed.identity

    @property
    def basis(self) -> Basis:
        return self.allowed.entitlement.basis

    @property
    def observed(self) -> Refusal | None:
        """What `--authorization=rbac` would have refused, while it only observes."""
        return self.allowed.observed

    @property
    def evidence(self) -> Evidence:
        return self.subject.evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class _WithoutToken:
    error: PodIdentityError
    evidence: Evidence = NO_EVIDENCE
    pod: Pod | None = None
    """The pod whose token was asked for, once that is proved."""
    claimed: tuple[Pod, ...] = ()
    """The pods that have the connection's address, while it is not proved to be theirs."""
    identity: AzureIdentity | None = None
    """The identity that the decision was about, if there was one."""
    basis: Basis | None = None
    """What entitled the pod, if it was entitled."""
    observed: Refusal | None = None


class Rejected(_WithoutToken):
    """The request, its client or the rules are the reason that there is no token."""

    __slots__ = ()


class Failed(_WithoutToken):
    """Entitled, or not known whether: there was no token to give."""

    __slots__ = ()


Outcome = Granted | Rejected | Failed


def no_token(
    error: PodIdentityError,
    subject: Subject | None = None,
    *,
    evidence: Evidence = NO_EVIDENCE,
    claimed: tuple[Pod, ...] = (),
    allowed: Allowed | None = None,
    identity: AzureIdentity | None = None,
    observed: Refusal | None = None,
) -> Rejected | Failed:
    """Return the outcome of a request that ended with `error`, as far as it got."""
    pod = allowed.pod if allowed else subject.pod if subject else None
    kind = Failed if isinstance(error, TokenUnavailable | NotReady) else Rejected
    return kind(
        error=error,
        evidence=subject.evidence if subject else evidence,
        pod=pod,
        claimed=claimed,
        identity=allowed.identity if allowed else identity,
        basis=allowed.entitlement.basis if allowed else None,
        observed=allowed.observed if allowed else observed,
    )


# The decision.


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPolicy:
    """What an operator chose."""

    ambiguity: Ambiguity = Ambiguity.WEIGHT
    authorization: Authorization = Authorization.RBAC
    rules: Rules = STRICT
    hold: HoldTimes = field(default_factory=HoldTimes)
    tenant_array: bool = False
    """Fetch the tokens of all auxiliary tenants as well, as the archived project did."""


class Decider:
    """Decides about the token requests of the pods of one node."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        permissions: Permissions | None,
        clock: Clock,
        policy: DecisionPolicy,
    ) -> None:
        """`permissions` None: every entitled pod is permitted."""
        self.policy = policy
        self.hold = Hold(cluster, clock, policy.hold)
        self._cluster = cluster
        self._permissions = permissions
        self._clock = clock
        self._authorization = policy.authorization if permissions else Authorization.OFF
        self._matches_at = -1
        self._matches: dict[ObjectRef, Match] = {}

    def revision(self) -> Revision:
        return self._cluster.revision, self._permissions.revision if self._permissions else 0

    def current(self, pod: Pod) -> tuple[Match, Decision]:
        """Return the decision on a request of `pod` that names no identity, as of now."""
        return self._decide(
            pod, TokenRequest(resource=""), self.policy.ambiguity, {}, self._cluster.seen_at(pod)
        )

    async def decide(
        self, subject: Subject, request: TokenRequest, ambiguity: Ambiguity, *, begun: float
    ) -> Allowed | Rejected | Failed:
        """Return what the pod gets; hold the request while a refusal may pass.

        `begun` is when the request came, in `Clock.monotonic` seconds.
        """
        cluster, times = self._cluster, self.policy.hold
        # What is not there yet must decide nothing.
        if not cluster.synced and not await wait_until_found(
            lambda: cluster.synced, cluster, self._clock, times.change
        ):
            unread = NotReady("the agent has not read the cluster's bindings yet")
            return no_token(unread, subject)
        answers: dict[Use, bool] = {}
        identity, waits, since = None, 0, -inf
        bound = False
        """Whether what is bound came while the request was held."""
        while True:
            revision = self._cluster.revision
            pod = self._as_watched(subject.pod)
            if pod is None:
                ended = UnknownCaller("the pod has ended")
                return no_token(ended, subject, identity=identity)
            since = max(since, self._cluster.seen_at(pod))
            matched, found = self._decide(pod, request, ambiguity, answers, since)
            if isinstance(found, Allowed):
                return found
            subject, identity = Subject(found.pod, subject.evidence), found.identity
            if isinstance(found, Undecided):
                answer = await self._ask(found.question, since, begun)
                if isinstance(answer, PodIdentityError):
                    return no_token(answer, subject, identity=identity)
                answers[found.question] = answer
                continue
            left = self._left(matched, found.refusal, begun, bound=bound)
            if left <= 0 or not await self.hold.wait(pod, left, revision=revision, waits=waits):
                refused = Refused(found.refusal)
                return no_token(refused, subject, identity=identity, observed=found.observed)
            waits += 1
            answers.clear()
            ungranted = found.refusal.reason is Reason.NOT_PERMITTED
            bound = bound or not ungranted
            # Who waited for a grant asks for it anew; what was permitted others is known.
            since = self._clock.monotonic() if ungranted else since

    def _left(self, matched: Match, refusal: Refusal, begun: float, *, bound: bool) -> float:
        """Return for how many seconds the request may be held; <= 0: no longer."""
        if refusal.reason is Reason.NOT_PERMITTED:
            # What is bound came while it was held, or just before, and its grant comes last.
            may_come = self.hold.after_change if bound else self.hold.until_granted
            return min(may_come(matched.pod, begun), _GRANT_PAUSE)
        return self.hold.left(matched, refusal, begun)

    def still_allows(self, allowed: Allowed, request: TokenRequest, ambiguity: Ambiguity) -> bool:
        """Return whether what was allowed before a wait would be allowed now, after it."""
        pod = self._as_watched(allowed.pod)
        if pod is None:
            return False
        _, found = self._decide(pod, request, ambiguity, {}, self._cluster.seen_at(pod))
        return isinstance(found, Allowed) and found.identity == allowed.identity

    def _decide(
        self,
        pod: Pod,
        request: TokenRequest,
        ambiguity: Ambiguity,
        answers: dict[Use, bool],
        since: float,
    ) -> tuple[Match, Decision]:
        """Return the decision by what is known now; `answers` were just given by the cluster.

        Of permissions those count that were asked for after `since`.
        """
        permissions = self._permissions

        def permitted(use: Use) -> bool | None:
            if use in answers or permissions is None:
                return answers.get(use)
            return permissions.known(use, since)

        matched = self._match(pod)
        found = decide(
            matched, request, permitted, ambiguity=ambiguity, authorization=self._authorization
        )
        return matched, found

    def _match(self, pod: Pod) -> Match:
        """Return what the pod may use; computed once until something changes."""
        revision = self._cluster.revision
        if self._matches_at != revision:
            self._matches_at, self._matches = revision, {}
        found = self._matches.get(pod.ref)
        if found is None or found.pod is not pod:
            found = match(pod, self._cluster, self.policy.rules)
            self._matches[pod.ref] = found
        return found

    async def _ask(self, use: Use, since: float, begun: float) -> bool | NotReady:
        """Return the cluster's decision, or why it must be known and cannot be.

        A request that came at `begun` waits for it as long as for its record.
        """
        if self._permissions is None:
            return True
        observing = self._authorization is Authorization.OBSERVE
        times = self.policy.hold
        longest = times.unseen if self.policy.rules.standard else times.change
        patience = 0.0 if observing else begun + longest - self._clock.monotonic()
        try:
            return await self._permissions.ask(use, since, patience)
        except NotReady as error:
            return True if observing else error

    def _as_watched(self, pod: Pod) -> Pod | None:
        """Return the pod as last watched: during a wait, its label may have changed."""
        now = self._cluster.pod(pod.ref)
        return None if now is None or now.uid != pod.uid or now.ended else now

"""What the node agent decides: whose request it is, which identity it gets, how long it waits.

Read `TokenService.answer`: prove the caller, match its pod, select an identity, fetch its token.
Everything here goes through ports; nothing knows HTTP, the kernel or the API server.

Two situations wait instead of refusing, because a client such as az never asks again: the watch
may not have told us of the pod yet, and a binding or identity may have been made a moment ago.
"""

from __future__ import annotations

from dataclasses import dataclass

from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.matching import Entitlement, match
from podidentity.core.ports import Attestor, Clock, Cluster, Origin, Proof, TokenSource, Verdict
from podidentity.core.refusals import Reason
from podidentity.core.resources import AzureIdentity, Pod
from podidentity.core.selection import Ambiguity, select
from podidentity.core.tokens import AccessToken, TokenRequest
from podidentity.nmi.waiting import awaited, change_within
from podidentity.wire.imds_client import NotYetAttached

STRANGER_WAIT = 2.0
"""Seconds that an address of no known pod waits for the watch."""
RETRY_PAUSE = 1.0
"""Seconds between questions while an identity that was attached a moment ago spreads."""

_BY_ADDRESS = "address"
"""Value of a pod's attestation annotation that lowers the demand for it."""
_MAY_COME = frozenset(
    {
        Reason.NO_BINDING,
        Reason.OTHER_NAMESPACE,
        Reason.NO_IDENTITY,
        Reason.MALFORMED_BINDING,
        Reason.MALFORMED_IDENTITY,
    }
)


@dataclass(slots=True)
class Caller:
    """One connection: what it claims, and what was proved of it."""

    address: str
    port: int
    proven: str = ""
    """Uid of the pod that the kernel named, once it has."""


@dataclass(slots=True)
class Outcome:
    """How a request ended, for the answer and the log line; filled as far as it went."""

    token: AccessToken | None = None
    error: PodIdentityError | None = None
    pod: Pod | None = None
    identity: AzureIdentity | None = None
    origin: Origin | None = None
    detail: str = ""
    """For the operator's eyes: what the kernel said."""
    delegated: bool = False
    """Whether another asked in the pod's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an operator chose."""

    hold: float = 8.0
    """Seconds after a change within which a request waits for what may still come."""
    ambiguity: Ambiguity = Ambiguity.WEIGHT


class TokenService:
    """Answers token requests of the pods of one node."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        tokens: TokenSource,
        attestor: Attestor | None,
        clock: Clock,
        policy: Policy,
    ) -> None:
        """`attestor` None: an address is believed, whoever sends from it."""
        self._cluster = cluster
        self._tokens = tokens
        self._attestor = attestor
        self._clock = clock
        self._policy = policy

    async def answer(self, caller: Caller, request: TokenRequest) -> Outcome:
        """Return the token that answers `request`, or why there is none; raises nothing."""
        outcome = Outcome()
        try:
            outcome.pod = pod = await self._pod(caller, outcome)
            await self.serve(outcome, pod, request)
        except PodIdentityError as error:
            outcome.error = error
        return outcome

    # Whose request is it?

    async def _pod(self, caller: Caller, outcome: Outcome) -> Pod:
        candidates = await self._candidates(caller.address)
        for pod in candidates:
            # A later request of a connection that was proved when it began.
            if pod.uid == caller.proven:
                return pod
        attestor = self._attestor
        if attestor is None or all(pod.attestation == _BY_ADDRESS for pod in candidates):
            return _only(candidates)
        pod = _proved(attestor.prove(caller.address, caller.port, candidates), candidates, outcome)
        caller.proven = pod.uid
        return pod

    async def _candidates(self, address: str) -> list[Pod]:
        found = await awaited(
            lambda: self._cluster.pods_at(address), self._cluster, self._clock, STRANGER_WAIT
        )
        if not found:
            raise self._stranger(address)
        return list(found)

    def _stranger(self, address: str) -> PodIdentityError:
        if not self._cluster.synced:
            return NotReady("the agent has not read the cluster's pods yet")
        return UnknownCaller(f"no pod of this node has the address {address}")

    # What does it get?

    async def serve(self, outcome: Outcome, pod: Pod, request: TokenRequest) -> None:
        """Put the token that answers a request of `pod` into `outcome`; raise PodIdentityError."""
        while True:
            identity = outcome.identity = await self._identity(outcome, pod, request)
            try:
                outcome.token, outcome.origin = await self._tokens.fetch(
                    identity, request.resource, bypass_cache=request.bypass_cache
                )
            except NotYetAttached:
                left = self._hold_left(pod)
                if left <= 0:
                    raise
                await change_within(self._cluster, self._clock, min(RETRY_PAUSE, left))
            else:
                return

    async def _identity(self, outcome: Outcome, pod: Pod, request: TokenRequest) -> AzureIdentity:
        """Return what the pod may use, waiting for it where it may still come; raise Refused."""
        while True:
            pod = outcome.pod = self._as_it_is_now(pod)
            found = select(match(pod, self._cluster), request, self._policy.ambiguity)
            if isinstance(found, Entitlement):
                return found.identity
            left = self._hold_left(pod)
            if found.reason not in _MAY_COME or left <= 0:
                raise Refused(found)
            await change_within(self._cluster, self._clock, left)

    def _as_it_is_now(self, pod: Pod) -> Pod:
        """Return the pod as last watched: while a request waited, its label may have changed."""
        now = self._cluster.pod(pod.ref)
        if now is None or now.uid != pod.uid or now.ended:
            raise UnknownCaller("the pod has ended")
        return now

    def _hold_left(self, pod: Pod) -> float:
        return self._cluster.changed_at(pod) + self._policy.hold - self._clock.monotonic()


def must_be_proven(proof: Proof) -> None:
    """Raise NotReady or UnprovenCaller unless the kernel has said whose a connection is."""
    if proof.verdict is Verdict.UNKNOWN:
        raise NotReady("the connection cannot be proved to be the pod's for a moment")
    if proof.verdict is Verdict.GONE:
        raise UnprovenCaller("the client has closed the connection")
    if proof.verdict is not Verdict.PROVEN:
        raise UnprovenCaller("the connection is not that of the pod whose address it has")


def _proved(proof: Proof, candidates: list[Pod], outcome: Outcome) -> Pod:
    outcome.detail = proof.detail
    must_be_proven(proof)
    if not proof.pod_uid:
        return _only(candidates)
    for pod in candidates:
        if pod.uid == proof.pod_uid:
            return pod
    raise UnprovenCaller("the connection belongs to another pod")


def _only(candidates: list[Pod]) -> Pod:
    if len(candidates) > 1:
        raise UnprovenCaller("several pods have the address, and nothing tells them apart")
    return candidates[0]

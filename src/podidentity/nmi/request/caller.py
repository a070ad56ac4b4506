"""Whose request it is: an address is a claim, and the kernel's facts about the socket the proof.

The watch is behind the node: a pod asks for its first token before its status has an address, and
a new pod may have the address of one that ended a moment ago. So if kernel and watch disagree
because the watch may be late, the request waits for it; if they disagree otherwise it is refused.

A proof holds for a second (`PROOF_SECONDS`); then the next request of a kept connection has it made
anew, and so has an answer that took longer. A pod can end without a word to us, as a virtual
machine does that is killed: then our end of its connection stays, and the next pod with its address
could speak into it, while the watch does not know yet that the first has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from podidentity.core.attestation import STRICT_TRUST, Proof, Trust, Verdict
from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.ports import Attestor, Clock, Cluster
from podidentity.core.refusals import Refusal
from podidentity.core.resources import Pod
from podidentity.nmi.request.decision import Evidence, Failed, Rejected, Subject, no_token
from podidentity.nmi.request.hold import wait_for_change
from podidentity.nmi.server.messages import Caller, Proxied

UNKNOWN_WAIT = 2.0
"""Seconds that an address of no known pod waits for the watch."""

PROOF_SECONDS = 1.0
"""For so long a connection is known as that of the pod that the kernel named."""

_PROVEN_BEFORE = Evidence(verdict=Verdict.PROVEN)


class _NotYet(NamedTuple):
    """The watch may be late; `error` holds if it is not."""

    error: PodIdentityError


class Callers:
    """Finds the pod behind a connection."""

    def __init__(
        self,
        cluster: Cluster,
        attestor: Attestor | None,
        clock: Clock,
        *,
        trust: Trust = STRICT_TRUST,
    ) -> None:
        """`attestor` None: addresses are believed."""
        self._cluster = cluster
        self._attestor = attestor
        self._clock = clock
        self._trust = trust

    async def identify(self, caller: Caller) -> Subject | Rejected | Failed:
        """Return the pod whose connection it is, or why it is not known."""
        deadline = self._clock.monotonic() + UNKNOWN_WAIT
        while True:
            candidates = tuple(self._cluster.pods_at(caller.address))
            evidence, found = await self._owner(caller, candidates)
            if isinstance(found, Pod):
                if evidence is not _PROVEN_BEFORE:
                    _attribute(caller, found, evidence)
                return Subject(found, evidence)
            if found is None:  # once more, however long the proof took
                continue
            left = deadline - self._clock.monotonic()
            if isinstance(found, PodIdentityError) or left <= 0:
                error = found if isinstance(found, PodIdentityError) else found.error
                return no_token(error, evidence=evidence, claimed=candidates)
            await wait_for_change(self._cluster, self._clock, left)

    async def _owner(
        self, caller: Caller, candidates: tuple[Pod, ...]
    ) -> tuple[Evidence, Pod | _NotYet | PodIdentityError | None]:
        now = self._clock.monotonic()
        for pod in candidates if now < caller.proven_until else ():
            # A later request of a connection that was proved a moment ago.
            if caller.proven and pod.uid == caller.proven:
                return _PROVEN_BEFORE, pod
            if caller.proxied is not None and pod.uid == caller.proxied.uid:
                return Evidence(verdict=Verdict.PROVEN, proxy=caller.proxied.proxy), pod
        attestor = self._attestor
        if attestor is None:
            return Evidence(), _only(candidates) if candidates else self._unknown(caller.address)
        _forget(caller)
        proof = await attestor.prove(caller.address, caller.port, candidates, caller.own)
        caller.proven_until = now + PROOF_SECONDS
        return self._owner_by(proof, caller, candidates)

    async def still(self, caller: Caller, subject: Subject) -> Subject | Rejected | Failed:
        """Return the pod of a connection that was `subject`'s before its answer was looked for."""
        proved = caller.proven or caller.proxied is not None
        if not proved or self._clock.monotonic() < caller.proven_until:
            return subject
        found = await self.identify(caller)
        if isinstance(found, Subject) and found.pod.uid != subject.pod.uid:
            another = UnprovenCaller("the connection belongs to another pod")
            return no_token(another, evidence=found.evidence)
        return found

    def prove(self, caller: Caller, asked: Callable[[], None]) -> bool:
        """Ask whose a connection is, and have `asked` called later; False if that is not possible.

        The connection is taken for a pod's only if it is proved beyond doubt: what `identify` would
        wait for, refuse or merely believe is left to it. It is asked about while a whole request
        waits, and not at the accept: what the client's socket must have sent and not yet received
        (`kernel.attestation`) says the more the later it is looked at; and who sends nothing costs
        `net` nothing.
        """
        if self._attestor is None:
            return False
        candidates = tuple(self._cluster.pods_at(caller.address))
        until = self._clock.monotonic() + PROOF_SECONDS
        _forget(caller)

        def judged(proof: Proof) -> None:
            evidence, found = self._owner_by(proof, caller, candidates)
            if isinstance(found, Pod) and evidence.verdict is Verdict.PROVEN:
                _attribute(caller, found, evidence)
                caller.proven_until = until
            asked()

        return self._attestor.ask(caller.address, caller.port, candidates, judged, caller.own)

    def _owner_by(
        self, proof: Proof, caller: Caller, candidates: tuple[Pod, ...]
    ) -> tuple[Evidence, Pod | _NotYet | PodIdentityError | None]:
        """Return whose a connection is by its proof, or None if other pods have its address now."""
        evidence = Evidence(verdict=proof.verdict, detail=proof.detail)
        if candidates != tuple(self._cluster.pods_at(caller.address)):
            return evidence, None
        named = next((pod for pod in candidates if pod.uid == proof.pod_uid), None)
        if named is None and proof.pod_uid:
            found = self._newcomer(proof, candidates, caller)
            if not isinstance(found, Pod):
                return evidence, found
            if proof.proxy:
                return self._behind_proxy(proof, evidence, found)
            return Evidence(verdict=Verdict.PROVEN, detail=proof.detail), found
        if not candidates:
            return evidence, self._unknown(caller.address)
        if proof.verdict is Verdict.PROXIED and named is not None:
            return self._behind_proxy(proof, evidence, named)
        if proof.unseen:
            return self._unseen(proof, evidence, candidates)
        return evidence, unproven(proof) or named or _only(candidates)

    def _unseen(
        self, proof: Proof, evidence: Evidence, candidates: tuple[Pod, ...]
    ) -> tuple[Evidence, Pod | PodIdentityError]:
        """Return whose a connection is that no network namespace has a socket of."""
        found = self._trust.judge_unseen(proof, candidates)
        if isinstance(found, Refusal):
            return evidence, Refused(found)
        if found is None:
            return evidence, _only(candidates)
        judged = replace(evidence, verdict=found)
        return judged, unproven(proof._replace(verdict=found)) or candidates[0]

    def _behind_proxy(
        self, proof: Proof, evidence: Evidence, pod: Pod
    ) -> tuple[Evidence, Pod | _NotYet | PodIdentityError]:
        """Return the pod for which another one made the connection, if the operator trusts that."""
        proxy = self._cluster.pod_by_uid(proof.proxy)
        if proxy is None:
            return evidence, _NotYet(UnprovenCaller("the connection belongs to another pod"))
        if (refusal := self._trust.refuse_proxy(proof, proxy)) is not None:
            return evidence, Refused(refusal)
        trusted = Evidence(verdict=Verdict.PROVEN, detail=proof.detail, proxy=proxy.ref)
        return trusted, pod

    def _newcomer(
        self, proof: Proof, candidates: Sequence[Pod], caller: Caller
    ) -> Pod | _NotYet | PodIdentityError:
        """Return the pod that the kernel names, though its status does not have this address.

        A pod whose status has no address yet is accepted; one whose status has others is refused:
        it has taken this address.
        """
        known = self._cluster.pod_by_uid(proof.pod_uid)
        if known is not None and not known.addresses and not known.ended:
            return known
        another = UnprovenCaller("the connection belongs to another pod")
        if known is not None:
            return another
        return _NotYet(another) if candidates else self._unknown(caller.address)

    def _unknown(self, address: str) -> _NotYet:
        if not self._cluster.synced:
            return _NotYet(NotReady("the agent has not read the cluster's pods yet"))
        return _NotYet(UnknownCaller(f"no pod of this node has the address {address}"))


def _forget(caller: Caller) -> None:
    caller.proven, caller.proxied = "", None


def _attribute(caller: Caller, pod: Pod, evidence: Evidence) -> None:
    proven = evidence.verdict is Verdict.PROVEN
    if proven and evidence.proxy is not None:
        caller.proxied = Proxied(pod.uid, evidence.proxy)
    caller.attribute(pod.uid, proven=proven and evidence.proxy is None)


def unproven(proof: Proof) -> PodIdentityError | None:
    """Return why a connection is not proved to be anybody's; None if it is proved."""
    if proof.verdict is Verdict.UNKNOWN:
        return NotReady("the connection cannot be proved to be the pod's for a moment")
    if proof.verdict is Verdict.GONE:
        # Who reads this has not, whatever the kernel said a moment ago: it may ask again.
        return NotReady("the client has closed the connection")
    if proof.verdict is not Verdict.PROVEN:
        return UnprovenCaller("the connection is not that of the pod whose address it has")
    return None


def _only(candidates: Sequence[Pod]) -> Pod | PodIdentityError:
    if len(candidates) > 1:
        return UnprovenCaller("several pods have the address, and nothing tells them apart")
    return candidates[0]

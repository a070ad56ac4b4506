"""Whose request it is: an address is a claim, and the kernel's word on the socket the proof.

The watch is behind the node: a pod asks for its first token before its status has an address, and
a new pod may have the address of one that ended a moment ago. So where kernel and watch disagree
because the watch is late, the request waits for it; where they disagree otherwise it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from podidentity.core.attestation import Proof, Verdict
from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.ports import Attestor, Clock, Cluster
from podidentity.core.resources import Pod
from podidentity.nmi.request.outcome import Outcome
from podidentity.nmi.request.waiting import change_within
from podidentity.nmi.server.messages import Caller

STRANGER_WAIT = 2.0
"""Seconds that an address of no known pod waits for the watch."""

_BY_ADDRESS = "address"
"""Value of a pod's attestation annotation that lowers the demand for it: its address is believed
where no namespace has the socket. What the kernel says of a socket that it knows counts all the
same: the pod's status may have an address that is another's."""


class Callers:
    """Finds the pod behind a connection."""

    def __init__(self, cluster: Cluster, attestor: Attestor | None, clock: Clock) -> None:
        """`attestor` None: an address is believed, whoever sends from it."""
        self._cluster = cluster
        self._attestor = attestor
        self._clock = clock

    async def pod(self, caller: Caller, outcome: Outcome) -> Pod:
        """Return the pod whose connection it is; raise NotReady, UnknownCaller, UnprovenCaller."""
        deadline = self._clock.monotonic() + STRANGER_WAIT
        while True:
            candidates = outcome.claimed = tuple(self._cluster.pods_at(caller.address))
            try:
                pod = await self._owner(caller, candidates, outcome)
            except _NotYet as late:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    raise late.reason from None
                if candidates == tuple(self._cluster.pods_at(caller.address)):
                    await change_within(self._cluster, self._clock, left)
            else:
                caller.attribute(pod.uid, proven=outcome.verdict is Verdict.PROVEN)
                return pod

    async def _owner(self, caller: Caller, candidates: tuple[Pod, ...], outcome: Outcome) -> Pod:
        """Return the pod; raise _NotYet where the watch may be late."""
        for pod in candidates:
            # A later request of a connection that was proved when it began.
            if caller.proven and pod.uid == caller.proven:
                outcome.verdict = Verdict.PROVEN
                return pod
        if self._attestor is not None:
            return await self._proved(self._attestor, caller, candidates, outcome)
        if not candidates:
            raise _NotYet(self._stranger(caller.address))
        return _only(candidates)

    async def _proved(
        self,
        attestor: Attestor,
        caller: Caller,
        candidates: tuple[Pod, ...],
        outcome: Outcome,
    ) -> Pod:
        proof = await attestor.prove(caller.address, caller.port, candidates)
        outcome.detail, outcome.verdict = proof.detail, proof.verdict
        if candidates != tuple(self._cluster.pods_at(caller.address)):
            raise _NotYet(NotReady("the pods with this address changed while it was proved"))
        named = next((pod for pod in candidates if pod.uid == proof.pod_uid), None)
        if named is None and proof.pod_uid:
            newcomer = self._newcomer(proof.pod_uid, candidates, caller)
            outcome.verdict = Verdict.PROVEN
            return newcomer
        if not candidates:
            raise _NotYet(self._stranger(caller.address))
        if not (proof.unseen and all(pod.attestation == _BY_ADDRESS for pod in candidates)):
            must_be_proven(proof)
        return named or _only(candidates)

    def _newcomer(self, uid: str, candidates: Sequence[Pod], caller: Caller) -> Pod:
        """Return the pod that the kernel names, though its status has not this address.

        It proves itself and nobody else, whatever address it took. If its status has none yet, it
        is served; if it has others, this one is not its own.
        """
        known = self._cluster.pod_by_uid(uid)
        if known is not None and not known.addresses and not known.ended:
            return known
        another = UnprovenCaller("the connection belongs to another pod")
        if known is not None:
            raise another
        raise _NotYet(another if candidates else self._stranger(caller.address))

    def _stranger(self, address: str) -> PodIdentityError:
        if not self._cluster.synced:
            return NotReady("the agent has not read the cluster's pods yet")
        return UnknownCaller(f"no pod of this node has the address {address}")


class _NotYet(Exception):
    """The watch may be late; `reason` holds if it is not."""

    def __init__(self, reason: PodIdentityError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def must_be_proven(proof: Proof) -> None:
    """Raise NotReady or UnprovenCaller unless the kernel has said whose a connection is."""
    if proof.verdict is Verdict.UNKNOWN:
        raise NotReady("the connection cannot be proved to be the pod's for a moment")
    if proof.verdict is Verdict.GONE:
        raise UnprovenCaller("the client has closed the connection")
    if proof.verdict is not Verdict.PROVEN:
        raise UnprovenCaller("the connection is not that of the pod whose address it has")


def _only(candidates: Sequence[Pod]) -> Pod:
    if len(candidates) > 1:
        raise UnprovenCaller("several pods have the address, and nothing tells them apart")
    return candidates[0]

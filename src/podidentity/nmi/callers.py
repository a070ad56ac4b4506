"""Whose request it is: an address is a claim, and the kernel's word on the socket the proof."""

from __future__ import annotations

from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.ports import Attestor, Clock, Cluster, Proof, Verdict
from podidentity.core.resources import Pod
from podidentity.nmi.outcomes import Caller, Outcome
from podidentity.nmi.waiting import awaited

STRANGER_WAIT = 2.0
"""Seconds that an address of no known pod waits for the watch."""

_BY_ADDRESS = "address"
"""Value of a pod's attestation annotation that lowers the demand for it."""


class Callers:
    """Finds the pod behind a connection."""

    def __init__(self, cluster: Cluster, attestor: Attestor | None, clock: Clock) -> None:
        """`attestor` None: an address is believed, whoever sends from it."""
        self._cluster = cluster
        self._attestor = attestor
        self._clock = clock

    async def pod(self, caller: Caller, outcome: Outcome) -> Pod:
        """Return the pod whose connection it is; raise NotReady, UnknownCaller, UnprovenCaller."""
        candidates = await self._candidates(caller.address)
        outcome.claimed = tuple(candidates)
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


def must_be_proven(proof: Proof) -> None:
    """Raise NotReady or UnprovenCaller unless the kernel has said whose a connection is."""
    if proof.verdict is Verdict.UNKNOWN:
        raise NotReady("the connection cannot be proved to be the pod's for a moment")
    if proof.verdict is Verdict.GONE:
        raise UnprovenCaller("the client has closed the connection")
    if proof.verdict is not Verdict.PROVEN:
        raise UnprovenCaller("the connection is not that of the pod whose address it has")


def _proved(proof: Proof, candidates: list[Pod], outcome: Outcome) -> Pod:
    outcome.detail, outcome.verdict = proof.detail, proof.verdict
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

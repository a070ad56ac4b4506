"""Tokens of a pod for the Secrets Store CSI driver, which asks from the pod's node in its name.

The caller is proved like any other, by its socket, here in the node's own network; who may ask,
and for which pods, says `core.delegation`. What the pod gets is decided where a request of its
own is.
"""

from __future__ import annotations

from ipaddress import ip_address

from podidentity.core.attestation import Proof, Verdict
from podidentity.core.delegation import Delegation, not_to_be_named
from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Attestor, Clock, Cluster
from podidentity.core.resources import Pod
from podidentity.core.tokens import TokenRequest
from podidentity.nmi.request.caller import STRANGER_WAIT, must_be_proven
from podidentity.nmi.request.decision import TokenService
from podidentity.nmi.request.outcome import Outcome
from podidentity.nmi.request.waiting import awaited
from podidentity.nmi.server.messages import Caller


class HostTokenService:
    """Answers requests that name the pod they are for."""

    def __init__(
        self,
        service: TokenService,
        *,
        cluster: Cluster,
        attestor: Attestor | None,
        clock: Clock,
        delegation: Delegation,
    ) -> None:
        """`attestor` None: whoever comes from loopback is believed to be root."""
        self._service = service
        self._cluster = cluster
        self._attestor = attestor
        self._clock = clock
        self._delegation = delegation

    async def answer(self, caller: Caller, named: ObjectRef, request: TokenRequest) -> Outcome:
        """Return the token of the pod `named`, or why there is none; raises nothing."""
        outcome = Outcome(delegated=True)
        try:
            await self._permit(caller, outcome)
            outcome.pod = pod = await self._named(named)
            await self._service.serve(outcome, pod, request)
        except PodIdentityError as error:
            outcome.error = error
        return outcome

    async def _permit(self, caller: Caller, outcome: Outcome) -> None:
        """Raise unless the caller may ask."""
        if not _is_local(caller.address):
            raise UnprovenCaller("the connection is not from this node")
        proof = await self._proof(caller)
        outcome.detail = proof.detail
        asker = await self._pod_of(proof) if proof.pod_uid else None
        if asker is not None:
            outcome.detail, outcome.delegate = f"asked by {asker.ref}", asker.ref
        refusal = self._delegation.refuses(asker, root=proof.root and not proof.pod_uid)
        if refusal is not None:
            raise Refused(refusal)

    async def _proof(self, caller: Caller) -> Proof:
        if self._attestor is None:
            detail = "not asked: callers are believed"
            return Proof(verdict=Verdict.PROVEN, root=True, detail=detail)
        proof = await self._attestor.prove_local(caller.address, caller.port, caller.own)
        must_be_proven(proof)
        return proof

    async def _pod_of(self, proof: Proof) -> Pod | None:
        cluster = self._cluster
        return await awaited(
            lambda: cluster.pod_by_uid(proof.pod_uid), cluster, self._clock, STRANGER_WAIT
        )

    async def _named(self, ref: ObjectRef) -> Pod:
        cluster = self._cluster
        pod = await awaited(lambda: cluster.pod(ref), cluster, self._clock, STRANGER_WAIT)
        if pod is None and not cluster.synced:
            raise NotReady("the agent has not read the cluster's pods yet")
        if pod is None:
            raise UnknownCaller(f"no pod {ref} is known on this node")
        refusal = not_to_be_named(pod)
        if refusal is not None:
            raise Refused(refusal)
        return pod


def _is_local(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False

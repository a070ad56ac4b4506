"""Who asks at `/host/token`: the Secrets Store CSI driver, from the pod's node, in a pod's name.

The client is proved like any other, by its socket, here in the node's own network. The rule who may
ask, and for which pods, is in `core.delegation`. What the pod then gets is decided as for a request
of its own.
"""

from __future__ import annotations

from ipaddress import ip_address

from podidentity.core.attestation import Proof, Verdict
from podidentity.core.delegation import Delegation, refuse_without_csi_volume
from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.ports import Attestor, Clock, Cluster
from podidentity.core.resources import ObjectRef, Pod
from podidentity.nmi.request.caller import UNKNOWN_WAIT, unproven
from podidentity.nmi.request.decision import Evidence, Failed, Rejected, Subject, no_token
from podidentity.nmi.request.errors import NOT_LOCAL
from podidentity.nmi.request.hold import wait_until_found
from podidentity.nmi.server.messages import Caller

_BELIEVED = Proof(verdict=Verdict.PROVEN, root=True, detail="not asked: callers are believed")


class HostCallers:
    """Finds the pod in whose name a client of the node asks, if it may."""

    def __init__(
        self, cluster: Cluster, attestor: Attestor | None, clock: Clock, *, delegation: Delegation
    ) -> None:
        """`attestor` None: each client on loopback is believed to be root."""
        self._cluster = cluster
        self._attestor = attestor
        self._clock = clock
        self._delegation = delegation

    async def identify(self, caller: Caller, asked_for: ObjectRef) -> Subject | Rejected | Failed:
        """Return the pod `asked_for`, or why the client does not get its token."""
        if not _is_local(caller.address):
            error = UnprovenCaller(NOT_LOCAL)
            return no_token(error, evidence=Evidence(delegated=True))
        proof = await self._proof(caller)
        if (missing := unproven(proof)) is not None:
            evidence = Evidence(verdict=proof.verdict, detail=proof.detail, delegated=True)
            return no_token(missing, evidence=evidence)
        client = await self._pod_of(proof) if proof.pod_uid else None
        evidence = Evidence(
            detail=f"asked by {client.ref}" if client else proof.detail,
            delegated=True,
            delegate=client.ref if client else None,
        )
        refusal = self._delegation.refuses(client, root=proof.root and not proof.pod_uid)
        if refusal is not None:
            return no_token(Refused(refusal), evidence=evidence)
        pod = await self._named(asked_for)
        if isinstance(pod, PodIdentityError):
            return no_token(pod, evidence=evidence)
        return Subject(pod, evidence)

    async def _proof(self, caller: Caller) -> Proof:
        if self._attestor is None:
            return _BELIEVED
        return await self._attestor.prove_local(caller.address, caller.port, caller.own)

    async def _pod_of(self, proof: Proof) -> Pod | None:
        cluster = self._cluster
        return await wait_until_found(
            lambda: cluster.pod_by_uid(proof.pod_uid), cluster, self._clock, UNKNOWN_WAIT
        )

    async def _named(self, ref: ObjectRef) -> Pod | PodIdentityError:
        cluster = self._cluster
        pod = await wait_until_found(lambda: cluster.pod(ref), cluster, self._clock, UNKNOWN_WAIT)
        if pod is None and not cluster.synced:
            return NotReady("the agent has not read the cluster's pods yet")
        if pod is None:
            return UnknownCaller(f"no pod {ref} is known on this node")
        refusal = refuse_without_csi_volume(pod)
        return Refused(refusal) if refusal is not None else pod


def _is_local(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False

"""The attestor with metrics: a decorator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from podidentity.core.attestation import Proof, Verdict
from podidentity.core.ports import Attestor
from podidentity.core.resources import Pod
from podidentity.nmi.reporting.metrics import NmiMetrics


class MeasuredAttestor:
    """A core.ports.Attestor that counts verdicts."""

    def __init__(self, attestor: Attestor, metrics: NmiMetrics) -> None:
        self._attestor = attestor
        self._counters = {each: metrics.verdicts.of(each.value) for each in Verdict}

    async def prove(self, address: str, port: int, candidates: Sequence[Pod]) -> Proof:
        """Ask the kernel whose a connection to IMDS is."""
        return self._counted(await self._attestor.prove(address, port, candidates))

    def ask(
        self,
        address: str,
        port: int,
        candidates: Sequence[Pod],
        judged: Callable[[Proof], None],
    ) -> bool:
        """Ask the kernel whose a connection to IMDS is, and have `judged` called later."""
        return self._attestor.ask(
            address, port, candidates, lambda proof: judged(self._counted(proof))
        )

    async def prove_local(self, address: str, port: int, own: str) -> Proof:
        """Ask the kernel whose a connection from the node is."""
        return self._counted(await self._attestor.prove_local(address, port, own))

    def _counted(self, proof: Proof) -> Proof:
        self._counters[proof.verdict].value += 1
        return proof

"""What the agent holds of its node's kernel: the interception, and what proves callers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podidentity.core.attestation import AttestationMode, Proof, judge, judge_local
from podidentity.core.ports import Attestor, Clock
from podidentity.core.resources import Pod
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.interception import Interception
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from podidentity.kernel.source_guard import SourceGuard
from podidentity.nmi.reporting.probes import Check
from podidentity.settings import NmiSettings

Task = Callable[[], Coroutine[Any, Any, None]]
"""What must run beside the listeners."""

PROVED_BY = {
    AttestationMode.KERNEL: "their socket and its cgroup",
    AttestationMode.NAMESPACE: "their socket's network namespace alone",
}

_log = logging.getLogger("podidentity.nmi")


def intercept(settings: NmiSettings, clock: Clock, stack: AsyncExitStack) -> Interception:
    """Lead pods' traffic here; raise InterceptionError."""
    sysctls = Path(settings.proc_sys_net)
    interception = Interception(_redirect(settings), clock, proc_sys_net=sysctls)
    stack.callback(interception.close)
    interception.install()
    if settings.on_exit == "remove":
        stack.callback(_remove, interception)
    return interception


def _remove(interception: Interception) -> None:
    for left in interception.remove():
        _log.warning("left behind: %s", left)
    _log.warning("the interception is removed: pods reach the real metadata service")


def _redirect(settings: NmiSettings) -> Redirect:
    return Redirect(
        metadata_ip=settings.metadata_address,
        metadata_port=settings.metadata_port,
        listen_address=settings.listen_address,
        listen_port=settings.listen_port,
    )


class InProcessAttestor:
    """A core.ports.Attestor that inspects connections in this process."""

    def __init__(self, inspector: ConnectionInspector, mode: AttestationMode) -> None:
        self._inspector = inspector
        self._mode = mode

    async def prove(self, address: str, port: int, candidates: Sequence[Pod]) -> Proof:
        """Return the proof of a connection to IMDS."""
        return judge(self._inspector.facts(address, port), candidates, self._mode)

    async def prove_local(self, address: str, port: int) -> Proof:
        """Return the proof of a connection from the node."""
        return judge_local(self._inspector.local_facts(address, port), self._mode)


@dataclass(frozen=True, slots=True)
class Attestation:
    """The attestor, what must run beside it, and how to ask whether it works."""

    mode: AttestationMode
    attestor: Attestor | None = None
    tasks: tuple[Task, ...] = ()
    problems: Check = tuple
    source_problems: Check = tuple
    """Why a pod may be able to speak with an address that is another's."""


def attest(settings: NmiSettings, clock: Clock, stack: AsyncExitStack) -> Attestation:
    """Open what proves callers, where that was chosen, and tie their addresses to their ports."""
    mode = settings.attestation
    if mode is AttestationMode.ADDRESS:
        _log.warning("--attestation=address: any pod can take another's tokens by its address")
        return Attestation(mode)
    inspector = ConnectionInspector.open(
        mode,
        netns_dir=Path(settings.netns_dir),
        cgroup_root=Path(settings.cgroup_root),
        listener=Endpoint(_redirect(settings).target, settings.listen_port),
        imds=Endpoint(settings.metadata_address, settings.metadata_port),
    )
    stack.callback(inspector.close)
    sources = SourceGuard(inspector.networks, _redirect(settings), clock)
    stack.callback(sources.close)
    if settings.on_exit == "remove":
        stack.callback(sources.remove)
    sources.refresh()
    for problem in inspector.problems():
        _log.error("callers cannot be proved: %s", problem)
    _log.info("callers are proved by %s", PROVED_BY[mode])
    return Attestation(
        mode,
        InProcessAttestor(inspector, mode),
        (inspector.follow, sources.run),
        inspector.problems,
        sources.problems,
    )

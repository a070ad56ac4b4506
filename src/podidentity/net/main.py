"""The program `net`, assembled: the rules first, then the socket at which `serve` asks.

The guard is its first act: until then each pod of the node reaches the real metadata service.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podidentity import __version__
from podidentity.adapters.clock import SystemClock
from podidentity.core.attestation import AttestationMode
from podidentity.core.ports import Clock
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.interception import Interception
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from podidentity.kernel.source_guard import SourceGuard
from podidentity.local_sockets import listen
from podidentity.net.server import NetServer
from podidentity.settings import NET_SOCKET, SERVE_UID, NmiSettings
from podidentity.wire.net import State

CHECK_SECONDS = 1.0
"""Between two looks at what is wrong; repairs do not wait for them."""

_ADDRESS = AttestationMode.ADDRESS

_log = logging.getLogger("podidentity.net")


async def run(
    settings: NmiSettings, redirect: Redirect, begun: Callable[[], None] = lambda: None
) -> None:
    """Guard the node and answer `serve` until SIGTERM or SIGINT; call `begun` once it does.

    Raises InterceptionError, OSError or ValueError where it cannot begin.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        interception = Interception(redirect, clock, proc_sys_net=Path(settings.proc_sys_net))
        stack.callback(interception.close)
        interception.install()
        if settings.on_exit == "remove":
            stack.callback(_remove, interception)
        inspector = ConnectionInspector.open(
            settings.attestation,
            netns_dir=Path(settings.netns_dir),
            cgroup_root=Path(settings.cgroup_root),
            listener=Endpoint(redirect.target, settings.listen_port),
            imds=Endpoint(settings.metadata_address, settings.metadata_port),
        )
        stack.callback(inspector.close)
        sources = _guard_sources(settings, redirect, inspector, clock, stack)
        server = NetServer(
            inspector,
            version=__version__,
            # Under a manifest with one container `serve` is root, with no capability.
            uids=frozenset({SERVE_UID, os.geteuid()}),
            accepting=lambda _: None,
        )
        stack.callback(server.close)
        path = Path(settings.runtime_dir, NET_SOCKET)
        server.start(listen(path))
        _log.info("guarding node %s, asked at %s", settings.node, path)
        gc.collect()
        gc.freeze()
        begun()
        report = Reporter(interception, inspector, sources, server, clock, settings.attestation)
        tasks = [interception.guard, inspector.follow, report.run]
        if sources is not None:
            tasks.append(sources.run)
        await _until_told_to_stop(*tasks)
    if settings.on_exit == "keep":
        _log.info("stopped; the interception stays")


def _guard_sources(
    settings: NmiSettings,
    redirect: Redirect,
    inspector: ConnectionInspector,
    clock: Clock,
    stack: AsyncExitStack,
) -> SourceGuard | None:
    """Tie the pods' addresses to their ports; None where callers are not proved anyway."""
    if settings.attestation is _ADDRESS:
        return None
    sources = SourceGuard(inspector.networks, redirect, clock)
    stack.callback(sources.close)
    if settings.on_exit == "remove":
        stack.callback(sources.remove)
    sources.refresh()
    return sources


@dataclass(frozen=True, slots=True)
class Reporter:
    """Looks at what is wrong, and has `serve` told."""

    interception: Interception
    inspector: ConnectionInspector
    sources: SourceGuard | None
    server: NetServer
    clock: Clock
    mode: AttestationMode

    async def run(self) -> None:
        """Look each second, until cancelled."""
        while True:
            # In a thread: others may hold the kernel's lock of the rules.
            interception = await asyncio.to_thread(self.interception.problems)
            self.server.tell(
                State(
                    interception=interception,
                    attestation=() if self.mode is _ADDRESS else self.inspector.problems(),
                    sources=self.sources.problems() if self.sources is not None else (),
                    repairs=self.interception.repairs,
                    proof=self.mode,
                )
            )
            await self.clock.sleep(CHECK_SECONDS)


def _remove(interception: Interception) -> None:
    for left in interception.remove():
        _log.warning("left behind: %s", left)
    _log.warning("the interception is removed: pods reach the real metadata service")


async def _until_told_to_stop(*tasks: Callable[[], Coroutine[Any, Any, None]]) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task()) for task in tasks]
        await told.wait()
        for task in running:
            task.cancel()

"""One run of a container: its program's console, and the log that hears it.

Which run's log a person means is the kubelet's rule validateContainerLogStatus, in its words:
https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kubelet_pods.go
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from podidentity_sandbox.node.console import STDERR, Console
from podidentity_sandbox.node.logs import RunLog
from podidentity_sandbox.node.processes import Launcher, Process, StartFailed
from podidentity_sandbox.node.programs import Order
from podidentity_sandbox.node.status import ContainerState


class LogRefused(Exception):
    """There is no such log; the text says why."""


class Run:
    """A program's streams, from its start until all that it wrote is in the log."""

    def __init__(self, console: Console, log: RunLog) -> None:
        self.console = console
        self.log = log
        self._hearing: asyncio.Task[None] | None = None

    async def start(self, order: Order, launcher: Launcher) -> Process:
        """Start the program; raise StartFailed."""
        try:
            process = await launcher.start(order, self.console.child)
        except StartFailed:
            self.console.close()
            self.log.close()
            raise
        self.console.started()
        self._hearing = asyncio.create_task(self._hear(process))
        return process

    async def heard(self) -> None:
        """Return when all that it wrote is in the log; its process has ended."""
        if self._hearing is not None:
            await asyncio.shield(self._hearing)

    async def _hear(self, process: Process) -> None:
        try:
            await self.console.run(process.ended, self._note)
        finally:
            self.log.close()

    async def _note(self, stream: int, data: bytes) -> None:
        self.log.write("stderr" if stream == STDERR else "stdout", data)


def log_of(
    container: str, pod: str, state: ContainerState, runs: Sequence[Run], *, previous: bool
) -> RunLog:
    """Return the log that is meant; raise LogRefused."""
    if previous:
        ended = runs if state.running is None and state.terminated is None else runs[:-1]
        if state.last is None or not ended:
            raise LogRefused(
                f'previous terminated container "{container}" in pod "{pod}" not found'
            )
        return ended[-1].log
    if not runs:
        reason = (state.waiting or {}).get("reason", "")
        raise LogRefused(f'container "{container}" in pod "{pod}" is waiting to start: {reason}')
    return runs[-1].log

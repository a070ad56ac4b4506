"""A part of the sandbox: a program that serves, and what became of it.

The supervisor is process 1 of its namespace, so every orphan becomes its child. It therefore waits
for all children in one place (`Supervisor._reap`) and neither asyncio nor subprocess waits for any.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from podidentity_sandbox.node.cgroups import end_processes

_log = logging.getLogger(__name__)


class State(StrEnum):
    """The state of a part."""

    STARTING = "starting"
    READY = "ready"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartProgram:
    """How a part is started. It gets the option `--ready-fd N` and writes `ready` to it."""

    name: str
    argv: Sequence[str]
    log: Path
    fds: Sequence[int] = ()
    """Listening sockets that it inherits under the same numbers."""
    prepare: Callable[[], None] = field(default=lambda: None)
    """Called before each start."""
    after: Sequence[str] = ()
    """The parts that must serve before this one starts, at `up`."""
    machine: Path | None = None
    """The cgroup of v2 with all that runs on a machine, which stands still and ends as a whole."""


class Part:
    """A program and its process, if it has one."""

    def __init__(self, program: PartProgram, changed: Callable[[Part], None]) -> None:
        self.program = program
        self.state = State.ENDED
        self.pid: int | None = None
        self.exit: int | None = None
        """How it ended: its exit status, or minus the number of the signal."""
        self._changed = changed
        self._process: subprocess.Popen[bytes] | None = None
        self._settled = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def name(self) -> str:
        """Its name: `cluster`, `azure` or that of a node."""
        return self.program.name

    def start(self) -> None:
        self.program.prepare()
        reader, writer = os.pipe()
        with self.program.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.program.argv, "--ready-fd", str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(*self.program.fds, writer),
                cwd="/",
            )
        os.close(writer)
        self.pid, self.exit = self._process.pid, None
        self._ended.clear()
        self._settled.clear()
        self._become(State.STARTING)
        asyncio.get_running_loop().add_reader(reader, self._hear, reader)

    async def settled(self) -> State:
        await self._settled.wait()
        return self.state

    async def ended(self) -> None:
        await self._ended.wait()

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal; nothing happens where there is none.

        A machine is frozen, thawed or switched off: it heeds no other signals.
        """
        if self.pid is None:
            return
        if (machine := self.program.machine) is None:
            os.kill(self.pid, number)
        elif number in (signal.SIGSTOP, signal.SIGCONT):
            (machine / "cgroup.freeze").write_text("1" if number == signal.SIGSTOP else "0")
        else:
            end_processes(machine)
            os.kill(self.pid, signal.SIGKILL)  # it may not be in there yet
        if number == signal.SIGSTOP:
            self._become(State.PAUSED)
        elif number == signal.SIGCONT and self.state is State.PAUSED:
            self._become(State.READY)

    def buried(self, status: int) -> None:
        """Note that its process ended; `status` is waitpid's."""
        self.exit = os.waitstatus_to_exitcode(status)
        if self._process is not None:
            self._process.returncode = self.exit
        self.pid = None
        self._become(State.ENDED)
        self._settled.set()
        self._ended.set()

    def _hear(self, reader: int) -> None:
        said = os.read(reader, 64)
        asyncio.get_running_loop().remove_reader(reader)
        os.close(reader)
        if said.startswith(b"ready") and self.state is State.STARTING:
            self._become(State.READY)
            self._settled.set()

    def _become(self, state: State) -> None:
        self.state = state
        _log.info("%s: %s", self.name, state if self.exit is None else f"{state} ({self.exit})")
        self._changed(self)

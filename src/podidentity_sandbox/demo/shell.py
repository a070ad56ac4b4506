"""A shell that stays open, as a person keeps one: what a step exports, the next one has.

The story's commands are run by the shell that a person would type them into, so that the text
that is printed is the one that was run. A mark after each command tells where its output ends and
its exit status.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import secrets
import struct
import termios
import tty
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

_LIMIT = 4 << 20
"""Bytes that one command may print."""
_WINDOW = struct.pack("HHHH", 40, 160, 0, 0)


class ShellEnded(RuntimeError):
    """The shell has ended; the message has its last output."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The output of one command (both streams, in order), and its exit status."""

    output: str
    exit: int


class Shell:
    """One running shell."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        typed: asyncio.StreamWriter,
        said: asyncio.StreamReader,
    ) -> None:
        self._process, self._in, self._out = process, typed, said
        self._secret, self._count = secrets.token_hex(8), 0

    @classmethod
    async def open(cls, argv: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Start `argv`, a shell that reads its commands from standard input."""
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LIMIT,
        )
        if process.stdin is None or process.stdout is None:
            raise ValueError("a shell needs both its pipes")
        return cls(process, process.stdin, process.stdout)

    @classmethod
    async def open_at_terminal(cls, argv: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Start `argv`, which gives a shell to a person at a terminal, as `kubectl exec -it`.

        Echo and prompts are for eyes; they are turned off.
        """
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, _WINDOW)
        tty.setraw(theirs)
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(environment),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shell = cls(process, *await _streams(ours))
        try:
            await shell.run("stty -echo; PS1= PS2=")
        except BaseException:
            await shell.close()
            raise
        return shell

    async def run(self, command: str, seconds: float = 30) -> Ran:
        """Run `command` and return what came back; raise ShellEnded or TimeoutError."""
        previous, self._count = self._mark, self._count + 1
        end = f"printf '\\n%s %d\\n' {self._mark} $?\n"
        self._in.write(f"{command}\n{end}".encode())
        async with asyncio.timeout(seconds):
            try:
                await self._in.drain()
                said = await self._out.readuntil(f"\n{self._mark} ".encode())
                status = await self._out.readline()
            except (asyncio.IncompleteReadError, OSError) as cause:
                partial = getattr(cause, "partial", b"").decode(errors="replace")
                raise ShellEnded(f"the shell ended: {partial.strip()[-500:]}") from cause
        # A terminal ends its lines in two characters.
        output = said.decode(errors="replace").replace("\r\n", "\n")
        output = output.removesuffix(f"\n{self._mark} ")
        # A command before this one that took too long may have ended meanwhile.
        output = output.partition(f"{previous} ")[2].partition("\n")[2] or output
        return Ran(output.strip("\n"), int(status))

    @property
    def _mark(self) -> str:
        return f"end-of-step-{self._secret}-{self._count}"

    async def close(self) -> None:
        if self._process.returncode is None:
            # A terminal has no end of its own: the shell is told.
            self._in.write(b"\nexit\n")
        self._in.close()
        try:
            async with asyncio.timeout(3):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class _Terminal(asyncio.StreamReaderProtocol):
    def connection_lost(self, exc: Exception | None) -> None:
        """Take EIO for what it is on Linux, the end; what was said before it is still read."""
        super().connection_lost(None if isinstance(exc, OSError) else exc)


async def _streams(terminal: int) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    """Return what is typed at a terminal and what is read there, given its own end of it."""
    loop = asyncio.get_running_loop()
    said = asyncio.StreamReader(limit=_LIMIT)
    protocol = _Terminal(said)
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(os.dup(terminal), "rb", 0))
    transport, _ = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(terminal, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, said, loop), said

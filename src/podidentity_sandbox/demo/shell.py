"""A shell that stays open, as a person keeps one: what a step exports, the next one has.

The story's commands are run by the shell that a person would type them into, so that what is
printed is what was run. A mark after each command tells where its output ends and how it ended.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self


class ShellEnded(RuntimeError):
    """The shell is gone; the message has what it said last."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command printed (both streams, in order), and its exit status."""

    output: str
    exit: int


class Shell:
    """One running shell."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a shell needs both its pipes")
        self._process, self._in, self._out = process, process.stdin, process.stdout
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
            limit=4 << 20,
        )
        return cls(process)

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
            except (asyncio.IncompleteReadError, ConnectionError) as cause:
                partial = getattr(cause, "partial", b"").decode(errors="replace")
                raise ShellEnded(f"the shell ended: {partial.strip()[-500:]}") from cause
        output = said.decode(errors="replace").removesuffix(f"\n{self._mark} ")
        # A command before this one that took too long may have ended meanwhile.
        output = output.partition(f"{previous} ")[2].partition("\n")[2] or output
        return Ran(output.strip("\n"), int(status))

    @property
    def _mark(self) -> str:
        return f"end-of-step-{self._secret}-{self._count}"

    async def close(self) -> None:
        """End the shell and wait for it."""
        if self._process.returncode is None:
            self._in.close()
            try:
                async with asyncio.timeout(3):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

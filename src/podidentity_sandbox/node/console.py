"""The standard streams of one program: what it reads, and who hears what it writes.

A container's program has one from its start to its end; its log hears it, and whoever attaches. A
program that is executed beside it has one, too, which only its caller hears.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from podidentity_sandbox.node import pipes

STDIN, STDOUT, STDERR = 0, 1, 2
Listener = Callable[[int, bytes], Awaitable[None]]
"""Gets the stream's number, and what was written to it."""
_MOST_WAITING = 1024
"""Chunks that one who is attached may be behind before he is let go."""


class Console:
    """Three streams: pipes, or one terminal."""

    def __init__(self, *, stdin: bool, tty: bool) -> None:
        self.tty = tty
        self._input = -1
        if tty:
            master, slave = os.openpty()
            self.child = [slave] * 3
            """What the program gets; closed here by `started`."""
            self._outputs = [(STDOUT, master)]
            self._input = os.dup(master) if stdin else -1
        else:
            reading, self._input = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), -1)
            (out, out_child), (err, err_child) = os.pipe(), os.pipe()
            self.child = [reading, out_child, err_child]
            self._outputs = [(STDOUT, out), (STDERR, err)]
        self._attached: set[asyncio.Queue[tuple[int, bytes] | None]] = set()

    def started(self) -> None:
        """Let go of the program's ends: it has its own, or was not started."""
        for fd in set(self.child):
            os.close(fd)
        self.child = []

    async def run(self, ended: asyncio.Future[int], hear: Listener) -> None:
        """Hand on what is written until the program has ended and all of it is handed on."""
        try:
            async with asyncio.TaskGroup() as group:
                for number, fd in self._outputs:
                    group.create_task(self._hand_on(number, fd, ended, hear))
        finally:
            self.close()

    async def _hand_on(
        self, number: int, fd: int, ended: asyncio.Future[int], hear: Listener
    ) -> None:
        async for data in pipes.chunks(fd, ended):
            for queue in tuple(self._attached):
                try:
                    queue.put_nowait((number, data))
                except asyncio.QueueFull:
                    self._let_go(queue)
            await hear(number, data)

    def close(self) -> None:
        """Close all ends; whoever is attached is told."""
        self.started()
        self.close_input()
        for _, fd in self._outputs:
            os.close(fd)
        self._outputs = []
        for queue in tuple(self._attached):
            self._let_go(queue)

    def _let_go(self, queue: asyncio.Queue[tuple[int, bytes] | None]) -> None:
        self._attached.discard(queue)
        while queue.full():
            queue.get_nowait()
        queue.put_nowait(None)

    @contextmanager
    def attached(self) -> Iterator[AsyncIterator[tuple[int, bytes]]]:
        """Give what is written from now on, until the program has ended."""
        queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_MOST_WAITING)
        if self._outputs:
            self._attached.add(queue)
        else:
            queue.put_nowait(None)
        try:
            yield _heard(queue)
        finally:
            self._attached.discard(queue)

    async def feed(self, data: bytes, ended: asyncio.Future[int]) -> None:
        """Let the program read this; nothing happens where it reads no more."""
        if self._input >= 0 and not await pipes.write(self._input, data, ended):
            self.close_input()

    def close_input(self) -> None:
        """Let the program read the end of its input; a terminal has none."""
        fd, self._input = self._input, -1
        if fd >= 0:
            os.close(fd)

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; the kernel tells the programs in it."""
        if self.tty and self._outputs:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            with suppress(OSError):
                fcntl.ioctl(self._outputs[0][1], termios.TIOCSWINSZ, size)


async def _heard(
    queue: asyncio.Queue[tuple[int, bytes] | None],
) -> AsyncIterator[tuple[int, bytes]]:
    while (item := await queue.get()) is not None:
        yield item

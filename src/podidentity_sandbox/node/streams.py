"""The standard streams of a program: pipes, a console, and the WebSocket of exec."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

# ---- Pipes and terminals, read and written without blocking the loop

_CHUNK = 65536


async def chunks(fd: int, ended: asyncio.Future[int]) -> AsyncIterator[bytes]:
    """Yield what comes through `fd` until it is closed, or all has come when its program `ended`.

    Not only until it is closed: a program that it left behind may hold it open for ever.
    """
    os.set_blocking(fd, False)
    while True:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            if ended.done():
                return
            await _either(fd, ended)
            continue
        except OSError:  # EIO: the last program has closed its terminal
            return
        if not data:
            return
        yield data


async def write(fd: int, data: bytes, ended: asyncio.Future[int]) -> bool:
    """Write all of it; say whether somebody may still read what comes next."""
    os.set_blocking(fd, False)
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            if ended.done():
                return False
            await _either(fd, ended, writing=True)
        except OSError:  # nobody reads any more
            return False
    return True


async def _either(fd: int, ended: asyncio.Future[int], *, writing: bool = False) -> None:
    """Wait until `fd` is ready or the program has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def settle(_: object = None) -> None:
        if not ready.done():
            ready.set_result(None)

    (loop.add_writer if writing else loop.add_reader)(fd, settle)
    ended.add_done_callback(settle)
    try:
        await ready
    finally:
        ended.remove_done_callback(settle)
        (loop.remove_writer if writing else loop.remove_reader)(fd)


async def readable(fd: int) -> None:
    """Return when there is something to read at `fd`, be it its end."""
    await _either(fd, asyncio.get_running_loop().create_future())


# ---- The standard streams of one program

STDIN, STDOUT, STDERR = 0, 1, 2
Listener = Callable[[int, bytes], Awaitable[None]]
"""Gets the stream's number, and the bytes that were written to it."""


class Console:
    """Three streams: pipes, or one terminal."""

    def __init__(self, *, stdin: bool, tty: bool) -> None:
        self.tty = tty
        self._input = -1
        if tty:
            master, slave = os.openpty()
            self.child = [slave] * 3
            """The program's ends; closed here by `started`."""
            self._outputs = [(STDOUT, master)]
            self._input = os.dup(master) if stdin else -1
        else:
            reading, self._input = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), -1)
            (out, out_child), (err, err_child) = os.pipe(), os.pipe()
            self.child = [reading, out_child, err_child]
            self._outputs = [(STDOUT, out), (STDERR, err)]

    def started(self) -> None:
        """Let go of the program's ends: it has its own, or was not started."""
        for fd in set(self.child):
            os.close(fd)
        self.child = []

    async def run(self, ended: asyncio.Future[int], hear: Listener) -> None:
        """Pass the output on until the program has ended and all of it is passed on."""

        async def pass_on(number: int, fd: int) -> None:
            async for data in chunks(fd, ended):
                await hear(number, data)

        try:
            async with asyncio.TaskGroup() as group:
                for number, fd in self._outputs:
                    group.create_task(pass_on(number, fd))
        finally:
            self.close()

    def close(self) -> None:
        """Close all ends."""
        self.started()
        self.close_input()
        for _, fd in self._outputs:
            os.close(fd)
        self._outputs = []

    async def feed(self, data: bytes, ended: asyncio.Future[int]) -> None:
        """Let the program read this; nothing happens where it reads no more."""
        if self._input >= 0 and not await write(self._input, data, ended):
            self.close_input()

    def close_input(self) -> None:
        """Let the program read the end of its input; a terminal has none."""
        fd, self._input = self._input, -1
        if fd >= 0:
            os.close(fd)

    def resize(self, rows: int, columns: int) -> None:
        if self.tty and self._outputs:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            with suppress(OSError):
                fcntl.ioctl(self._outputs[0][1], termios.TIOCSWINSZ, size)


PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_ERROR, _RESIZE, _CLOSE = 3, 4, 255
SUCCESS = {"metadata": {}, "status": "Success"}


def outcome(argv: tuple[str, ...], code: int) -> dict[str, Any]:
    """Return the Status of an executed program that ended.

    Words of k8s.io/kubelet/pkg/cri/streaming/remotecommand/exec.go around containerd's.
    """
    if code == 0:
        return SUCCESS
    said = f"error executing command [{' '.join(argv)}], exit code {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {said}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def internal_error(message: str) -> dict[str, Any]:
    """Return the Status of what went wrong before there was an end."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


class Session:
    """One caller's end of a program's console."""

    def __init__(self, socket: web.WebSocketResponse, wanted: Mapping[int, bool]) -> None:
        """`wanted` says whether the caller wants to hear standard output, and error."""
        self._socket = socket
        self._wanted = wanted

    async def write(self, channel: int, data: bytes) -> None:
        """Send the program's output; a caller that has gone is noticed elsewhere."""
        if not self._wanted.get(channel, True):
            return
        with suppress(ConnectionError):
            await self._socket.send_bytes(bytes([channel]) + data)

    async def end(self, status: dict[str, Any]) -> None:
        await self.write(_ERROR, json.dumps(status).encode())
        await self._socket.close()

    async def listen(self, console: Console, ended: asyncio.Future[int]) -> None:
        """Carry out the caller's messages until it disconnects."""
        async for message in self._socket:
            if message.type is WSMsgType.BINARY and message.data:
                await self._take(message.data[0], message.data[1:], console, ended)

    async def _take(
        self, channel: int, data: bytes, console: Console, ended: asyncio.Future[int]
    ) -> None:
        if channel == STDIN:
            await console.feed(data, ended)
        elif channel == _CLOSE and data == bytes([STDIN]):
            console.close_input()
        elif channel == _RESIZE:
            size = json.loads(data)
            console.resize(int(size["Height"]), int(size["Width"]))

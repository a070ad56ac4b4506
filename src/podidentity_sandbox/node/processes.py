"""The kubelet's side of the launcher: a process to wait for, and ways to end it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from podidentity_sandbox.node.launcher import LARGEST_REQUEST, StartRequest


class StartFailed(Exception):
    """A program could not be started; the text is for a container's status."""


class LauncherDied(Exception):
    """Nothing can be started any more, and all that ran has ended: the node must end too."""


class Process:
    """A program that was started."""

    def __init__(self, pid: int, send: Callable[[signal.Signals, bool], Awaitable[None]]) -> None:
        """`send` sends it a signal, or its process group."""
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Its exit code; 128 + signal where a signal ended it."""
        self.waiting: asyncio.Task[None] | None = None
        """What waits for its end, where a task of its own does."""
        self._send = send

    async def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to it, or to its process group; no error if it has ended."""
        await self._send(number, group)

    async def wait(self) -> int:
        """Return its exit code once it has ended; being cancelled leaves it alone."""
        return await asyncio.shield(self.ended)


class LauncherClient:
    """The launcher process of this node."""

    def __init__(self, connection: socket.socket, child: asyncio.subprocess.Process) -> None:
        self._connection = connection
        self._child = child
        self._processes: dict[int, Process] = {}
        self._turn = asyncio.Lock()
        self._reply: asyncio.Future[dict[str, Any]] | None = None

    @classmethod
    async def open(cls) -> LauncherClient:
        """Start it, in the namespaces that this process is in."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "podidentity_sandbox.node.launcher",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return cls(ours, child)

    async def listen(self) -> None:
        """Deliver the launcher's messages; raise LauncherDied when it has ended."""
        loop = asyncio.get_running_loop()
        while raw := await loop.sock_recv(self._connection, LARGEST_REQUEST):
            self._deliver(json.loads(raw))
        raise LauncherDied("the process that starts this node's containers has ended")

    async def start(self, request: StartRequest, fds: Sequence[int]) -> Process:
        """Start a program with these standard input, output and error; raise StartFailed.

        Not to be cancelled half way: the program would run and nobody know it.
        """
        raw = msgspec.json.encode(request)
        if len(raw) > LARGEST_REQUEST:
            raise StartFailed(f"arguments and environment are too large: {len(raw)} bytes")
        async with self._turn:
            self._reply = asyncio.get_running_loop().create_future()
            socket.send_fds(self._connection, [raw], fds)
            answer = await self._reply
        if "error" in answer:
            raise StartFailed(answer["error"])
        process: Process = answer["process"]
        return process

    async def _signal(self, pid: int, number: signal.Signals, group: bool) -> None:
        message = json.dumps({"kill": pid, "signal": int(number), "group": group})
        await asyncio.get_running_loop().sock_sendall(self._connection, message.encode())

    async def close(self) -> None:
        self._connection.close()
        await self._child.wait()

    def _deliver(self, message: dict[str, Any]) -> None:
        if "ended" in message:
            process = self._processes.pop(message["ended"], None)
            if process is not None and not process.ended.done():
                process.ended.set_result(message["code"])
            return
        if "pid" in message:
            # Registered here, before the next message can say that it has ended.
            pid: int = message["pid"]
            message["process"] = self._processes[pid] = Process(pid, partial(self._signal, pid))
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(message)

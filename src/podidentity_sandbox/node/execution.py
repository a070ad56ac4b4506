r"""`exec`: other programs beside a container's, over the node's Unix socket.

The caller's own standard input, output and error travel to the program as descriptors, so nothing
is copied on the way. One connection, one program:

    → {"op": "exec", "namespace", "pod", "container", "command"}\n  + 3 descriptors
    ← {"started": true}\n
    ← {"exit": N}\n    or at any time {"error": "…", "code": "NotFound" | "Failed"}\n

A caller that closes its connection ends the program.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from podidentity_sandbox.node.containers import Container
from podidentity_sandbox.node.kubelet import Kubelet
from podidentity_sandbox.node.processes import Process, StartFailed

_log = logging.getLogger(__name__)
_LARGEST_REQUEST = 160 * 1024


class ExecRefused(Exception):
    """The request cannot be served; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ExecServer:
    """Serves the socket of a node."""

    def __init__(self, path: Path, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        self._path = path
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        self._listener.listen(64)

    async def run(self) -> None:
        """Serve for ever."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    connection, _ = await loop.sock_accept(self._listener)
                    group.create_task(self._serve(connection))
        finally:
            self._listener.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        fds: list[int] = []
        with connection:
            try:
                answer = await self._answer(connection, fds)
            except ExecRefused as error:
                answer = {"error": str(error), "code": error.code}
            except StartFailed as error:
                answer = {"error": str(error), "code": "Failed"}
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                _log.info("a request to execute was broken off: %s", error)
                return
            finally:
                for fd in fds:
                    os.close(fd)
            with suppress(OSError):
                await _send(connection, answer)

    async def _answer(self, connection: socket.socket, fds: list[int]) -> dict[str, Any]:
        request = await _receive(connection, fds)
        container = self._find(request)
        command = tuple(request["command"])
        if len(fds) != 3:
            raise ExecRefused("BadRequest", "three descriptors are needed")
        process = await container.execute(command, fds, terminal=False)
        await _send(connection, {"started": True})
        return {"exit": await _wait(connection, process)}

    def _find(self, request: dict[str, Any]) -> Container:
        namespace, name = request["namespace"], request["pod"]
        try:
            pod = self._kubelet.find(namespace, name)
        except KeyError:
            raise ExecRefused("NotFound", f'pods "{name}" not found on this node') from None
        try:
            return pod.container(request.get("container"))
        except KeyError:
            wanted = request.get("container")
            raise ExecRefused(
                "BadRequest", f"container {wanted} is not valid for pod {name}"
            ) from None


async def _wait(connection: socket.socket, process: Process) -> int:
    """Return the program's exit code; end it if the caller goes away."""
    loop = asyncio.get_running_loop()
    gone = asyncio.create_task(loop.sock_recv(connection, 1))
    ended = asyncio.create_task(process.wait())
    try:
        await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await process.signal(signal.SIGKILL, group=True)
        return await ended
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


async def _receive(connection: socket.socket, fds: list[int]) -> dict[str, Any]:
    """Read the request and its descriptors, which come with its first byte."""
    raw = b""
    while not raw.endswith(b"\n"):
        await _readable(connection)
        chunk, got, _, _ = socket.recv_fds(connection, 65536, 3, socket.MSG_CMSG_CLOEXEC)
        fds.extend(got)
        raw += chunk
        if not chunk:
            raise ValueError("the caller has gone")
        if len(raw) > _LARGEST_REQUEST:
            raise ExecRefused("BadRequest", f"a command of more than {_LARGEST_REQUEST} bytes")
    request: dict[str, Any] = json.loads(raw)
    return request


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, _line(message))


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"

r"""`exec`: other programs beside a container's, over the node's Unix socket.

The caller's own standard input, output and error travel to the program as descriptors, so nothing
is copied on the way. One connection, one program; its packets are JSON:

    → {"namespace", "pod", "container", "command"}   with 3 descriptors
    ← {"exit": N} | {"error": "…"} | {"absent": "…"}   the last where the node has no such pod

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

from podidentity_sandbox.node.client import LARGEST_REQUEST
from podidentity_sandbox.node.containers import Container
from podidentity_sandbox.node.kubelet import Kubelet
from podidentity_sandbox.node.processes import Process, StartFailed
from podidentity_sandbox.node.streams import readable

_log = logging.getLogger(__name__)


class _Absent(Exception):
    """The node has no such pod."""


class ExecServer:
    """Serves the socket of a node."""

    def __init__(self, path: Path, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        self._path = path
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        self._listener.listen(64)

    async def run(self) -> None:
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
        with connection:
            try:
                answer: dict[str, Any] = {"exit": await self._execute(connection)}
            except _Absent as error:
                answer = {"absent": str(error)}
            except StartFailed as error:
                answer = {"error": str(error)}
            except (OSError, ValueError, LookupError, TypeError) as error:
                _log.info("a request to execute was broken off: %s", error)
                return
            with suppress(OSError):
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(connection, json.dumps(answer).encode())

    async def _execute(self, connection: socket.socket) -> int:
        await readable(connection.fileno())
        raw, fds, _, _ = socket.recv_fds(connection, LARGEST_REQUEST, 3, socket.MSG_CMSG_CLOEXEC)
        try:
            request = json.loads(raw)
            container = self._find(request)
            process = await container.execute(tuple(request["command"]), fds, terminal=False)
        finally:
            for fd in fds:
                os.close(fd)
        return await _wait(connection, process)

    def _find(self, request: dict[str, Any]) -> Container:
        name, container = request["pod"], request["container"]
        try:
            pod = self._kubelet.find(request["namespace"], name)
        except KeyError:
            raise _Absent(f'pods "{name}" not found on this node') from None
        try:
            return pod.container(container)
        except KeyError:
            raise StartFailed(f"container {container} is not valid for pod {name}") from None


async def _wait(connection: socket.socket, process: Process) -> int:
    """Return the program's exit code; end it if the caller goes away."""
    gone = asyncio.create_task(readable(connection.fileno()))
    ended = asyncio.create_task(process.wait())
    try:
        await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await process.signal(signal.SIGKILL, group=True)
        return await ended
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)

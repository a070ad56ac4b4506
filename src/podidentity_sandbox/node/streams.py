"""exec and attach over a WebSocket, as Kubernetes speaks it: a channel number, then bytes.

    0 standard input →   1 output ←   2 error ←   3 the end, a Status ←   4 the terminal's size →
    255, channel → : nothing more comes on that channel (only of v5)

https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go
https://kubernetes.io/blog/2024/08/20/websockets-transition/
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from podidentity_sandbox.node.console import STDIN, Console

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
        """Send what the program has written; a caller that has gone is noticed elsewhere."""
        if not self._wanted.get(channel, True):
            return
        with suppress(ConnectionError):
            await self._socket.send_bytes(bytes([channel]) + data)

    async def end(self, status: dict[str, Any]) -> None:
        """Tell how it ended, and hang up."""
        await self.write(_ERROR, json.dumps(status).encode())
        await self._socket.close()

    async def listen(self, console: Console, ended: asyncio.Future[int]) -> None:
        """Do what the caller sends, until he has gone."""
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

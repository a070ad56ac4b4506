"""The socket for the kubelet's liveness probe of `net`: it shows that the event loop runs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

from podidentity.local_sockets import listen

LIVENESS_SOCKET = "net-probe.sock"
"""Name of the socket in `--runtime-dir`."""
MOST_PROBES = 16


class LivenessSocket:
    """Answers `ok` to every question."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.get_running_loop()
        # Only for our own user: a taken worker of `serve` could use up the connections.
        self._listening = listen(folder / LIVENESS_SOCKET, mode=0o600)
        self._open: list[socket.socket] = []
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._listening)
        self._listening.close()
        while self._open:
            self._end(self._open[0])

    def _accept(self) -> None:
        with suppress(OSError):
            asking, _ = self._listening.accept()
            asking.setblocking(False)
            if len(self._open) >= MOST_PROBES:
                self._end(self._open[0])
            self._open.append(asking)
            self._loop.add_reader(asking, self._answer, asking)

    def _answer(self, asking: socket.socket) -> None:
        with suppress(OSError):
            if asking.recv(64):
                asking.send(b"ok\n")
        self._end(asking)

    def _end(self, asking: socket.socket) -> None:
        self._loop.remove_reader(asking)
        self._open.remove(asking)
        asking.close()

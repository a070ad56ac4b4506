"""A listening socket and the connections that it accepted, ended together and in good order."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import Self

from podidentity.nmi.server.connection import Connection
from podidentity.nmi.server.messages import AnswerMemo, Handler, Limits, no_memo
from podidentity.telemetry.repeats import Repeats

FOR_LOOKS = Limits(connections=256, from_one=16)
"""Probes and metrics are asked for by few, each on a connection or two, and every pod reaches them:
who holds all that he may must keep the kubelet's probe from nothing."""
BACKLOG = 1024
"""Connections that the kernel holds for us: all pods of a node start at once after a reboot."""

_log = logging.getLogger("podidentity.http")


class ListenError(Exception):
    """Nothing can be heard at an address: whose fault, and what to do."""


class Listener:
    """Serves one handler. Counts its connections, as protocol.Owner."""

    def __init__(
        self, handler: Handler, limits: Limits | None = None, memo: AnswerMemo = no_memo
    ) -> None:
        self._limits = limits or Limits()
        self._factory = lambda: Connection(handler, memo, self._limits, self)
        self._server: asyncio.Server | None = None
        self._open: set[Connection] = set()
        self._refused: Repeats[str] = Repeats()
        self._from: dict[str, int] = {}
        """How many are open from each address."""
        self._empty = asyncio.Event()
        self._empty.set()

    @classmethod
    async def start(
        cls,
        handler: Handler,
        host: str,
        port: int,
        limits: Limits | None = None,
        *,
        memo: AnswerMemo = no_memo,
    ) -> Self:
        """Listen on `host`:`port` (0: any free one); raise ListenError."""
        listener = cls(handler, limits, memo)
        try:
            listener._server = await asyncio.get_running_loop().create_server(
                listener._factory, host, port, backlog=BACKLOG
            )
        except OSError as error:
            raise ListenError(_why_deaf(host, port, error)) from error
        return listener

    @property
    def serving(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None and self._server.is_serving()

    def connections(self) -> int:
        """Return how many are open."""
        return len(self._open)

    @property
    def port(self) -> int:
        """The port, of a listener that serves."""
        if self._server is None:
            return 0
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def add(self, connection: Connection) -> bool:
        """Count a connection in; return whether there is room for it."""
        mine = self._from.get(connection.address, 0)
        if len(self._open) >= self._limits.connections or mine >= self._limits.from_one:
            return False
        self._open.add(connection)
        self._from[connection.address] = mine + 1
        self._empty.clear()
        return True

    def discard(self, connection: Connection) -> None:
        """Count a connection out."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        left = self._from[connection.address] = self._from[connection.address] - 1
        if not left:
            del self._from[connection.address]
        if not self._open:
            self._empty.set()

    def refused(self, connection: Connection, why: str) -> None:
        """Say so, however often one address does it only now and then."""
        now = asyncio.get_running_loop().time()
        for address, more in self._refused.ended(now):
            _log.info("%s more connections from %s refused", more, address)
        if self._refused.says(connection.address, now):
            _log.info("connection from %s refused: %s", connection.address, why)

    async def empty(self) -> None:
        """Return when no connection is open."""
        await self._empty.wait()

    async def close(self, seconds: float = 1.0) -> None:
        """Accept no more, let requests under way finish for so many seconds, cut the rest."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._open):
            connection.finish()
        try:
            async with asyncio.timeout(seconds):
                await self.empty()
        except TimeoutError:
            for connection in list(self._open):
                connection.abort()
            await self.empty()


def _why_deaf(host: str, port: int, error: OSError) -> str:
    # From Python 3.13 on asyncio names no cause for an address that nobody has.
    cause = f"cannot listen on {host}:{port}: {os.strerror(error.errno or errno.EADDRNOTAVAIL)}"
    if error.errno != errno.EADDRINUSE:
        return cause
    return (
        f"{cause}. Another program of this node has the port, such as the NMI of aad-pod-identity: "
        f"`ss -ltnp 'sport = :{port}'` on the node names it. Until it ends, pods get no token"
    )

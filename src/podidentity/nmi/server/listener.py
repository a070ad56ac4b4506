"""Listening sockets and the connections accepted from them, ended together and in good order.

We accept ourselves, a few connections in each turn of the event loop. asyncio's server would take
a whole backlog before the first byte of it is read, and make a transport for each connection that
is refused in the next moment.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from podidentity.core.rate_limits import RateLimiter
from podidentity.nmi.server.connection import READ_BYTES, Connection, ServerContext, SocketTransport
from podidentity.nmi.server.messages import Caller, Handler, Limits, Memo, Response, render
from podidentity.nmi.server.pool import ConnectionPool
from podidentity.supervisor.listeners import listening_socket
from podidentity.telemetry.log_limiter import LogLimiter
from podidentity.wire.imds import render_error

FOR_LOOKS = Limits(unproven=64, per_address=16, unproven_seconds=15.0)
"""Probes and metrics are asked for by few, and every pod reaches their ports."""
ACCEPTED_AT_ONCE = 16
"""Connections accepted in one turn of the event loop."""
_SUMMARY = 1.0
"""Seconds between two looks at what was left unsaid: a flood must not pay for it each time."""
HANDSHAKE_SECONDS = 5.0
HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE = 1.0, 5.0
"""TLS handshakes of one address: each costs the loop a millisecond."""
_PAUSE = 0.1
"""Seconds without accepting when the process has no descriptor left for a connection."""

_FULL = render(
    Response(503, render_error("service_unavailable", "too many connections")), stays=False
)

_log = logging.getLogger("podidentity.http")

IsLocal = Callable[[str, str], bool]
"""Takes a connection's remote and own address; returns whether the node itself is the client."""


def is_local(remote: str, own: str) -> bool:
    """Return whether a connection comes from the node itself.

    Linux drops packets from elsewhere with an address of the node, or of loopback, as martians.
    """
    return remote == own or remote.startswith("127.") or remote == "::1"


class Listener:
    """Serves one handler on one or more sockets."""

    def __init__(
        self,
        handler: Handler,
        limits: Limits | None = None,
        *,
        memo: Memo | None = None,
        local: IsLocal = is_local,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`memo` answers what it remembers; None: all requests go to the handler.

        `tls`: what connections are encrypted with.
        """
        self._loop = asyncio.get_running_loop()
        self._limits = limits or Limits()
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            self._limits, self._loop.time, self._loop.call_soon
        )
        self._context = ServerContext(
            handler=handler,
            memo=memo,
            limits=self._limits,
            pool=self._pool,
            refused=self._refused,
            gone=self._gone,
            loop=self._loop,
            buffer=memoryview(bytearray(READ_BYTES)),
        )
        self._is_local = local
        self._tls = tls
        self._handshakes = RateLimiter(HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE)
        self._sockets: list[socket.socket] = []
        self._port = 0
        self._attaching: set[asyncio.Task[object]] = set()
        self._refusals = LogLimiter()
        self._summed_up_at = 0.0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @classmethod
    async def start(
        cls,
        handler: Handler,
        host: str = "",
        port: int = 0,
        limits: Limits | None = None,
        *,
        sockets: Sequence[socket.socket] = (),
        memo: Memo | None = None,
        local: IsLocal = is_local,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Accept from `sockets`, which listen already, or listen on `host`:`port` (0: any).

        The listener closes the sockets when it ends; another process that has them, too, goes on.
        Raises ListenError.
        """
        listener = cls(handler, limits, memo=memo, local=local, tls=tls)
        for each in sockets or [listening_socket(host, port)]:
            listener.accept_from(each)
        return listener

    def accept_from(self, listening: socket.socket) -> None:
        """Accept the connections of a socket that listens, beside those of the others."""
        listening.setblocking(False)
        self._sockets.append(listening)
        self._port = self._port or listening.getsockname()[1]
        self._loop.add_reader(listening, self._accept, listening)

    @property
    def serving(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._sockets)

    @property
    def port(self) -> int:
        """The port of the first socket."""
        return self._port

    def connections(self) -> int:
        """Return how many are open."""
        return len(self._pool)

    def held_bytes(self) -> int:
        """Return the memory that requests take: those arriving, under way and waiting."""
        return self._pool.held

    @property
    def keep_alive(self) -> bool:
        """Whether connections are kept after an answer."""
        return self._context.keep_alive

    def keep_connections(self, *, kept: bool) -> None:
        """Keep connections after an answer from now on, or not: then idle ones are closed at once.

        For nodes on which another pod can take an idle connection over.
        """
        self._context.keep_alive = kept and not self._draining
        if not kept:
            for connection in self._pool.connections():
                connection.close_if_kept()

    def connect(self, caller: Caller, *, local: bool = False) -> Connection | None:
        """Return the protocol of a new connection; None if there is no place for it."""
        if not self._pool.makes_room(caller.address, local=local):
            self._refused(caller.address, "too many connections")
            return None
        connection = Connection(self._context, caller, local=local)
        self._pool.add(connection, caller.address, local=local)
        self._empty.clear()
        return connection

    async def empty(self) -> None:
        """Return when no connection is open."""
        await self._empty.wait()

    async def drain(self, seconds: float | None = None, *, grace: float = 1.0) -> None:
        """Accept no more; close each connection behind its next answer, all after so many seconds.

        None: after the idle limit; then requests under way have `grace` seconds. For a hand-over:
        no request is lost, because a kept connection is told `Connection: close` before it is
        closed, and an idle one keeps its time.
        """
        self._draining = True
        self._context.keep_alive = False
        self._stop_accepting()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.idle_seconds if seconds is None else seconds):
                await self.empty()
        await self.close(grace)

    async def close(self, seconds: float = 1.0) -> None:
        """Accept no more, let requests under way finish for so many seconds, cut the rest."""
        self._stop_accepting()
        for connection in self._pool.connections():
            connection.close_when_idle()
        try:
            async with asyncio.timeout(seconds):
                await self.empty()
        except TimeoutError:
            for connection in self._pool.connections():
                connection.abort()
            await self.empty()

    def _stop_accepting(self) -> None:
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listening, error)
                return
            accepted.setblocking(False)
            address, port = peer[:2]
            own = accepted.getsockname()[0]
            if self._tls is not None and self._handshakes.take(address, self._loop.time()) > 0:
                accepted.close()
                continue
            caller = Caller(address, port, own=own)
            connection = self.connect(caller, local=self._is_local(address, own))
            if connection is None:
                with suppress(OSError):
                    accepted.send(b"" if self._tls else _FULL)
                accepted.close()
            else:
                self._attach(connection, accepted)

    def _attach(self, connection: Connection, accepted: socket.socket) -> None:
        if self._tls is None:
            SocketTransport(self._loop, accepted, connection).begin()
            return
        task: asyncio.Task[object] = self._loop.create_task(
            self._encrypted(connection, accepted, self._tls)
        )
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    async def _encrypted(
        self, connection: Connection, accepted: socket.socket, tls: ssl.SSLContext
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=self._limits.close_seconds,
            )
        except OSError as error:
            # asyncio tells the connection nothing of a handshake that failed.
            connection.connection_lost(error)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Accept nothing for a moment: there is no descriptor or memory for a connection."""
        _log.error("no connection can be accepted for a moment: %s", error)
        self._loop.remove_reader(listening)
        self._loop.call_later(_PAUSE, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _gone(self) -> None:
        if not len(self._pool):
            self._empty.set()

    def _refused(self, address: str, why: str) -> None:
        """Log it, but a few times only for each address."""
        now = self._loop.time()
        if now >= self._summed_up_at + _SUMMARY:
            self._summed_up_at = now
            for repeated, _, more in self._refusals.ended(now):
                _log.info("%s more connections from %s refused", more, repeated)
        if self._refusals.allows(address, "", now):
            _log.info("connection from %s refused: %s", address, why)

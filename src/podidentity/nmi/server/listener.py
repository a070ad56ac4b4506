"""Listening sockets, the connections accepted from them, and what each client gets of the agent.

We accept ourselves, a few connections in each turn of the event loop. asyncio's server would take
a whole backlog before the first byte of it is read, and make a transport for each connection that
is refused in the next moment.

Places are shared fairly: each holder pays for what it holds. A holder is a pod, an address that is
not proved yet, or the node itself. Addresses that are not proved share one small pool, because a
pod on a bridge can speak with many of them. Where there is no place left, the holder with most
connections loses the one that has been idle longest; so a newcomer gets a place from a holder that
has more than it. The same holds for the memory of requests, and for the time of the event loop: a
few requests are begun in each turn, and of more than that the holders begin one each in turns.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum, auto
from typing import Generic, Protocol, TypeVar

from podidentity.core.rate_limits import RateLimiter
from podidentity.nmi.server.connection import (
    READ_BYTES,
    Connection,
    Readers,
    ServerContext,
    SocketTransport,
)
from podidentity.nmi.server.messages import Caller, Handler, Limits, Memo, Response, render
from podidentity.telemetry.log_limiter import LogLimiter
from podidentity.wire.imds import render_error

FOR_LOOKS = Limits(unproven=64, per_address=16, unproven_seconds=15.0)
"""Probes and metrics are asked for by few, and every pod reaches their ports."""
ACCEPTED_AT_ONCE = 16
"""Connections accepted in one turn of the event loop."""
MOST_ACCEPTED_LAST = 4096
"""Connections accepted by `drain`, at least as many as wait: pods that go on connecting would hold
the loop up for ever."""
SETTLED_SECONDS = 1.0
"""An address at its own limit loses a connection that was idle for so long, else gets no other:
so a flood of connections costs little more than their acceptance."""
BEGUN_AT_ONCE = 4
"""Requests that are begun in one turn of the event loop; each costs it some 0.3 ms."""
READ_AT_ONCE = 4
"""Connections of an address, not proved, that are read where they are accepted; others take turns:
else a client that opens hundreds has those behind it in the backlog wait until all are read."""
_SUMMARY = 1.0
"""Seconds between two looks at what was left unsaid: a flood must not pay for it each time."""
HANDSHAKE_SECONDS = 5.0
HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE = 1.0, 5.0
"""TLS handshakes of one address: each costs the loop a millisecond."""
_REST = 0.1
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


class Kind(IntEnum):
    """What a holder is; a number, which is hashed without Python code."""

    LOCAL = auto()
    POD = auto()
    ADDRESS = auto()


class Evictable(Protocol):
    """A connection, as far as the pool cares."""

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""

    @property
    def half_closed(self) -> bool:
        """Whether its client sends nothing more, and has perhaps left."""

    @property
    def since(self) -> float:
        """Time of the loop at which something last happened on it."""

    def evict(self) -> None:
        """Close it; `ConnectionPool.remove` is called when it is gone, at once or later."""

    def begin_now(self) -> None:
        """Begin what `ConnectionPool.may_begin` has put off."""


_C = TypeVar("_C", bound=Evictable)


class Holder(Generic[_C]):
    """The connections of one pod, address, or of the node, and the memory of their requests."""

    __slots__ = ("connections", "held", "kind", "name", "put_off")

    def __init__(self, kind: Kind, name: str) -> None:
        self.kind = kind
        self.name = name
        """Uid of the pod, or the address."""
        self.connections: dict[_C, int] = {}
        """Bytes of requests in memory, by connection."""
        self.held = 0
        self.put_off: deque[_C] = deque()
        """Whose requests are begun in later turns."""

    def longest_idle(self, but: _C | None = None) -> _C | None:
        """Return the connection to close first: a half-closed one, else an idle one."""
        found = (each for each in self.connections if each is not but)
        return min(
            found, key=lambda each: (not each.half_closed, each.busy, each.since), default=None
        )


class ConnectionPool(Generic[_C]):
    """Counts connections, and says which one must go."""

    def __init__(
        self,
        limits: Limits,
        time: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """`soon` has something called in the next turn of the event loop."""
        self._limits = limits
        self._time = time
        self._soon = soon
        self._begun = 0
        """Requests begun in this turn of the event loop."""
        self._turning = False
        """Whether `_turn` is called in the next one."""
        self._waiting: deque[Holder[_C]] = deque()
        """Whose requests were put off; the first one's turn comes first."""
        self._holders: dict[tuple[Kind, str], Holder[_C]] = {}
        self._of: dict[_C, Holder[_C]] = {}
        self._count = dict.fromkeys(Kind, 0)
        self.held = 0
        """Bytes of requests in memory, of all connections."""

    def __len__(self) -> int:
        return len(self._of)

    def connections(self) -> list[_C]:
        return list(self._of)

    def makes_room(self, address: str, *, local: bool) -> bool:
        """Return whether a new connection gets a place, taken from another one where it must be."""
        limits = self._limits
        if local:
            holder = self._holders.get((Kind.LOCAL, ""))
            if holder is not None and len(holder.connections) >= limits.local:
                self._evict(holder)
            return True
        holder = self._holders.get((Kind.ADDRESS, address))
        mine = len(holder.connections) if holder is not None else 0
        if holder is not None and mine >= limits.per_address:
            idle = holder.longest_idle()
            settled = idle is not None and self._time() - idle.since >= SETTLED_SECONDS
            if idle is None or not (idle.half_closed or (settled and not idle.busy)):
                return False
            self._evict(holder)
            return True
        if self._count[Kind.ADDRESS] >= limits.unproven:
            most = self._most(Kind.ADDRESS)
            if len(most.connections) <= mine:
                return False
            self._evict(most)
        return True

    def add(self, connection: _C, address: str, *, local: bool) -> None:
        self._put(connection, (Kind.LOCAL, "") if local else (Kind.ADDRESS, address), 0)

    def attribute(self, connection: _C, uid: str) -> None:
        """Count a connection against a pod from now on; those of the node stay the node's."""
        holder = self._of.get(connection)
        if holder is None or holder.kind is Kind.LOCAL:
            return
        if holder.kind is Kind.POD and holder.name == uid:
            return
        held = self._take(connection)
        holder = self._put(connection, (Kind.POD, uid), held)
        if len(holder.connections) > self._limits.per_pod:
            self._evict(holder, but=connection)
        elif self._count[Kind.POD] > self._limits.connections:
            self._evict(self._most(Kind.POD), but=connection)

    def remove(self, connection: _C) -> None:
        if connection in self._of:
            self._take(connection)

    def hold(self, connection: _C, held: int) -> bool:
        """Take note that a connection's requests take `held` bytes; return whether they may."""
        holder = self._of.get(connection)
        if holder is None:
            return False
        more = held - holder.connections[connection]
        holder.connections[connection] = held
        holder.held += more
        self.held += more
        if more <= 0:
            return True
        limits = self._limits
        own = limits.held_per_address if holder.kind is Kind.ADDRESS else limits.held_per_pod
        if holder.held > own:
            return False
        while self.held > limits.held_bytes:
            most = max(self._holders.values(), key=lambda each: each.held)
            largest = max(most.connections, key=most.connections.__getitem__)
            if most is holder:
                return False
            self._take(largest)
            largest.evict()
        return True

    def may_read(self, connection: _C) -> bool:
        """Return whether a new connection may be read now; else `begin_now` is called later."""
        holder = self._of.get(connection)
        if holder is None or holder.kind is not Kind.ADDRESS:
            return True
        return len(holder.connections) <= READ_AT_ONCE or self.may_begin(connection)

    def may_begin(self, connection: _C) -> bool:
        """Return whether a request may be begun now; else `begin_now` is called in a later turn.

        Without this, all of the hundreds of requests that one pod has under way are decided in one
        turn, and everybody else waits for its end.
        """
        holder = self._of.get(connection)
        if holder is None:
            return True
        if not self._turning:
            self._turning = True
            self._soon(self._turn)
        if not self._waiting and self._begun < BEGUN_AT_ONCE:
            self._begun += 1
            return True
        if not holder.put_off:
            self._waiting.append(holder)
        holder.put_off.append(connection)
        return False

    def _turn(self) -> None:
        """Begin what was put off, as much as one turn has room for."""
        self._begun = 0
        while self._waiting and self._begun < BEGUN_AT_ONCE:
            self._begun += 1
            holder = self._waiting.popleft()
            holder.put_off.popleft().begin_now()
            if holder.put_off:
                self._waiting.append(holder)
        self._turning = self._begun > 0
        if self._turning:
            self._soon(self._turn)

    def _most(self, kind: Kind) -> Holder[_C]:
        found = (each for each in self._holders.values() if each.kind is kind)
        return max(found, key=lambda each: len(each.connections))

    def _evict(self, holder: Holder[_C], but: _C | None = None) -> None:
        """Take the place of a connection, which is counted no more, and close it."""
        found = holder.longest_idle(but)
        if found is not None:
            self._take(found)
            found.evict()

    def _put(self, connection: _C, key: tuple[Kind, str], held: int) -> Holder[_C]:
        holder = self._holders.get(key)
        if holder is None:
            holder = self._holders[key] = Holder(*key)
        holder.connections[connection] = held
        holder.held += held
        self.held += held
        self._count[holder.kind] += 1
        self._of[connection] = holder
        return holder

    def _take(self, connection: _C) -> int:
        """Take a connection from its holder; return the bytes that it holds."""
        holder = self._of.pop(connection)
        held = holder.connections.pop(connection)
        holder.held -= held
        self.held -= held
        self._count[holder.kind] -= 1
        if not holder.connections:
            del self._holders[holder.kind, holder.name]
        return held


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
            readers=Readers(self._loop),
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
        self._draining = self._paused = False
        self._empty = asyncio.Event()
        self._empty.set()

    def accept_from(self, listening: socket.socket) -> None:
        """Accept the connections of a socket that listens, beside those of the others."""
        listening.setblocking(False)
        self._sockets.append(listening)
        self._port = self._port or listening.getsockname()[1]
        self._loop.add_reader(listening, self._accept, listening)

    @property
    def serving(self) -> bool:
        return bool(self._sockets) and not self._draining

    @property
    def port(self) -> int:
        """The port of the first socket."""
        return self._port

    def connections(self) -> int:
        return len(self._pool)

    def held_bytes(self) -> int:
        """Return the memory that requests take: those arriving, under way and waiting."""
        return self._pool.held

    @property
    def keep_alive(self) -> bool:
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
        await self._empty.wait()

    def pause(self) -> None:
        """Accept no more until `resume` or `drain`; close each behind its next answer."""
        self._draining = self._paused = True
        self._context.keep_alive = False
        for each in self._sockets:
            self._loop.remove_reader(each)

    def resume(self) -> None:
        """Accept again; each connection is closed behind its next answer still."""
        self._paused = False
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)

    async def drain(self, seconds: float | None = None, *, grace: float = 1.0) -> None:
        """Accept who waits, then no more; close each as `pause` does, all after so many seconds.

        None: after the idle limit; then requests under way have `grace` seconds. For a hand-over:
        no request is lost, because a kept connection is told `Connection: close` before it is
        closed, and an idle one keeps its time.
        """
        self.pause()
        for each in self._sockets:
            # What the kernel has accepted is reset with the socket where no other agent has it.
            for _ in range(MOST_ACCEPTED_LAST // ACCEPTED_AT_ONCE):
                if not self._accept(each):
                    break
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
        self._context.readers.close()

    def _stop_accepting(self) -> None:
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()

    def _accept(self, listening: socket.socket) -> bool:
        """Accept some connections; return whether more may wait."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                self._rest(listening, error)
                return False
            accepted.setblocking(False)
            address, port = peer[:2]
            own = accepted.getsockname()[0]
            if self._tls is not None and self._handshakes.take(address, self._loop.time()) > 0:
                accepted.close()
                continue
            caller = Caller(address, port, own=own)
            connection = self.connect(caller, local=self._is_local(address, own))
            if connection is None:
                if self._tls is None:
                    _refuse(accepted)
                accepted.close()
            else:
                self._attach(connection, accepted)
        return True

    def _attach(self, connection: Connection, accepted: socket.socket) -> None:
        if self._tls is None:
            SocketTransport(self._context, accepted, connection).begin()
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

    def _rest(self, listening: socket.socket, error: OSError) -> None:
        """Accept nothing for a moment: there is no descriptor or memory for a connection."""
        _log.error("no connection can be accepted for a moment: %s", error)
        self._loop.remove_reader(listening)
        self._loop.call_later(_REST, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets and not self._paused:
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


def _refuse(accepted: socket.socket) -> None:
    """Say that there is no place; closed with a request unread, TCP would take the answer back."""
    with suppress(OSError):
        accepted.send(_FULL)
        accepted.shutdown(socket.SHUT_WR)
        accepted.recv(READ_BYTES)

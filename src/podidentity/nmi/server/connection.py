"""HTTP/1.1 on a socket, as far as metadata clients speak it, and no further.

A protocol with llhttp's parser over asyncio's event loop. We own the connection because a pod is
proved for each connection, once a second, because most requests are answered without a task, and
because all that a client can send or hold is bounded here: bytes, seconds, requests ahead of their
answers.

One request is answered at a time. While one is under way nothing more is parsed: what arrives
meanwhile is kept as it came, at most one read of it, and then the socket is not read at all. So a
client that sends requests ahead is slowed down by TCP, and costs what any other client costs.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import select
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any, cast

from podidentity.nmi.server.messages import (
    LATER,
    LONGEST_REMEMBERED,
    Caller,
    Handler,
    KnownAnswer,
    Limits,
    Memo,
    Request,
    RequestParser,
    Response,
    Unacceptable,
    held_bytes,
    render,
    render_head,
)
from podidentity.wire.imds import render_error

if TYPE_CHECKING:
    from podidentity.nmi.server.listener import ConnectionPool

READ_BYTES = 16 << 10
"""Of one read; all that waits in memory behind a request under way."""
WRITE_BYTES = 64 << 10
"""Of a large answer that are given to the transport at a time."""
READ_IN_ONE_TURN = 64
"""Connections that are read in one turn of the event loop; who is not among them comes next."""
PIECES = 32
"""Pieces, up to a blank line each, that are parsed in one turn of the event loop: what one client
sends in one packet must not keep the others waiting."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SINK = bytearray(WRITE_BYTES)
_NOTHING = struct.pack("i", 0)
_RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: a reset instead of the wait for a client that takes nothing."""

_log = logging.getLogger("podidentity.http")


class Timeout:
    """Calls `late` once, when the time that was set last is over.

    A timer of the event loop for each request would be most of a request's work. So one timer is
    kept: if it fires too early, because the time was moved meanwhile, it is set again.
    """

    __slots__ = ("_due", "_fires", "_loop", "_timer", "late", "since")

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[], None]) -> None:
        self._loop = loop
        self.late = late
        self._due = inf
        self._timer: asyncio.TimerHandle | None = None
        self._fires = inf
        """When the timer fires."""
        self.since = loop.time()
        """When it was last set."""

    def set(self, seconds: float) -> None:
        """Be late in so many seconds, and at no time that was set before."""
        self.since = now = self._loop.time()
        due = self._due = now + seconds
        if self._fires > due:
            if self._timer is not None:
                self._timer.cancel()
            self._begin(due)

    def suspend(self) -> None:
        """Be never late until it is set again."""
        self._due = inf

    def cancel(self) -> None:
        """Be never late, and let the event loop forget the timer."""
        self._due = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._fires = None, inf

    def _begin(self, due: float) -> None:
        self._timer, self._fires = self._loop.call_at(due, self._fired), due

    def _fired(self) -> None:
        self._timer, self._fires = None, inf
        due = self._due
        if due <= self._loop.time():
            self._due = inf
            self.late()
        elif due < inf:
            self._begin(due)


class Readers:
    """Calls a socket's callback when there is something to read on it: one more epoll.

    For the event loop all these sockets are one. Its own way from the selector to a callback, by a
    list, a key and a handle, takes 2 to 3 µs: a tenth of the CPU of a remembered request.

    All that are ready are read before anything is written to them. Answers that leave one after the
    other find more of their readers awake: to wake one up costs the kernel some microseconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self.later: list[SocketTransport] | None = None
        """Send when all are read; None while none is being read, or one alone."""
        loop.add_reader(self._epoll, self._ready)

    def add(self, found: socket.socket, readable: Callable[[], None]) -> None:
        """Call `readable`, which raises nothing, whenever there is something to read."""
        descriptor = found.fileno()
        self._epoll.register(descriptor, select.EPOLLIN)
        self._callbacks[descriptor] = readable

    def remove(self, found: socket.socket) -> None:
        """Call it no more; before the socket is closed."""
        descriptor = found.fileno()
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Call nobody any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll)
            self._epoll.close()
        self._callbacks.clear()

    def _ready(self) -> None:
        callbacks, found = self._callbacks, self._epoll.poll(0, READ_IN_ONE_TURN)
        later: list[SocketTransport] = []
        self.later = later if len(found) > 1 else None
        for descriptor, _ in found:
            # An earlier one in this turn may have closed it.
            readable = callbacks.get(descriptor)
            if readable is not None:
                readable()
        self.later = None
        for transport in later:
            transport.send_now()


@dataclass(slots=True, kw_only=True)
class ServerContext:
    """What the connections of a listener share."""

    handler: Handler
    memo: Memo | None
    limits: Limits
    pool: ConnectionPool[Connection]
    refused: Callable[[str, str], None]
    """Takes the address and the reason of a connection that is closed for what it did or holds."""
    gone: Callable[[], None]
    """Called after each connection that has ended."""
    keep_alive: bool = True
    """Whether connections are kept after an answer; may change at any time."""
    loop: asyncio.AbstractEventLoop
    readers: Readers
    buffer: memoryview
    """Where what TLS has decrypted is put; taken out before the next read."""


class SocketTransport(asyncio.Transport):
    """The transport of a plain connection, as far as `Connection` uses one.

    asyncio's own costs a new connection a task, a future and three turns of the event loop. Here it
    is read in the turn in which it was accepted: the request is mostly there, and a connection that
    ends with its first answer is never registered with the selector.
    """

    __slots__ = (
        "_closing",
        "_connection",
        "_half_closed",
        "_loop",
        "_paused",
        "_readers",
        "_reads",
        "_socket",
        "_unsent",
    )

    def __init__(
        self, context: ServerContext, accepted: socket.socket, connection: Connection
    ) -> None:
        """`accepted` does not block."""
        self._loop = context.loop
        self._readers = context.readers
        self._socket = accepted
        self._connection = connection
        self._reads = False
        """Whether it is registered for reading."""
        self._closing = self._half_closed = self._paused = False
        self._unsent = b""

    def begin(self) -> None:
        self._connection.attached(self)
        if self._connection.may_be_read():
            self.read()

    def read(self) -> None:
        """Read what has come, and go on with that."""
        if not self._closing:
            self._readable()
        if not (self._paused or self._closing or self._connection.waits_for_proof):
            self._connection.await_request()
            self.resume_reading()

    def has_unread(self) -> bool:
        """Whether bytes have come that nobody has read."""
        return fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, _NOTHING) != _NOTHING

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's
        """Return the socket under that name."""
        return self._socket if name == "socket" else default

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or keep what the kernel does not take."""
        if self._unsent:
            self._unsent += data
        elif not self._closing and not self._half_closed:
            if (later := self._readers.later) is not None:
                self._unsent = bytes(data)
                later.append(self)
            elif left := self._sent(data):
                self._keep(left)

    def write_eof(self) -> None:
        """End the sending half behind what was sent."""
        self._half_closed = True
        if not self._unsent:
            self._shut_down()

    def close(self) -> None:
        """Close behind what was sent, and read no more."""
        if self._closing:
            return
        self._closing = True
        self.pause_reading()
        if not self._unsent:
            self._end(None)

    def abort(self) -> None:
        self._lose(None)

    def pause_reading(self) -> None:
        self._paused = True
        if self._reads:
            self._reads = False
            self._readers.remove(self._socket)

    def resume_reading(self) -> None:
        """Read from now on."""
        self._paused = False
        if not self._reads and not self._closing:
            self._reads = True
            self._readers.add(self._socket, self._readable)

    def _readable(self) -> None:
        if self._connection.ends:
            self._throw_away()
            return
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if not data:
            if self._connection.eof_received():
                self.pause_reading()
            else:
                self.close()
            return
        try:
            self._connection.received(data)
        except Exception:  # noqa: BLE001 - a defect costs one connection
            _log.exception("a connection could not be read; please report this")
            self.abort()

    def _throw_away(self) -> None:
        """Read what nobody will look at: the kernel drops it without copying it (tcp(7))."""
        try:
            count = self._socket.recv_into(_SINK, 0, socket.MSG_TRUNC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if not count:
            self.close()

    def send_now(self) -> None:
        """Send what was written while others were read, unless the connection ended since."""
        data, self._unsent = self._unsent, b""
        left = self._sent(data) if data else b""
        if left:
            self._keep(left)
        else:
            self._all_sent()

    def _keep(self, left: bytes) -> None:
        """Keep what the kernel does not take."""
        self._unsent = left
        self._loop.add_writer(self._socket, self._writable)
        self._connection.pause_writing()

    def _writable(self) -> None:
        self._unsent = self._sent(self._unsent)
        if self._unsent or self._socket.fileno() < 0:
            return
        self._loop.remove_writer(self._socket)
        self._all_sent()
        if not self._closing:
            self._connection.resume_writing()

    def _all_sent(self) -> None:
        """Do what waited for that."""
        if self._socket.fileno() < 0:
            return
        if self._closing:
            self._end(None)
        elif self._half_closed:
            self._shut_down()

    def _sent(self, data: bytes | bytearray | memoryview) -> bytes:
        """Send what the kernel takes; return what is left."""
        try:
            count = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError as error:
            self._lose(error)
            return b""
        return b"" if count == len(data) else bytes(data[count:])

    def _shut_down(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _lose(self, error: OSError | None) -> None:
        if self._socket.fileno() < 0:
            return
        self._closing = True
        self.pause_reading()
        if self._unsent:
            self._unsent = b""
            self._loop.remove_writer(self._socket)
        self._end(error)

    def _end(self, error: OSError | None) -> None:
        self._socket.close()
        # In a turn of its own: its caller is in the midst of something.
        self._loop.call_soon(self._connection.connection_lost, error)


def _nobody() -> None:
    """Take the place of a callback of what has ended."""


class Sender:
    """The sending half of a connection, and its end."""

    __slots__ = ("_limits", "_lingering", "_timeout", "_unsent", "closing", "transport", "writable")

    def __init__(self, limits: Limits, timeout: Timeout) -> None:
        self._limits = limits
        self._timeout = timeout
        self.transport: asyncio.Transport | None = None
        """None before asyncio has made it: a connection may be evicted that early."""
        self.writable = True
        """Whether the client takes what is sent."""
        self.closing = False
        """Whether nothing more will be answered."""
        self._unsent = memoryview(b"")
        """Of a large answer."""
        self._lingering = False

    @property
    def ends_at_once(self) -> bool:
        """Whether `close` would wait neither for the client to read nor for what it still sends."""
        transport = self.transport
        if transport is None or self.closing or transport.get_write_buffer_size() or self._unsent:
            return False
        return not self.has_unread

    @property
    def has_unread(self) -> bool:
        """Whether the client has sent what nobody has read yet; of TLS that is not known."""
        transport = self.transport
        return (
            isinstance(transport, SocketTransport)
            and not transport.is_closing()
            and transport.has_unread()
        )

    def send(self, head: bytes, body: bytes = b"") -> None:
        """Send an answer; a large one bit by bit, so that it is in memory once for all clients."""
        if self.transport is None:
            return
        if len(body) <= WRITE_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self._unsent = memoryview(body)
            self._send_on()

    def paused(self) -> None:
        self.writable = False
        self._timeout.set(self._limits.write_seconds)

    def resumed(self) -> bool:
        """Take note that the client takes more; return whether it has all that was sent."""
        self.writable = True
        self._send_on()
        return self.writable

    def close(self, *, linger: bool = False, reads: bool = True) -> None:
        """Close behind what was sent.

        `linger`: read on for a while and throw away. Closed with bytes that nobody has read, TCP
        would take the last answer back. `reads` False: leave them to the kernel meanwhile, which
        stops the client, and costs nothing.
        """
        self.closing = True
        transport, seconds = self.transport, self._limits.close_seconds
        if transport is None or self._unsent or self._lingering or transport.is_closing():
            return
        # TLS has no half-closed connection, and reads on by itself until the client ends it.
        linger = (linger or self.has_unread) and transport.can_write_eof()
        self._lingering = linger
        self._timeout.cancel()
        if linger:
            transport.write_eof()
            if reads:
                transport.resume_reading()
            else:
                transport.pause_reading()
        if linger or transport.get_write_buffer_size():
            self._timeout.set(seconds)
        if not linger:
            # The kernel's own part of the answer, too, ends in time.
            milliseconds = int(seconds * 1000)
            self._set_option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            transport.close()

    def abort(self) -> None:
        """Close at once, whatever the client has not taken yet."""
        self.closing = True
        if self.transport is not None:
            self._set_option(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def _send_on(self) -> None:
        while self._unsent and self.writable and self.transport is not None:
            part, self._unsent = self._unsent[:WRITE_BYTES], self._unsent[WRITE_BYTES:]
            self.transport.write(part)

    def _set_option(self, level: int, option: int, value: int | bytes) -> None:
        if self.transport is None:
            return
        found: socket.socket | None = self.transport.get_extra_info("socket")
        if found is not None:
            with suppress(OSError):
                found.setsockopt(level, option, value)


class Connection(asyncio.BufferedProtocol):
    """One connection: requests in, answers out, in their order.

    A request whose bytes the context's memo knows is answered without a parser and a task, and in
    the turn of the event loop in which it came unless the connection must be proved before. Any
    other is answered by a task.
    """

    def __init__(self, context: ServerContext, caller: Caller, *, local: bool = False) -> None:
        """`local`: it comes from the node itself, whose connections need no proof to be kept."""
        self._context = context
        self._caller = caller
        caller.attributed = self._attributed
        self._attributable = local
        """Whether it is known whose connection it is."""
        self._timeout = Timeout(context.loop, self._late)
        self._sender = Sender(context.limits, self._timeout)
        self._waiting: list[Request] = []
        """Parsed and not begun; a piece may hold the end of a body and a whole request."""
        self._task: asyncio.Task[None] | None = None
        self._request: Request | None = None
        """The request under way, which the task answers."""
        self._put_off = False
        """Whether it, or the first read, waits for a later turn of the event loop."""
        self._has_turn = False
        """Whether what is read just now may be begun at once."""
        self._asked = b""
        """A request that the memo will answer if the connection is proved to be the pod's that it
        thinks. Not counted: it is short, and only connections that are not proved have one."""
        self._parser: RequestParser | None = None
        """None before something must be parsed."""
        self._failure: Unacceptable | None = None
        """To be answered after the request under way."""
        self._rest = b""
        """Not parsed yet; while there is any the socket is not read."""
        self._held = 0
        """Bytes of requests that the pool knows of."""
        self._reading = True
        self._kept = False
        """Whether a request has been answered on it."""
        self._last = False
        """Whether the answer under way is the last one."""
        self.half_closed = False
        """Whether the client has ended its sending half, and may still wait for an answer."""
        self._timed = False
        """Whether the timeout is set for the end of the request that is arriving."""
        self._postponed = False
        """Whether the rest will be parsed in a later turn of the event loop."""

    # What the pool asks.

    @property
    def busy(self) -> bool:
        return self._task is not None or self._put_off or self._asked != b""

    @property
    def ends(self) -> bool:
        """Whether nothing more will be answered."""
        return self._sender.closing

    @property
    def waits_for_proof(self) -> bool:
        return self._asked != b""

    @property
    def since(self) -> float:
        return self._timeout.since

    def evict(self) -> None:
        """Close it at once, since it counts no more; an idle client sees an orderly end."""
        self._context.refused(self._caller.address, "others needed its place")
        if self._sender.ends_at_once and not self.busy:
            self._sender.close()
        else:
            self._sender.abort()

    # What its transport calls.

    def attached(self, transport: asyncio.Transport) -> None:
        """Take a transport; it may have been evicted before that."""
        self._sender.transport = transport
        if self._sender.closing:
            transport.abort()

    def may_be_read(self) -> bool:
        """Return whether it may be read now; else it reads when its turn comes."""
        self._put_off = not self._context.pool.may_read(self)
        return not self._put_off

    def await_request(self) -> None:
        """Give the client its time for a first request, unless one has come."""
        if not (self._must_wait or self._kept or self._timed or self._sender.closing):
            self._timeout.set(self._head_seconds)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with a transport of asyncio's, which has read nothing yet."""
        made = cast("asyncio.Transport", transport)
        # Its TLS pauses from the high mark on, and at 0 whatever is in the buffer.
        made.set_write_buffer_limits(high=1, low=0)
        self.attached(made)
        self.await_request()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        """Return where to read into."""
        return self._context.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received(bytes(self._context.buffer[:nbytes]))

    def received(self, data: bytes) -> None:
        """Answer or parse what came, or keep it while a request is under way."""
        if self._sender.closing:
            return
        if self._must_wait:
            self._keep(data)
        elif (self._parser is not None and self._parser.size) or not self._remembered(data):
            self._parse(data)

    def eof_received(self) -> bool:
        """Return True to answer the request under way; it is the last one."""
        transport = self._sender.transport
        if self.busy and transport is not None and transport.can_write_eof():
            self._last = self.half_closed = True
            # The client may have left altogether, which looks the same.
            self._timeout.set(self._context.limits.head_seconds)
            return True
        self._sender.closing = True
        self._timeout.set(self._context.limits.close_seconds)
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """End the work for the client; a shared fetch goes on without it."""
        self._sender.closing = True
        self._timeout.cancel()
        self._forget()
        self._caller.attributed = None
        if self._task is not None:
            self._task.cancel()
        self._context.pool.remove(self)
        self._context.gone()
        # Without a cycle no collector is needed.
        self._put_off = False
        self._asked, self._parser, self._sender.transport = b"", None, None
        self._timeout.late = _nobody

    def pause_writing(self) -> None:
        """The client does not take its answers."""
        self._sender.paused()

    def resume_writing(self) -> None:
        """The client takes them again."""
        if not self._sender.resumed():
            return
        if self._sender.closing:
            self._end()
        elif not self.busy:
            self._wait()
            self._go_on()

    # Requests.

    @property
    def _must_wait(self) -> bool:
        """Whether nothing may be parsed now."""
        return (
            self._task is not None
            or self._put_off
            or self._asked != b""
            or self._postponed
            or not self._sender.writable
        )

    @property
    def _arriving(self) -> int:
        """Bytes of a request of which a part has come."""
        return self._parser.size if self._parser is not None else 0

    def _remembered(self, data: bytes) -> bool:
        """Answer what the memo knows, now or when the connection is proved; return whether so."""
        memo = self._context.memo
        if memo is None:
            return False
        try:
            known = memo.by_bytes(self._caller, data, self._proved)
        except Exception:  # noqa: BLE001 - the handler still answers
            _log.exception("a request could not be answered from the memo; please report this")
            return False
        if known is None:
            return False
        if known is LATER:
            self._asked = data
            self._timeout.set(self._context.limits.head_seconds)
        else:
            self._give(known)
        return True

    def _proved(self, known: KnownAnswer | None) -> None:
        """Answer what waited for the proof: as the memo says, or by the handler."""
        asked, self._asked = self._asked, b""
        if not asked:
            return  # the connection has ended meanwhile
        if known is not None:
            self._give(known)
        else:
            self._parse(asked)
        if not self._sender.closing:
            if self._reading and self._sender.transport is not None:
                self._sender.transport.resume_reading()
            self._go_on()

    def _give(self, known: KnownAnswer) -> None:
        stays = known.keep_alive and self._stays
        self._finish(known.kept if stays else known.last, stays=stays)

    def _parse(self, data: bytes) -> None:
        """Parse and answer until nothing is left, or something must be waited for."""
        if self._parser is None:
            self._parser = RequestParser(self._caller, self._context.limits, self._waiting.append)
        whole = b"" if self._parser.size or len(data) > LONGEST_REMEMBERED else data
        try:
            data = self._parse_pieces(data, whole)
        except Unacceptable as error:
            self._failure, data = error, b""
            self._begin_waiting()
        if self._sender.closing:
            return
        if data:
            self._keep(data)
        elif self._failure is not None and not self._must_wait:
            self._refuse(self._failure.status, str(self._failure))
        elif self._parser.size:
            self._await_the_rest()
        elif self._held:
            self._count()

    def _parse_pieces(self, data: bytes, whole: bytes) -> bytes:
        """Return what is left. `whole` may be all of one request: it is if nothing else comes."""
        assert self._parser is not None  # noqa: S101 - made by _parse
        for _ in range(PIECES):
            data = self._parser.feed(data)
            if self._waiting:
                if whole and not data and not self._parser.size and len(self._waiting) == 1:
                    self._waiting[0].raw = whole
                self._begin_waiting()
            whole = b""
            if not data or self._sender.closing or self._must_wait:
                return data
        self._postponed = True
        self._context.loop.call_soon(self._resume_parsing)
        return data

    def _begin_waiting(self) -> None:
        """Begin with what was parsed, one request after the other."""
        while self._waiting and not self._sender.closing and not self._must_wait:
            self._timed = False
            self._begin(self._waiting.pop(0))

    def _await_the_rest(self) -> None:
        """Give the client its time for the end of a request."""
        if not (self._timed or self._must_wait):
            self._timed = True
            self._timeout.set(self._head_seconds)
        if self._parser is not None and self._parser.awaits_continue:
            self._sender.send(_CONTINUE)
        self._count()

    def _keep(self, data: bytes) -> None:
        """Keep what cannot be parsed yet, and read no more."""
        self._rest += data
        if self._reading and self._sender.transport is not None:
            self._reading = False
            self._sender.transport.pause_reading()
        self._count()

    def _resume_parsing(self) -> None:
        self._postponed = False
        self._go_on()

    def _go_on(self) -> None:
        """Go on with what came behind the last request."""
        self._begin_waiting()
        if self._sender.closing or self._must_wait:
            return
        if self._failure is not None:
            self._refuse(self._failure.status, str(self._failure))
        elif self._rest:
            data, self._rest = self._rest, b""
            self._parse(data)
        if not self._rest:
            self._read_on()

    def _read_on(self) -> None:
        if not self._reading and self._sender.transport is not None:
            self._reading = True
            self._sender.transport.resume_reading()

    def _begin(self, request: Request) -> None:
        """Have the handler answer a request."""
        self._request = request
        if not self._count():
            return
        if not self.half_closed:
            self._timeout.suspend()
        if self._has_turn or self._context.pool.may_begin(self):
            self._task = self._context.loop.create_task(self._serve(request))
        else:
            self._put_off = True

    def begin_now(self) -> None:
        """Do what was put off: have the handler answer a request, or read for the first time."""
        if not self._put_off:
            return
        self._put_off = False
        if self._request is not None:
            self._task = self._context.loop.create_task(self._serve(self._request))
        elif isinstance(self._sender.transport, SocketTransport):
            self._has_turn = True
            self._sender.transport.read()
            self._has_turn = False

    async def _serve(self, request: Request) -> None:
        try:
            response = await self._context.handler(request)
            stays = request.keep_alive and self._stays
            head = render_head(response, stays=stays)
        except Exception:  # noqa: BLE001 - a defect costs one answer, not the agent
            _log.exception("a request could not be answered; please report this")
            body = render_error("server_error", "The agent failed to answer.")
            response = Response(HTTPStatus.INTERNAL_SERVER_ERROR, body)
            stays = request.keep_alive and self._stays
            head = render_head(response, stays=stays)
        self._task = self._request = None
        self._finish(head, b"" if request.method == "HEAD" else response.body, stays=stays)
        if not self._sender.closing:
            self._count()
            self._go_on()

    @property
    def _stays(self) -> bool:
        """Whether the connection may be kept after the answer."""
        return self._context.keep_alive and not self._last and not self._sender.closing

    def _finish(self, head: bytes, body: bytes = b"", *, stays: bool) -> None:
        """Send an answer; then wait for the next request, or close."""
        self._sender.send(head, body)
        if not stays:
            self._end()
        elif self._sender.writable:
            self._wait()

    def _wait(self) -> None:
        """Be idle from now on; half a request may have come already."""
        self._kept = True
        self._timed = self._parser is not None and self._parser.size > 0
        self._timeout.set(self._head_seconds if self._timed else self._idle_seconds)

    def close_if_kept(self) -> None:
        """Close it if it was kept after an answer and no request is arriving or under way.

        What has come and was not read yet may be a request: it is answered before.
        """
        arriving = self.busy or self._arriving or self._rest or self._sender.has_unread
        if self._kept and not arriving and not self._sender.closing:
            self._sender.close()

    def close_when_idle(self) -> None:
        """Close it after the answer under way, or to what was not read yet; else at once."""
        if self.busy or self._sender.has_unread:
            self._last = True
        else:
            self._sender.close()

    def abort(self) -> None:
        self._sender.abort()

    def _end(self) -> None:
        """Close behind the last answer."""
        linger = bool(self._rest or self._waiting or not self._reading)
        self._forget()
        self._sender.close(linger=linger)
        if linger:
            self._read_on()

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Answer what is no request, and close: where the next one begins is not known."""
        self._context.refused(self._caller.address, why)
        full = status is HTTPStatus.SERVICE_UNAVAILABLE
        body = render_error("service_unavailable" if full else "invalid_request", why)
        self._forget()
        self._parser = None
        self._context.pool.hold(self, 0)
        self._sender.send(render(Response(status, body), stays=False))
        # No more is read of a client that sent too much: that would be most of the work with it.
        self._sender.close(linger=True, reads=not full)

    # Limits.

    @property
    def _head_seconds(self) -> float:
        limits = self._context.limits
        return limits.head_seconds if self._attributable else limits.unproven_seconds

    @property
    def _idle_seconds(self) -> float:
        limits = self._context.limits
        return limits.idle_seconds if self._attributable else limits.unproven_seconds

    def _attributed(self, uid: str) -> None:
        """Count against the pod `uid` from now on."""
        self._attributable = True
        self._context.pool.attribute(self, uid)

    def _count(self) -> bool:
        """Tell the pool what is held in memory; return whether that may be, and refuse if not."""
        under_way = held_bytes(self._request) if self._request is not None else 0
        waiting = sum(map(held_bytes, self._waiting))
        arriving = self._parser.held_bytes if self._parser is not None else 0
        held = len(self._rest) + arriving + under_way + waiting
        if held == self._held:
            return True
        self._held = held
        if self._context.pool.hold(self, held):
            return True
        why = "too much is waiting from this client"
        if self.busy:
            # The answer under way is the last one.
            self._context.refused(self._caller.address, why)
            self._forget()
            self._last = True
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, why)
        return False

    def _forget(self) -> None:
        """Drop what came and will not be answered."""
        self._waiting.clear()
        self._rest, self._failure = b"", None

    def _late(self) -> None:
        if self._sender.closing or not self._sender.writable:
            self._sender.abort()
        elif self._asked:
            # `net` answers or is given up long before. Nobody else would end the connection.
            self._asked = b""
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the connection was not proved in time")
        elif self._arriving:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
        else:
            self._sender.close()

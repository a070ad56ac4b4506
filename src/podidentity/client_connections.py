"""Connections to one HTTP server that many small requests go over: a transport for httpx2.

A controller writes hundreds of objects a second, and with httpx2's own transport (httpcore2, h11)
half of its processor time went there: that one looks at all its connections twice a request, and
closes those above twenty that nobody uses at the moment, to make them again for the next requests.
Here a request takes the connection that was used last, leaves in one piece, and its answer is
parsed by llhttp (httptools). Many at once do not open a connection each. All else stays httpx2's:
credentials, decoding, how long to wait, its errors.

HTTP/1.1 without pipelining (RFC 9112). A connection on which anything was wrong is closed.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

import httptools
import httpx2

MOST = 100
"""Requests at once; further ones wait."""
OPENING = 4
"""Connections that are opened at once; further requests wait for one of them, or for one that is
free sooner. With TLS, to open one costs both sides as much as several requests."""
IDLE = 5.0
"""Seconds after which a connection that nobody uses is closed: before the server does that."""
_MOST_KEPT = 1 << 18
"""Bytes of an answer that nobody has taken yet from which on no more are read."""
_MOST_BARE = 1 << 17
"""Bytes without a body among them, such as headers, that a server may send on end."""
_FINAL = 200
_FRAMES = (b"content-length", b"transfer-encoding")

SocketOption = tuple[int, int, int]


class ClientConnections(httpx2.AsyncBaseTransport):
    """The connections to one server."""

    def __init__(
        self,
        server: str,
        tls: ssl.SSLContext,
        options: Sequence[SocketOption] = (),
        *,
        most: int = MOST,
        idle: float = IDLE,
    ) -> None:
        """`server` is a URL; `options` are set on each socket."""
        url = httpx2.URL(server)
        self._origin = (url.scheme, url.host, url.port)
        self._tls = tls if url.scheme == "https" else None
        if self._tls is not None:
            self._tls.set_alpn_protocols(["http/1.1"])
        self._options = options
        self._turns = asyncio.Semaphore(most)
        self._opening = asyncio.Semaphore(OPENING)
        self._lifetime = idle
        self._all: set[_Connection] = set()
        self._idle: list[tuple[_Connection, float]] = []
        """With the time since when; the one used last comes last."""
        self._sweep: asyncio.TimerHandle | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; return its answer. Raise httpx2.TransportError."""
        data = _rendered(request, self._origin)
        limits = request.extensions.get("timeout", {})
        await self._turn(limits.get("pool"))
        try:
            connection = self._reusable() or await self._next(limits.get("connect"))
        except BaseException:
            self._turns.release()
            raise
        body = _Body(self, connection, limits.get("read"))
        try:
            connection.send(data)
            await body.begin()
        except BaseException:
            await body.aclose()
            raise
        status, fields = connection.status, connection.fields
        if not connection.done:
            return httpx2.Response(status, headers=fields, stream=body)
        content = b"".join(connection.take())
        await body.aclose()
        return httpx2.Response(status, headers=fields, content=content)

    async def aclose(self) -> None:
        lost = [each.lost for each in self._all]
        for each in list(self._all):
            each.abort()
        if lost:
            await asyncio.wait(lost)
        if self._sweep is not None:
            self._sweep.cancel()

    async def _turn(self, seconds: float | None) -> None:
        if not self._turns.locked():
            await self._turns.acquire()  # at once
            return
        try:
            async with asyncio.timeout(seconds):
                await self._turns.acquire()
        except TimeoutError as error:
            raise httpx2.PoolTimeout("") from error

    def _reusable(self) -> _Connection | None:
        while self._idle:
            connection, _ = self._idle.pop()
            if connection.fresh():
                return connection
            connection.abort()
        return None

    async def _next(self, seconds: float | None) -> _Connection:
        """Return the first connection that is free, or a new one."""
        try:
            async with asyncio.timeout(seconds), self._opening:
                return self._reusable() or await self._connect()
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("") from error
        except OSError as error:
            raise httpx2.ConnectError(str(error)) from error

    async def _connect(self) -> _Connection:
        _, host, port = self._origin
        # One address after the other: asyncio's race of several (happy_eyeballs_delay) leaves the
        # winner open where it is cancelled at that moment.
        _, connection = await asyncio.get_running_loop().create_connection(
            partial(_Connection, self._lost),
            host,
            port or (80 if self._tls is None else 443),
            ssl=self._tls,
        )
        self._all.add(connection)
        for option in self._options:
            connection.socket.setsockopt(*option)
        return connection

    def _lost(self, connection: _Connection) -> None:
        self._all.discard(connection)
        self._idle = [each for each in self._idle if each[0] is not connection]

    def leave(self, connection: _Connection) -> None:
        """Take a connection back of which the answer has been read, or is not wanted."""
        self._turns.release()
        if not connection.reset():
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        self._idle.append((connection, loop.time()))
        if self._sweep is None:
            self._sweep = loop.call_later(self._lifetime, self._close_old)

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = None
        for connection, since in list(self._idle):
            if loop.time() >= since + self._lifetime:
                connection.abort()
            elif self._sweep is None:
                self._sweep = loop.call_at(since + self._lifetime, self._close_old)


class _Body(httpx2.AsyncByteStream):
    """The answer to one request, as it comes."""

    def __init__(
        self, connections: ClientConnections, connection: _Connection, seconds: float | None
    ) -> None:
        self._connections = connections
        self._connection = connection
        self._seconds = seconds
        self._left = False

    async def begin(self) -> None:
        """Return when the head has come."""
        while not self._connection.status:
            await self._connection.news(self._seconds)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            for part in self._connection.take():
                yield part
            if self._connection.done:
                return
            await self._connection.news(self._seconds)

    async def aclose(self) -> None:
        if not self._left:
            self._left = True
            self._connections.leave(self._connection)


class _Connection(asyncio.Protocol):
    """One connection, and the answer that it brings."""

    _transport: asyncio.Transport
    socket: socket.socket

    def __init__(self, closed: Callable[[_Connection], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = closed
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._readable = select.poll()
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._error: httpx2.TransportError | None = None
        self._parts: list[bytes] = []
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        """Of the answer; 0 until its head has come."""
        self.fields: list[tuple[bytes, bytes]] = []
        self.done = False
        """Whether the answer has come whole."""
        self._asked = self._framed = self._stays = False
        self._size = 0
        self._bare = 0
        """Bytes since the last ones of the body, or since the request."""

    # What its user does.

    def fresh(self) -> bool:
        """Whether a request may be sent: nothing has come, which would be the server's farewell."""
        return not self._transport.is_closing() and not self._readable.poll(0)

    def send(self, data: bytes) -> None:
        self._asked = True
        self._transport.write(data)

    async def news(self, seconds: float | None) -> None:
        """Return when more has come; raise httpx2.TransportError if nothing more will."""
        if self._error is not None:
            raise self._error
        waiter = self._waiter = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, _expire, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def take(self) -> list[bytes]:
        """Return what has come of the body."""
        parts, self._parts = self._parts, []
        self._read_on()
        return parts

    def reset(self) -> bool:
        """Whether it may be used for another request; forget the answer."""
        stays = self._stays and not self._transport.is_closing()
        self._read_on()
        self._begin()
        return stays

    def abort(self) -> None:
        self._transport.abort()

    def _read_on(self) -> None:
        """Read again where too much was kept: it is taken, or nobody wants it."""
        if self._size > _MOST_KEPT:
            self._transport.resume_reading()
        self._size = 0

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream
        self._transport = transport
        self.socket = transport.get_extra_info("socket")
        self._readable.register(self.socket, select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self.abort()
            return
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx2.RemoteProtocolError(str(error)))
        except httptools.HttpParserUpgrade:
            self._fail(httpx2.RemoteProtocolError("the server speaks another protocol from now on"))
        if self._bare > _MOST_BARE and not self.done:
            self._fail(httpx2.RemoteProtocolError("the server's headers do not end"))
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed(self)
        self.lost.set_result(None)
        if exc is not None:
            self._fail(httpx2.ReadError(str(exc)))
        elif self.status and not self._framed:
            # The body of such an answer ends with the connection.
            self.done = True
        else:
            self._fail(
                httpx2.RemoteProtocolError("the server disconnected before its answer ended")
            )
        self._wake()

    def _fail(self, error: httpx2.TransportError) -> None:
        if self._error is None:
            self._error = error
        self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the parser tells.

    def on_message_begin(self) -> None:
        if self.done:
            raise httpx2.RemoteProtocolError("more answers than requests")  # the parser stops

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))
        self._framed = self._framed or name.lower() in _FRAMES

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= _FINAL:
            self.status = status
        else:
            self.fields, self._framed = [], False

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._bare = 0
        self._size += len(body)
        if self._size > _MOST_KEPT:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status:
            self.done = True
            self._stays = self._parser.should_keep_alive()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(httpx2.ReadTimeout(""))


def _rendered(request: httpx2.Request, origin: tuple[str, str, int | None]) -> bytes:
    """Return a request as it is sent."""
    url = request.url
    if (url.scheme, url.host, url.port) != origin:
        raise httpx2.UnsupportedProtocol(f"{url.host} is another server")
    if not isinstance(request.stream, httpx2.ByteStream):
        raise httpx2.LocalProtocolError("a body that is not in memory cannot be sent")
    first = b"%s %s HTTP/1.1" % (request.method.encode(), url.raw_path)
    lines = [first, *(b"%s: %s" % field for field in request.headers.raw), b"", b""]
    head = b"\r\n".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1:
        raise httpx2.LocalProtocolError("a header has more than one line")
    return head + request.content

"""HTTP/1.1 on a socket, as far as metadata clients speak it, and no further.

asyncio's Protocol with llhttp's parser: as fast as the fastest server measured, and with the two
things that this agent needs and servers hide: the accepted socket, which is what a caller is
proved by, and the moment at which a client leaves. Everything that a client can send is bounded:
size, time, requests ahead of their answers, connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from podidentity.nmi.http import Handler, Limits, Request, Response, render
from podidentity.nmi.outcomes import Caller
from podidentity.wire.imds_server import render_error

LINGER = 2.0
"""Seconds to read on after a refusal: closed with unread bytes, TCP would take the answer back."""

_log = logging.getLogger("podidentity.http")


class Owner(Protocol):
    """Who counts the connections of a listener."""

    def add(self, connection: Connection) -> bool:
        """Count a connection in; return whether there is room for it."""

    def discard(self, connection: Connection) -> None:
        """Count a connection out."""


class Connection(asyncio.Protocol):
    """One connection: requests in, answers out, in their order."""

    def __init__(self, handler: Handler, limits: Limits, owner: Owner) -> None:
        self._handler = handler
        self._limits = limits
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._caller = Caller("", 0)
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request(self._caller)
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # `_size`: bytes of the head, or body, that is arriving; 0 between two requests.
        self._in_head, self._size, self._head = True, 0, 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._closing = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the first request must come in time."""
        self._transport = cast("asyncio.Transport", transport)
        address, port = transport.get_extra_info("peername")[:2]
        self._caller.address, self._caller.port = address, port
        if self._owner.add(self):
            self._arm(self._limits.head_seconds)
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            self._shut()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._closing:
            return
        if self._in_head:
            if not self._size and self._task is None:
                self._arm(self._limits.head_seconds)
            self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Java's client offers h2c with each request; nothing but HTTP/1.1 is spoken here.
            self._parser = httptools.HttpRequestParser(self)
            rest = data[upgrade.args[0] :]
            if rest:
                self.data_received(rest)
        except httptools.HttpParserError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"not an HTTP/1.1 request ({error})")
        else:
            self._check_head(self._size)

    def eof_received(self) -> bool:
        """The client has left: whatever it waits for, it will not read."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """End whatever still runs for the client; a shared fetch goes on without it."""
        self._closing = True
        self._disarm()
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        self._owner.discard(self)

    def pause_writing(self) -> None:
        """The client does not take its answers."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable.set()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request = Request(self._caller)
        self._head, self._size = 0, max(1, self._size)

    def on_url(self, url: bytes) -> None:
        """Take the target, or the next piece of it."""
        self._head += len(url)
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._head += len(name) + len(value) + len(": \r\n")
        values = self._request.headers.setdefault(name.decode("latin-1").lower(), [])
        values.append(value.decode("latin-1").strip())

    def on_headers_complete(self) -> None:
        """The head is whole: what follows is a body."""
        self._check_head(self._head)
        self._in_head, self._size = False, 0

    def on_body(self, body: bytes) -> None:
        """Throw the body away."""
        self._size += len(body)
        if self._size > self._limits.body_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")

    def on_message_complete(self) -> None:
        """Answer it after those before it."""
        self._in_head, self._size = True, 0
        if self._closing:
            return
        request = self._request
        request.method = self._parser.get_method().decode("latin-1")
        request.keep_alive = (
            self._parser.should_keep_alive()
            and self._parser.get_http_version() == "1.1"
            and request.method != "HEAD"  # its answer would have no body, ours has one
        )
        self._waiting.append(request)
        if len(self._waiting) > self._limits.ahead:
            self._refuse(HTTPStatus.BAD_REQUEST, "too many requests before their answers")
        elif self._task is None:
            self._disarm()
            self._task = self._loop.create_task(self._serve())

    # Answering.

    async def _serve(self) -> None:
        while self._waiting:
            request = self._waiting.popleft()
            response = await self._answer(request)
            stays = request.keep_alive and not self._closing
            self._transport.write(render(response, stays=stays))
            if not stays:
                self._shut()
                break
            if not self._writable.is_set():
                self._arm(self._limits.idle_seconds)
                await self._writable.wait()
        self._task = None
        if not self._closing:
            self._arm(self._limits.idle_seconds if not self._size else self._limits.head_seconds)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except Exception:  # noqa: BLE001 - a defect costs one answer, not the agent
            _log.exception("a request could not be answered; please report this")
            body = render_error("server_error", "The agent failed to answer.")
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, body)

    def finish(self) -> None:
        """Close after the answer under way; at once if there is none."""
        self._closing = True
        if self._task is None:
            self._shut()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()

    def _check_head(self, size: int) -> None:
        if self._in_head and size > self._limits.head_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Answer what is no request, and close: where the next one begins is not known."""
        if self._closing:
            return
        _log.info("connection from %s refused: %s", self._caller.address, why)
        self._closing = True
        self._waiting.clear()
        if self._task is not None:
            self._shut()
            return
        body = render_error("invalid_request", why)
        self._transport.write(render(Response(status, body), stays=False))
        self._transport.write_eof()
        self._arm(LINGER)

    def _shut(self) -> None:
        self._closing = True
        self._disarm()
        self._transport.close()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._task is not None or self._closing:
            self.abort()
        elif self._size:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
        else:
            self._shut()

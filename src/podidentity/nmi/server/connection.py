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

from podidentity.nmi.request.outcome import Caller
from podidentity.nmi.server.alarm import Alarm
from podidentity.nmi.server.messages import (
    LONGEST_REMEMBERED,
    AnswerMemo,
    Handler,
    Limits,
    Request,
    Response,
    render,
)
from podidentity.nmi.server.parser import RequestParser, Unacceptable
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

    def refused(self, connection: Connection, why: str) -> None:
        """Take note of one that sent no request, or too much of one."""


class Connection(asyncio.Protocol):
    """One connection: requests in, answers out, in their order.

    A request whose bytes the memo knows is answered in the turn of the event loop in which they
    came, without being parsed; any other by a task, and the requests behind it wait for that.
    """

    def __init__(self, handler: Handler, memo: AnswerMemo, limits: Limits, owner: Owner) -> None:
        self._handler = handler
        self._memo = memo
        self._limits = limits
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._caller = Caller("", 0)
        self._parser = RequestParser(self._caller, limits, self._take)
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._alarm = Alarm(self._loop, self._late)
        self._timed = True
        """Whether the alarm is set for the end of the request that is arriving."""
        self._between = True
        """Whether the next byte begins a request, and none is under way."""
        self._taken: list[Request] = []
        """The requests of the piece that is being parsed."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._closing = False

    @property
    def address(self) -> str:
        """Where it comes from."""
        return self._caller.address

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the first request must come in time."""
        self._transport = cast("asyncio.Transport", transport)
        address, port = transport.get_extra_info("peername")[:2]
        self._caller.address, self._caller.port = address, port
        if self._owner.add(self):
            self._alarm.set(self._limits.head_seconds)
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            self._shut()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._closing:
            return
        if self._between and self._remembered(data):
            return
        alone, self._taken = self._between, []
        try:
            self._parser.feed(data)
        except Unacceptable as error:
            self._refuse(error.status, str(error))
        else:
            self._parsed(data, alone=alone)

    def _remembered(self, data: bytes) -> bool:
        """Answer what the memo knows; return whether it did."""
        try:
            answer = self._memo(self._caller, data)
        except Exception:  # noqa: BLE001 - the handler still answers
            _log.exception("a request could not be answered from the memo; please report this")
            return False
        if answer is None:
            return False
        self._transport.write(answer)
        self._timed = False
        self._alarm.set(self._limits.idle_seconds)
        return True

    def _parsed(self, data: bytes, *, alone: bool) -> None:
        """Note where in a request the connection is; `alone`: `data` began between two."""
        partial = self._parser.partial
        if alone and len(self._taken) == 1 and not partial and len(data) <= LONGEST_REMEMBERED:
            self._taken[0].raw = data
        self._between = self._task is None and not partial
        if not self._timed and self._task is None and partial:
            self._timed = True
            self._alarm.set(self._limits.head_seconds)

    def eof_received(self) -> bool:
        """The client has left: whatever it waits for, it will not read."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """End whatever still runs for the client; a shared fetch goes on without it."""
        self._closing = True
        self._alarm.stop()
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        self._owner.discard(self)

    def pause_writing(self) -> None:
        """The client does not take its answers."""
        self._writable.clear()
        self._between = False

    def resume_writing(self) -> None:
        """It does again."""
        self._writable.set()
        self._between = self._task is None and not self._parser.partial

    # Answering.

    def _take(self, request: Request) -> None:
        """Answer a request, after those before it."""
        self._timed = False
        if self._closing:
            return
        self._taken.append(request)
        self._waiting.append(request)
        if len(self._waiting) > self._limits.ahead:
            self._refuse(HTTPStatus.BAD_REQUEST, "too many requests before their answers")
        elif self._task is None:
            self._alarm.stop()
            self._task = self._loop.create_task(self._serve())

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
                self._alarm.set(self._limits.idle_seconds)
                await self._writable.wait()
        self._task = None
        if not self._closing:
            limits, self._timed = self._limits, self._parser.partial
            self._between = not self._timed
            self._alarm.set(limits.head_seconds if self._timed else limits.idle_seconds)

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

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Answer what is no request, and close: where the next one begins is not known."""
        if self._closing:
            return
        self._owner.refused(self, why)
        self._closing = True
        self._waiting.clear()
        if self._task is not None:
            self._shut()
            return
        body = render_error("invalid_request", why)
        self._transport.write(render(Response(status, body), stays=False))
        self._transport.write_eof()
        self._alarm.set(LINGER)

    def _shut(self) -> None:
        self._closing = True
        self._alarm.stop()
        self._transport.close()

    def _late(self) -> None:
        if self._task is not None or self._closing:
            self.abort()
        elif self._parser.partial:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
        else:
            self._shut()

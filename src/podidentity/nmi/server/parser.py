"""From bytes to HTTP/1.1 requests, by llhttp, with an end to what one request may be."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import httptools

from podidentity.nmi.request.outcome import Caller
from podidentity.nmi.server.messages import Limits, Request


class Unacceptable(Exception):
    """What came is no request, or too much of one; where the next one begins is not known."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class RequestParser:
    """Parses what one connection sends, and hands each whole request to `take`."""

    def __init__(self, caller: Caller, limits: Limits, take: Callable[[Request], None]) -> None:
        self._caller = caller
        self._limits = limits
        self._take = take
        self._parser = httptools.HttpRequestParser(self)
        self._begin()
        # `_size`: bytes of the head, or body, that is arriving; 0 between two requests.
        self._in_head, self._size = True, 0

    @property
    def partial(self) -> bool:
        """Whether a request has begun to arrive, and not ended."""
        return self._size > 0 or not self._in_head

    def feed(self, data: bytes) -> None:
        """Parse what came; raise Unacceptable, after which nothing may follow."""
        upgrades = 0
        while data:
            data = self._feed(data)
            upgrades += 1
            if data and upgrades > self._limits.ahead:
                why = "too many requests before their answers"
                raise Unacceptable(HTTPStatus.BAD_REQUEST, why)

    def _feed(self, data: bytes) -> bytes:
        """Parse what came up to a request that offers another protocol; return what follows it."""
        rest = b""
        if self._in_head:
            self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Java's client offers h2c with each request; nothing but HTTP/1.1 is spoken here.
            self._parser = httptools.HttpRequestParser(self)
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError as error:
            # Raised in a method below: the parser hands it on as a context.
            raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            why = f"not an HTTP/1.1 request ({error})"
            raise Unacceptable(HTTPStatus.BAD_REQUEST, why) from error
        self._check_head(self._size)
        return rest

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()
        self._size = self._size or 1

    def on_url(self, url: bytes) -> None:
        """Take the target, or the next piece of it."""
        self._request.raw_target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._add((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: what follows is a body."""
        if self._size > self._limits.head_bytes:
            # Some of what came may be of requests behind it.
            self._check_head(self._request.head_bytes)
        self._in_head, self._size = False, 0

    def on_body(self, body: bytes) -> None:
        """Throw the body away."""
        self._size += len(body)
        if self._size > self._limits.body_bytes:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise Unacceptable(status, "the body is too large")

    def on_message_complete(self) -> None:
        """Hand the request on."""
        self._in_head, self._size = True, 0
        request, parser = self._request, self._parser
        request.method = parser.get_method().decode("latin-1")
        request.keep_alive = (
            parser.should_keep_alive()
            and parser.get_http_version() == "1.1"
            and request.method != "HEAD"  # its answer would have no body, ours has one
        )
        self._take(request)

    def _begin(self) -> None:
        self._request = request = Request(self._caller)
        # Called some ten times for each request.
        self._add = request.fields.append

    def _check_head(self, size: int) -> None:
        if self._in_head and size > self._limits.head_bytes:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise Unacceptable(status, "the headers are too large")

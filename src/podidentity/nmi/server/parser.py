"""From bytes to HTTP/1.1 requests, by llhttp, with a limit to the size of each request."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import httptools

from podidentity.nmi.server.messages import Caller, Limits, Request

_BLANK_LINE = b"\r\n\r\n"
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_FIELD_BYTES = 150
"""Memory of a header's two bytes objects and their tuple in CPython, beside the text itself."""


class Unacceptable(Exception):
    """What came is no request, or too large; where the next one begins is not known."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class RequestParser:
    """Parses the bytes of one connection, and hands each whole request to `take`.

    A size is counted in the pieces that are fed. So a request that begins in the middle of a piece
    is charged the whole piece: never too little, and only behind a body can it be too much.
    """

    def __init__(self, caller: Caller, limits: Limits, take: Callable[[Request], None]) -> None:
        self._caller = caller
        self._limits = limits
        self._take = take
        self._parser = httptools.HttpRequestParser(self)
        self._fed = 0
        """Bytes of the piece that is being parsed."""
        self.size = 0
        """Bytes of the request that is arriving; 0 between two requests. Read for each request."""
        self._in_head = True
        self._told_to_continue = False
        self._begin()

    @property
    def held_bytes(self) -> int:
        """Memory of the request that is arriving; its body, though thrown away, counts, too."""
        return self.size + _FIELD_BYTES * len(self._request.fields) if self.size else 0

    @property
    def awaits_continue(self) -> bool:
        """Whether the client sends its body only after `100 Continue`; true once a request."""
        if self._in_head or self._told_to_continue:
            return False
        self._told_to_continue = True
        return self._parser.get_http_version() == "1.1" and any(
            name.lower() == b"expect" and value.strip().lower() == b"100-continue"
            for name, value in self._request.fields
        )

    def feed(self, data: bytes) -> bytes:
        """Parse up to the next blank line, where a head ends; return what follows it.

        So the caller can stop behind a request. Raises Unacceptable, after which nothing may
        follow.
        """
        end = data.find(_BLANK_LINE) + len(_BLANK_LINE)
        if len(_BLANK_LINE) <= end < len(data):
            return self._feed(data[:end]) + data[end:]
        return self._feed(data)

    def _feed(self, data: bytes) -> bytes:
        """Parse one piece; return what follows a request that offers another protocol."""
        rest = b""
        self._fed = len(data)
        self.size += self._fed
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
        if self.size:
            self._check_size()
        return rest

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins, perhaps behind another one in the same piece."""
        self.size = self.size or self._fed
        self._begin()

    def on_url(self, url: bytes) -> None:
        """Take the target, or the next piece of it."""
        self._request.raw_target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; drop a trailer, which must never be taken for one (RFC 9110, 6.5.1)."""
        if self._in_head:
            self._add((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: what follows is a body."""
        self._check_size()
        if self._parser.should_upgrade() and _has_body(self._request):
            # llhttp leaves what follows to the other protocol, so the body would be a request.
            why = "a request that offers another protocol must not have a body"
            raise Unacceptable(HTTPStatus.BAD_REQUEST, why)
        self._in_head = False

    def on_message_complete(self) -> None:
        """Hand the request on."""
        self._check_size()
        self._in_head, self.size = True, 0
        request, parser = self._request, self._parser
        request.method = parser.get_method().decode("latin-1")
        request.keep_alive = parser.should_keep_alive() and parser.get_http_version() == "1.1"
        self._take(request)

    def _begin(self) -> None:
        self._request = request = Request(self._caller)
        # Called some ten times for each request.
        self._add = request.fields.append
        self._told_to_continue = False

    def _check_size(self) -> None:
        limits = self._limits
        if self._in_head:
            if self.size > limits.head_bytes or len(self._request.fields) > limits.fields:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                raise Unacceptable(status, "the headers are too large")
        elif self.size > limits.request_bytes:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise Unacceptable(status, "the body is too large")


def _has_body(request: Request) -> bool:
    return any(name.lower() in _FRAMING for name, _ in request.fields)


def held_bytes(request: Request) -> int:
    """Return the memory that a request takes, in bytes."""
    return request.head_bytes + len(request.raw) + _FIELD_BYTES * len(request.fields)

"""HTTP/1.1 requests and answers as values, from bytes and to bytes, and the limits of one client.

llhttp parses, with a limit to the size of each request. A request keeps its bytes as they came:
most are answered by looking at a few of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import Literal, NamedTuple, Protocol

import httptools

from podidentity.core.resources import ObjectRef

# The phrases of RFC 9110, which Python has from 3.13 on.
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {413: "Content Too Large"}

_BLANK_LINE = b"\r\n\r\n"
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_FIELD_BYTES = 150
"""Memory of a header's two bytes objects and their tuple in CPython, beside the text itself."""

LONGEST_REMEMBERED = 2048
"""Bytes of a request whose answer may be remembered: no client of IMDS sends as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that a client may take; the listener's own numbers are those of docs/reference."""

    # One request.
    head_bytes: int = 16 << 10
    """Request line and headers."""
    request_bytes: int = 64 << 10
    """Every byte of a request: head, body, chunk framing and trailers."""
    fields: int = 100
    """Headers of a request."""

    # Seconds.
    head_seconds: float = 10.0
    """From the connection, or the first byte of a later request, to the end of the request."""
    idle_seconds: float = 75.0
    """A kept connection without a request."""
    unproven_seconds: float = 5.0
    """Replaces both while nobody has said whose the connection is."""
    write_seconds: float = 10.0
    """An answer of which the client takes nothing."""
    close_seconds: float = 2.0
    """From the decision to close a connection until it is gone."""

    # Connections.
    connections: int = 4096
    """Of all pods together."""
    per_pod: int = 256
    unproven: int = 1024
    """Of all addresses together, until the request layer has said which pod's they are."""
    per_address: int = 256
    """Of these, from one address: a pod's, which come at once after nobody accepted for a while."""
    local: int = 64
    """From the node itself; no pod can take these places."""

    # Bytes of requests in memory.
    held_bytes: int = 16 << 20
    """Of all connections together."""
    held_per_pod: int = 1 << 20
    held_per_address: int = 256 << 10
    """From an address whose connections are not proved."""


class Proxied(NamedTuple):
    """The pod behind a connection that is another pod's."""

    uid: str
    proxy: ObjectRef
    """The pod that made the connection; it stands in each audit record."""


@dataclass(slots=True)
class Caller:
    """The other end of one connection: the address that it claims, and what was proved of it."""

    address: str
    port: int
    own: str = ""
    """Our own address that it is connected to."""
    proven: str = ""
    """Uid of the pod that the kernel named, once it has."""
    proven_until: float = 0.0
    """When that must be asked anew, in monotonic seconds."""
    proxied: Proxied | None = None
    """The pod for which a trusted proxy made the connection, once the kernel has named both."""
    attributed: Callable[[str], None] | None = field(default=None, repr=False, compare=False)
    """The connection's callback: takes the uid of the pod whose share it counts against."""

    def attribute(self, uid: str, *, proven: bool) -> None:
        """Take the connection for that of the pod `uid`; `proven`: the kernel says so."""
        self.proven = uid if proven else ""
        if self.attributed is not None:
            self.attributed(uid)


@dataclass(slots=True)
class Request:
    """A request whose headers and body have arrived."""

    caller: Caller
    method: str = ""
    raw_target: bytes = b""
    """Path and query, byte for byte."""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Headers, byte for byte, in the order of arrival; no trailers."""
    keep_alive: bool = True
    raw: bytes = b""
    """All of the request if it was parsed alone, in one piece, and is short; else empty.

    Equal bytes are the same request: it need not be parsed again to be answered from a memo.
    """

    @property
    def target(self) -> str:
        """The same as `raw_target`, as text (latin-1)."""
        return self.raw_target.decode("latin-1")

    @property
    def headers(self) -> dict[str, list[str]]:
        """Values by name in lower case, in the order of arrival; made anew at each call."""
        headers: dict[str, list[str]] = {}
        for name, value in self.fields:
            values = headers.setdefault(name.decode("latin-1").lower(), [])
            values.append(value.decode("latin-1").strip())
        return headers

    @property
    def head_bytes(self) -> int:
        """Bytes of target and headers."""
        fields = sum(len(name) + len(value) + len(b": \r\n") for name, value in self.fields)
        return len(self.raw_target) + fields


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


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent back; Content-Length and Connection are added."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """An answer that needs no handler: it was given a moment ago, and still holds."""

    kept: bytes
    """As it is sent where the connection is kept."""
    last: bytes
    """As it is sent where it is the last one of its connection."""
    keep_alive: bool
    """Whether the client wants the connection kept."""


class Waiting(Enum):
    """The type of `LATER`."""

    LATER = auto()


LATER: Literal[Waiting.LATER] = Waiting.LATER
"""There is an answer, if the connection is proved to be the same pod's: that is being asked."""

Answered = Callable[[KnownAnswer | None], None]
"""Takes what comes of LATER, in a later turn of the event loop; None: ask the handler."""


class Memo(Protocol):
    """What a handler answered a moment ago, found without a task. Records what it gives."""

    def by_bytes(
        self, caller: Caller, raw: bytes, answered: Answered
    ) -> KnownAnswer | Literal[Waiting.LATER] | None:
        """Return the answer to a request that arrived as exactly these bytes.

        Returns None if the handler must be asked.
        """


def render(response: Response, *, stays: bool) -> bytes:
    """Return the bytes of an answer; `stays`: the connection is kept."""
    return render_head(response, stays=stays) + response.body


def render_head(response: Response, *, stays: bool) -> bytes:
    """Return status line and headers of an answer, and the empty line."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
    closing = "" if stays else "Connection: close\r\n"
    status = int(response.status)
    return (
        f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n{extra}{closing}\r\n"
    ).encode("latin-1")

"""HTTP requests and answers as values, and what a client may take of us.

A request holds what came as it came: most are answered by a few of its bytes, and only the others
are ever read in full.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from podidentity.nmi.request.outcome import Caller

# RFC 9110's words, which Python has from 3.13 on.
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {413: "Content Too Large"}

LONGEST_REMEMBERED = 2048
"""Bytes of a request whose answer may be remembered: no client of IMDS sends as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may take."""

    head_bytes: int = 16 << 10
    """Request line and headers."""
    body_bytes: int = 64 << 10
    """Bodies are read and thrown away: no request of IMDS has one."""
    head_seconds: float = 10.0
    """From the connection, or the first byte of a later request, to the end of the headers."""
    idle_seconds: float = 75.0
    """A kept connection without a request; also an answer that nobody takes."""
    ahead: int = 32
    """Requests sent before the answer of the first."""
    connections: int = 4096
    from_one: int = 256
    """Of these, from one address: a pod takes none of the others' places."""


@dataclass(slots=True)
class Request:
    """A request whose headers and body have arrived."""

    caller: Caller
    method: str = ""
    raw_target: bytes = b""
    """Path and query, byte for byte."""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Headers, byte for byte, in the order of arrival."""
    keep_alive: bool = True
    raw: bytes = b""
    """All of the request, if it arrived alone and in one piece, else empty: equal bytes are the
    same request, and need not be parsed to be answered from a memo."""

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


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent back; Content-Length and Connection are added."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]
AnswerMemo = Callable[[Caller, bytes], bytes | None]
"""Returns the rendered answer of a request that arrived as exactly these bytes on this connection,
if the handler's answer is remembered and still holds; else None."""


def no_memo(caller: Caller, raw: bytes) -> None:
    """Remember nothing: every request goes to the handler."""
    del caller, raw


def render(response: Response, *, stays: bool) -> bytes:
    """Return the bytes of an answer; `stays`: the connection is kept."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
    closing = "" if stays else "Connection: close\r\n"
    status = int(response.status)
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n{extra}{closing}\r\n"
    )
    return head.encode("latin-1") + response.body

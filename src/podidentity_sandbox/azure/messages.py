"""HTTP requests and replies as plain values, so that each service is a function between the two.

Nothing here knows aiohttp: `serve` translates, and a test calls a service with a value.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote

BODY_LIMIT = 64 * 2**20
"""Bytes: what Azure's SDKs send at most in one request, unless they are told otherwise."""
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def moment(seconds: float) -> datetime:
    """Return seconds since 1970 as a time; the end of the year 9999 for what is beyond it."""
    most = 253402300799.0
    return datetime.fromtimestamp(min(seconds, most), UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it came, decoded only where a property says so."""

    method: str
    target: str
    """Path and query exactly as sent."""
    host: str = ""
    """The Host header in lower case, without its port."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By names in lower case."""
    body: bytes = b""
    too_large: bool = False
    """Whether the body has more than BODY_LIMIT bytes; it is not kept then."""
    source: str = ""
    """Address of the peer."""

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> list[tuple[str, str]]:
        """The decoded query in its order, repetitions and empty values kept."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    def parameter(self, name: str) -> str:
        """Return the first query value of that name, whatever its case; "" where there is none."""
        return next((value for key, value in self.query if key.lower() == name), "")

    @property
    def bearer(self) -> str:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def json_object(self, refusal: Callable[[str], Exception]) -> dict[str, Any]:
        """Return the body as a JSON object; raise `refusal`, called with why it is none."""
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise refusal(f"the body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise refusal("the body is not a JSON object")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)  # it may hold a token
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json; charset=utf-8"
    after: float = 0.0
    """Seconds that the service takes for it."""
    ends: Callable[[], None] = lambda: None
    """Called when these seconds are over."""

    @classmethod
    def json(
        cls, value: object, *, status: int = 200, headers: Mapping[str, str] = NO_HEADERS
    ) -> Reply:
        body = json.dumps(value, separators=(",", ":")).encode()
        return cls(status=status, body=body, headers=headers)


class ServiceError(Exception):
    """A refusal in the envelope that ARM, Graph and vaults share: status, code and words."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        more: Mapping[str, Any] = NO_HEADERS,
    ) -> None:
        """`more` is what the error says beside code and message."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers
        self.more = more

    def reply(self, **more: object) -> Reply:
        """Return the answer that says so; `more` as in the constructor."""
        error = {"code": self.code, "message": str(self), **self.more, **more}
        return Reply.json({"error": error}, status=self.status, headers=self.headers)


# ---- Requests as they came, in memory: they show leaks, and requests that came too often


class RequestLog(deque[dict[str, Any]]):
    """The last 50,000 requests, each with its answer, the oldest first."""

    def __init__(self) -> None:
        super().__init__(maxlen=50_000)

    def open(self, **what: object) -> dict[str, Any]:
        """Record a request as it comes in; its status is 0 until it is answered."""
        self.append({**what, "status": 0})
        return self[-1]

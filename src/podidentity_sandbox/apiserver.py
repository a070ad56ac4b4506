"""A client of the API server for the sandbox's own parts: kubelets, AKS and the CSI driver.

JSON over TLS, and two errors:

ApiRefusal        the server said no: status, reason, message
ApiUnreachable    nobody answered, or not as an API server does
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Self

import aiohttp

Object = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"
_REQUEST_SECONDS = 15
_WATCH_SECONDS = 290
_LONGEST_LINE = 8 * 1024 * 1024


class ApiRefusal(Exception):
    """The API server's refusal."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.message = message
        self.reason = reason

    @property
    def passes(self) -> bool:
        return self.status >= 500 or self.status == 429


class ApiUnreachable(Exception):
    """The API server did not answer."""

    def __init__(self, what: str, why: BaseException | str) -> None:
        super().__init__(f"the API server does not answer {what}: {why or type(why).__name__}")


class ApiServer:
    """The API server at a URL, as one of its users. An async context manager."""

    def __init__(
        self, url: str, trust: ssl.SSLContext, token: Callable[[], str], *, agent: str
    ) -> None:
        """`token` is asked for each request, since it may be renewed; `agent` is the User-Agent."""
        self._url = url
        self._token = token
        self._session = aiohttp.ClientSession(
            headers={"User-Agent": agent},
            # A watch keeps its connection.
            connector=aiohttp.TCPConnector(ssl=trust, limit=0),
            read_bufsize=_LONGEST_LINE,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | list[Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send one request and return the object; raise ApiRefusal or ApiUnreachable."""
        try:
            async with self._session.request(
                method,
                self._url + path,
                params=params,
                data=None if body is None else json.dumps(body),
                headers=self._headers() | ({} if body is None else {"Content-Type": content_type}),
                timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
            ) as response:
                return _read(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnreachable(f"{method} {path}", error) from error

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[Object]:
        """Yield the events of one watch until the server ends it.

        Raises ApiRefusal or ApiUnreachable.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_read=_WATCH_SECONDS + 30)
        query = {"watch": "1", "timeoutSeconds": str(_WATCH_SECONDS), **params}
        try:
            async with self._session.get(
                self._url + path, params=query, headers=self._headers(), timeout=limits
            ) as response:
                if response.status != 200:
                    _read(response.status, await response.read())
                async for line in response.content:
                    yield _event(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiUnreachable(f"the watch {path}", error) from error

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"}


def _event(line: bytes) -> Object:
    event = _parsed(line)
    if event["type"] == "ERROR":
        status = event["object"]
        raise ApiRefusal(
            status.get("code", 500), status.get("reason", ""), status.get("message", "")
        )
    return event


def _parsed(raw: bytes) -> Object:
    """Return JSON without its null fields: to an API server null and absent are the same.

    An empty list or map may be null: https://pkg.go.dev/encoding/json#Marshal
    """
    found: Object = json.loads(
        raw,
        object_pairs_hook=lambda fields: {
            name: value for name, value in fields if value is not None
        },
    )
    return found


def _read(status: int, raw: bytes) -> Object:
    try:
        answer = _parsed(raw)
    except ValueError as error:
        raise ApiUnreachable("as one does", f"HTTP {status}") from error
    if status >= 400:
        raise ApiRefusal(status, answer.get("reason", ""), answer.get("message", ""))
    return answer

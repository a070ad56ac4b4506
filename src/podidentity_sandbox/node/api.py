"""The kubelet's client of the API server: JSON over TLS, and patience.

ApiRefusal        the server said no: status, reason, message
ApiUnreachable     nobody answered, or not as an API server does
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import aiohttp

from podidentity_sandbox.node.clock import Clock
from podidentity_sandbox.plan import APISERVER_ADDRESS, NodePlan, Plan

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

MERGE_PATCH = "application/merge-patch+json"
_REQUEST_SECONDS = 15
_WATCH_SECONDS = 290
_LONGEST_LINE = 8 * 1024 * 1024
_LONGEST_PAUSE = 5.0


class ApiRefusal(Exception):
    """The API server's refusal."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.message = message
        self.reason = reason

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status >= 500 or self.status == 429


class ApiUnreachable(Exception):
    """The API server did not answer."""


class ApiClient:
    """The API server, as this node's kubelet."""

    def __init__(self, session: aiohttp.ClientSession, base: str, clock: Clock) -> None:
        self._session = session
        self._base = base
        self._clock = clock

    @classmethod
    def connect(cls, plan: Plan, node: NodePlan, clock: Clock) -> ApiClient:
        """Make the client; nothing is sent yet."""
        trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
        return cls(
            aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {node.token}", "User-Agent": "kubelet/sandbox"},
                # A watch keeps its connection.
                connector=aiohttp.TCPConnector(ssl=trust, limit=0),
                read_bufsize=_LONGEST_LINE,
            ),
            f"https://{APISERVER_ADDRESS}",
            clock,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Send one request and return the object; raise ApiRefusal or ApiUnreachable."""
        try:
            async with self._session.request(
                method,
                self._base + path,
                params=params,
                data=None if body is None else json.dumps(body),
                headers=None if body is None else {"Content-Type": content_type},
                timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
            ) as response:
                return _read(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnreachable(f"{method} {path}: {error or type(error).__name__}") from error

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of one watch until the server ends it.

        Raises ApiRefusal or ApiUnreachable.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_read=_WATCH_SECONDS + 30)
        query = {"watch": "1", "timeoutSeconds": str(_WATCH_SECONDS), **params}
        try:
            async with self._session.get(
                self._base + path, params=query, timeout=limits
            ) as response:
                if response.status != 200:
                    _read(response.status, await response.read())
                async for line in response.content:
                    yield _event(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiUnreachable(f"watch {path}: {error or type(error).__name__}") from error

    async def insist(self, what: Callable[[], Awaitable[_T]]) -> _T:
        """Do `what` until the server has answered; a refusal that will not pass is raised."""
        pause = 0.1
        while True:
            try:
                return await what()
            except ApiUnreachable as error:
                _log.warning("the API server does not answer, trying again: %s", error)
            except ApiRefusal as error:
                if not error.passes:
                    raise
                _log.warning("the API server is in trouble, trying again: %s", error)
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _event(line: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(line)
    if event["type"] == "ERROR":
        status = event["object"]
        raise ApiRefusal(
            status.get("code", 500), status.get("reason", ""), status.get("message", "")
        )
    return event


def _read(status: int, raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except ValueError as error:
        raise ApiUnreachable(f"not an API server's answer (HTTP {status})") from error
    if status >= 400:
        raise ApiRefusal(status, answer.get("reason", ""), answer.get("message", ""))
    result: dict[str, Any] = answer
    return result

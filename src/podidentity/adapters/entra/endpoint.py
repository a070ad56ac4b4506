"""Entra's token endpoints over HTTPS: a form goes there, a small answer comes back.

Nothing is followed: a redirect would carry a secret to wherever it points.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2

from podidentity.core.errors import TokenSourceDown
from podidentity.wire.entra import LONGEST_ANSWER

SECONDS = 10.0
"""For a whole answer: a pod's client waits little longer."""

_TIMEOUT = httpx2.Timeout(SECONDS, connect=5)
_LIMITS = httpx2.Limits(max_connections=20, max_keepalive_connections=4, keepalive_expiry=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an endpoint answered."""

    status: int
    body: bytes = field(repr=False)
    retry_after: str


class TokenEndpoint:
    """Speaks to every authority. Close it when done."""

    def __init__(
        self,
        *,
        user_agent: str,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        seconds: float = SECONDS,
    ) -> None:
        """`trust` is asked at first use: the machine's authorities take 1 MB of memory."""
        self._headers = {"Accept": "application/json", "User-Agent": user_agent}
        self._trust = trust
        self._seconds = seconds
        self._made: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._made is not None:
            await self._made.aclose()

    async def post(self, url: str, form: bytes) -> Reply:
        """Return what is answered to the form; raise TokenSourceDown."""
        host = urlsplit(url).netloc
        try:
            async with asyncio.timeout(self._seconds):
                try:
                    return await self._once(url, form)
                except httpx2.RemoteProtocolError:
                    # A kept connection that was closed just as we used it: no answer was lost.
                    return await self._once(url, form)
        except TimeoutError as error:
            raise TokenSourceDown(f"{host} did not answer within {self._seconds:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            what = str(error) or type(error).__name__
            raise TokenSourceDown(f"{host} cannot be asked: {what}") from error

    async def _once(self, url: str, form: bytes) -> Reply:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        sent = self._client.stream("POST", url, content=form, headers=headers)
        async with sent as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > LONGEST_ANSWER:
                    raise TokenSourceDown(
                        f"{urlsplit(url).netloc} sent more than {LONGEST_ANSWER} bytes"
                    )
            return Reply(
                status=response.status_code,
                body=bytes(body),
                retry_after=response.headers.get("Retry-After", ""),
            )

    @property
    def _client(self) -> httpx2.AsyncClient:
        if self._made is None:
            self._made = httpx2.AsyncClient(
                headers=self._headers,
                verify=self._trust(),
                limits=_LIMITS,
                timeout=_TIMEOUT,
                trust_env=False,
                follow_redirects=False,
            )
        return self._made

"""What Prometheus asks: `/metrics`, on the port and the addresses of the archived agent.

Every pod reaches that port, so what is there names no tenant: labels that would are empty, and
their series are added up. The whole is on a TLS port, for callers that the cluster lets `get`
the path `/metrics`. A scrape is kept for a second, and is made in small parts between which the
event loop serves others.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Protocol

from podidentity.adapters.path_permissions import Access
from podidentity.core.ports import Clock
from podidentity.nmi.server.messages import Request, Response
from podidentity.telemetry.exposition import CONTENT_TYPE, parts
from podidentity.telemetry.metrics import Registry

PATH = "/metrics"
KEPT = 1.0
"""Seconds that an answer is given again."""
_PARTS_AT_ONCE = 4
"""Parts of a scrape that are made in one turn of the event loop: less than a millisecond."""

_PLAIN = "text/plain; charset=utf-8"
_REFUSED = {
    Access.UNKNOWN_TOKEN: Response(
        HTTPStatus.UNAUTHORIZED,
        b"A token of the cluster is needed.\n",
        _PLAIN,
        (("WWW-Authenticate", "Bearer"),),
    ),
    Access.DENIED: Response(
        HTTPStatus.FORBIDDEN,
        b"RBAC does not let you get /metrics: see ClusterRole podidentity-metrics-reader.\n",
        _PLAIN,
    ),
    Access.TOO_OFTEN: Response(
        HTTPStatus.TOO_MANY_REQUESTS, b"Too many tokens.\n", _PLAIN, (("Retry-After", "1"),)
    ),
    Access.UNDECIDED: Response(
        HTTPStatus.SERVICE_UNAVAILABLE, b"The API server cannot be asked.\n", _PLAIN
    ),
}


class Reviewer(Protocol):
    """Says who may read the metrics."""

    async def access(self, authorization: bytes, address: str) -> Access:
        """Return what the value of a header `Authorization` is good for."""


class Scrapes:
    """The handler of a listener for metrics."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        *,
        public: bool,
        reviewer: Reviewer | None = None,
    ) -> None:
        """`public`: without what names a tenant. `reviewer` None: every caller is answered."""
        self._registry = registry
        self._clock = clock
        self._public = public
        self._reviewer = reviewer
        self._kept: tuple[float, Response] | None = None
        self._rendering: asyncio.Task[Response] | None = None

    async def __call__(self, request: Request) -> Response:
        """Answer a scrape."""
        if request.target.partition("?")[0] != PATH:
            return Response(HTTPStatus.NOT_FOUND, b"404 page not found\n", _PLAIN)
        if self._reviewer is not None:
            given = [value for name, value in request.fields if name.lower() == b"authorization"]
            header = given[0] if len(given) == 1 else b""
            access = await self._reviewer.access(header, request.caller.address)
            if access is not Access.ALLOWED:
                return _REFUSED[access]
        return await self._answer()

    async def _answer(self) -> Response:
        if self._kept is not None and self._clock.monotonic() - self._kept[0] <= KEPT:
            return self._kept[1]
        if self._rendering is None:
            self._rendering = asyncio.create_task(self._render())
        # It is made for all who ask meanwhile, also if the first of them leaves.
        return await asyncio.shield(self._rendering)

    async def _render(self) -> Response:
        made = self._clock.monotonic()
        try:
            text: list[str] = []
            for number, part in enumerate(parts(list(self._registry), public=self._public)):
                text.append(part)
                if number % _PARTS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            response = Response(HTTPStatus.OK, "".join(text).encode(), CONTENT_TYPE)
            self._kept = (made, response)
            return response
        finally:
            self._rendering = None

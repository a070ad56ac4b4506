"""What Prometheus asks: `/metrics`, on the port and the addresses of the archived agent.

The port is open to pods, so a scrape is kept for a second, and nothing that is secret or of one
pod alone is in it.
"""

from __future__ import annotations

from http import HTTPStatus

from podidentity.core.ports import Clock
from podidentity.nmi.server.messages import Request, Response
from podidentity.telemetry.exposition import CONTENT_TYPE, render
from podidentity.telemetry.metrics import Registry

MEMORY = 1.0
"""Seconds that an answer is kept."""


class Scrapes:
    """The handler of the metrics' listener."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._known: tuple[float, Response] | None = None

    async def __call__(self, request: Request) -> Response:
        """Answer a scrape."""
        if request.target.partition("?")[0] != "/metrics":
            plain = "text/plain; charset=utf-8"
            return Response(HTTPStatus.NOT_FOUND, b"404 page not found\n", plain)
        now = self._clock.monotonic()
        if self._known is None or now - self._known[0] > MEMORY:
            body = render(self._registry).encode()
            self._known = (now, Response(HTTPStatus.OK, body, CONTENT_TYPE))
        return self._known[1]

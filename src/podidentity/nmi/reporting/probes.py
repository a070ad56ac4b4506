"""What the kubelet asks: does the agent live, and can it serve?

`/healthz` is the archived project's: always 200, `Active` once the interception was installed.
`/readyz` is true only while a pod's request could be answered, and says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

import msgspec

from podidentity.core.ports import Clock
from podidentity.nmi.server.messages import Request, Response

MEMORY = 1.0
"""Seconds that an answer is kept: the port is open to pods, and a look costs milliseconds."""

Check = Callable[[], Sequence[str]]
"""Returns what is wrong; empty where all is well."""


class Probes:
    """The handler of the probe listener."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        clock: Clock,
        *,
        attestation: str = "kernel",
        warnings: Check = tuple,
    ) -> None:
        """`attestation` is what proves callers; `warnings` does not make the agent unready."""
        self._checks = checks
        self._attestation = attestation
        self._warnings = warnings
        self._clock = clock
        self._known: tuple[float, Response] | None = None

    async def __call__(self, request: Request) -> Response:
        """Answer a probe."""
        path = request.target.partition("?")[0]
        if path == "/healthz":
            # Nothing listens here before the interception was installed.
            return Response(HTTPStatus.OK, b"Active", "text/plain; charset=utf-8")
        if path == "/readyz":
            return self._readiness()
        return Response(HTTPStatus.NOT_FOUND, b"404 page not found\n", "text/plain; charset=utf-8")

    def _readiness(self) -> Response:
        now = self._clock.monotonic()
        if self._known is None or now - self._known[0] > MEMORY:
            self._known = (now, self._look())
        return self._known[1]

    def _look(self) -> Response:
        problems = {name: list(check()) for name, check in self._checks.items()}
        ready = not any(problems.values())
        body = msgspec.json.encode(
            {
                "ready": ready,
                "checks": {name: found or "ok" for name, found in problems.items()},
                "attestation": self._attestation,
                "warnings": list(self._warnings()),
            }
        )
        return Response(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, body)

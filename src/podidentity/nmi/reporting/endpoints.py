"""The agent's own pages: probes for the kubelet, metrics for Prometheus, `/debug` for people.

`/healthz` is the archived project's: always 200, `Active` once the interception was installed.
`/readyz` is true only while a pod's request could be answered, and says what is missing.

Every pod reaches these ports, so what is there names no tenant: labels of metrics that would are
empty, and their series are added up. The whole is on a TLS port, for callers that the cluster lets
`get` the path `/metrics`, with a token for that alone. An answer is given again for a second, and
a scrape is made in small parts between which the event loop serves others.

`/debug` is on that TLS port, too, for callers that may `get` that path, with a token for the agent
of this node alone. It comes in a header of its own, which the API server's proxy to pods passes on
(`wire.debug_access`). For people on the node it is on loopback, and off there by default.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.path_permissions import Access, PathPermissions
from podidentity.adapters.server_certificate import ServerCertificate
from podidentity.build import build
from podidentity.core.ports import Clock
from podidentity.nmi.path_watch import PathWatch
from podidentity.nmi.reporting.debug import Debug, Decided, OnLoopback
from podidentity.nmi.reporting.metrics import (
    Net,
    Watch,
    add_attestation,
    add_connections,
    add_data_path,
    add_interception,
    add_watches,
    add_writers,
)
from podidentity.nmi.reporting.observing import Observation
from podidentity.nmi.server.listener import FOR_LOOKS, Listener
from podidentity.nmi.server.messages import Handler, Request, Response
from podidentity.settings import NmiSettings
from podidentity.telemetry.metrics import CONTENT_TYPE, Registry, parts
from podidentity.telemetry.process import add_process
from podidentity.wire import debug_access
from podidentity.wire.kube import KubeApi

WITHOUT_PATH = "exclude=path"
"""Asks `/readyz` whether requests could be answered that come: Cilium, which leads them here, must
know that first. The API server has the same query for its own checks."""
KEPT = 1.0
"""Seconds that an answer is given again: the ports are open to pods."""
_PLAIN = "text/plain; charset=utf-8"
_NOT_FOUND = Response(HTTPStatus.NOT_FOUND, b"404 page not found\n", _PLAIN)

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
        path: Callable[[], Mapping[str, str]] = dict,
        tokens: Callable[[], Mapping[str, object]] = dict,
        build: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`attestation` is what proves callers; `warnings` does not make the agent unready.

        `path` is what is known of the way from pods to the agent, `tokens` how requests end, and
        `build` which build it is.
        """
        self._checks = checks
        self._attestation = attestation
        self._warnings = warnings
        self._path = path
        self._tokens = tokens
        self._build = {"build": dict(build)} if build else {}
        self._clock = clock
        self._known: dict[bool, tuple[float, Response]] = {}
        """What was found last, without the path and with it."""

    async def __call__(self, request: Request) -> Response:
        path, _, query = request.target.partition("?")
        if path == "/healthz":
            # Nothing listens here before the interception was installed.
            return Response(HTTPStatus.OK, b"Active", _PLAIN)
        if path == "/readyz":
            return self._readiness(without_path=query == WITHOUT_PATH)
        return _NOT_FOUND

    def _readiness(self, *, without_path: bool) -> Response:
        now = self._clock.monotonic()
        known = self._known.get(without_path)
        if known is None or now - known[0] > KEPT:
            known = self._known[without_path] = (now, self._look(without_path=without_path))
        return known[1]

    def _look(self, *, without_path: bool) -> Response:
        problems = {name: list(check()) for name, check in self._checks.items()}
        if without_path:
            problems.pop("path", None)
        ready = not any(problems.values())
        body = msgspec.json.encode(
            {
                "ready": ready,
                "checks": {name: found or "ok" for name, found in problems.items()},
                "attestation": self._attestation,
                "path": self._path(),
                "tokens": self._tokens(),
                "warnings": list(self._warnings()),
                **self._build,
            }
        )
        return Response(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, body)


PATH = "/metrics"
_PARTS_AT_ONCE = 4
"""Parts of a scrape that are made in one turn of the event loop: less than a millisecond."""

_REFUSED = {
    Access.UNKNOWN_TOKEN: Response(
        HTTPStatus.UNAUTHORIZED,
        b"A token of the cluster for the audience of this page is needed.\n",
        _PLAIN,
        (("WWW-Authenticate", "Bearer"),),
    ),
    Access.TOO_OFTEN: Response(
        HTTPStatus.TOO_MANY_REQUESTS, b"Too many tokens.\n", _PLAIN, (("Retry-After", "1"),)
    ),
    Access.UNDECIDED: Response(
        HTTPStatus.SERVICE_UNAVAILABLE, b"The API server cannot be asked.\n", _PLAIN
    ),
}


class Reviewer(Protocol):
    """Says who may read a page."""

    async def access(self, authorization: bytes, address: str) -> Access:
        """Return what the value of a header `Authorization` is good for."""


class Reviewed:
    """A page for callers that the cluster lets read it."""

    def __init__(
        self, page: Handler, reviewer: Reviewer, *, role: str, field: str = "Authorization"
    ) -> None:
        """`role` is the ClusterRole that permits it; `field` the header with the token.

        Of two such headers none counts.
        """
        self._page = page
        self._reviewer = reviewer
        self._field = field.lower().encode()
        why = f"RBAC does not let you read this page: see ClusterRole {role}.\n"
        denied = Response(HTTPStatus.FORBIDDEN, why.encode(), _PLAIN)
        self._refused = {**_REFUSED, Access.DENIED: denied}

    async def __call__(self, request: Request) -> Response:
        """Answer who may read the page."""
        given = [value for name, value in request.fields if name.lower() == self._field]
        header = given[0] if len(given) == 1 else b""
        access = await self._reviewer.access(header, request.caller.address)
        return await self._page(request) if access is Access.ALLOWED else self._refused[access]


class ByPath:
    """Several pages on one listener."""

    def __init__(self, pages: Mapping[str, Handler]) -> None:
        self._pages = pages

    async def __call__(self, request: Request) -> Response:
        page = self._pages.get(request.target.partition("?")[0])
        return await page(request) if page else _NOT_FOUND


class Scrapes:
    """The handler of a listener for metrics."""

    def __init__(self, registry: Registry, clock: Clock, *, public: bool) -> None:
        """`public`: without what names a tenant."""
        self._registry = registry
        self._clock = clock
        self._public = public
        self._kept: tuple[float, Response] | None = None
        self._rendering: asyncio.Task[Response] | None = None

    async def __call__(self, request: Request) -> Response:
        if request.target.partition("?")[0] != PATH:
            return _NOT_FOUND
        if self._kept is not None and self._clock.monotonic() - self._kept[0] <= KEPT:
            return self._kept[1]
        if self._rendering is None:
            self._rendering = asyncio.create_task(self._render())
        # It is made for all who ask meanwhile, also if the first of them leaves.
        return await asyncio.shield(self._rendering)

    async def _render(self) -> Response:
        made = self._clock.monotonic()
        try:
            text: list[bytes] = []
            for number, part in enumerate(parts(list(self._registry), public=self._public)):
                text.append(part.encode())
                if number % _PARTS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            response = Response(HTTPStatus.OK, b"".join(text), CONTENT_TYPE)
            self._kept = (made, response)
            return response
        finally:
            self._rendering = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of the agent that its pages describe."""

    checks: Mapping[str, Check]
    """What `/readyz` asks."""
    warnings: Check
    net: Net
    path: PathWatch
    watches: Callable[[], Sequence[Watch]]
    connections: Callable[[], int]
    cluster: WatchedCluster
    decided: Decided
    kube: KubeApi


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The listeners of the pages, and what must run beside them."""

    listeners: dict[str, Listener]
    """By the name of their socket."""
    tasks: list[Callable[[], Coroutine[Any, Any, None]]]


def endpoints(
    settings: NmiSettings, clock: Clock, stack: AsyncExitStack, seen: Observation, parts: Parts
) -> Endpoints:
    """Return the pages that were chosen; `stack` ends what they began."""
    registry = seen.metrics.registry
    add_interception(registry, parts.net)
    add_attestation(registry, settings.attestation, parts.net)
    add_watches(registry, parts.watches)
    add_connections(registry, parts.connections)
    add_writers(registry, seen.writers())
    add_process(registry)
    add_data_path(registry, lambda: parts.path.hop, lambda: parts.path.backend)
    probes = Probes(
        parts.checks,
        clock,
        attestation=settings.attestation,
        warnings=parts.warnings,
        path=lambda: {
            "hop": parts.path.hop.value,
            "plane": parts.path.plane,
            "backend": parts.path.backend or "",
        },
        tokens=lambda: seen.requests.outcomes.lately(parts.cluster.pod),
        build=build(),
    )
    made = Endpoints({"probes": Listener(probes, FOR_LOOKS)}, [])
    if settings.prometheus_port:
        scrapes = Scrapes(registry, clock, public=not settings.compat.open_metrics)
        made.listeners["metrics"] = Listener(scrapes, FOR_LOOKS)
    known = {
        "attestation": lambda: settings.attestation,
        "interception": parts.net.interception_problems,
        "watches": lambda: [
            {
                "what": watch.what,
                "synced": watch.synced,
                "trouble": watch.trouble,
                "silent_seconds": round(watch.age, 1),
            }
            for watch in parts.watches()
        ],
        **seen.known,
    }
    debug = Debug(parts.cluster, parts.decided, known, seen.requests.outcomes)
    if settings.metrics_secure_port:
        certificate, key = settings.metrics_cert_file, settings.metrics_key_file
        files = (Path(certificate), Path(key)) if certificate else None
        own = ServerCertificate(settings.node, files=files)
        scrapers = PathPermissions(
            parts.kube, clock, path=PATH, audience=debug_access.METRICS_AUDIENCE
        )
        # Who asks comes through the API server: where that is away, nobody need be remembered.
        readers = PathPermissions(
            parts.kube,
            clock,
            path=debug_access.PATH,
            audience=debug_access.audience_of(settings.node),
            outlives=0,
        )
        pages = {
            PATH: Reviewed(
                Scrapes(registry, clock, public=False), scrapers, role="podidentity-metrics-reader"
            ),
            debug_access.PATH: Reviewed(
                debug, readers, role="podidentity-debug-reader", field=debug_access.FIELD
            ),
        }
        for each in (scrapers, readers):
            stack.push_async_callback(each.close)
        made.listeners["secure-metrics"] = Listener(ByPath(pages), FOR_LOOKS, tls=own.context)
        made.tasks.append(lambda: own.run(clock))
    if settings.debug_port:
        made.listeners["debug"] = Listener(OnLoopback(debug), FOR_LOOKS)
    return made

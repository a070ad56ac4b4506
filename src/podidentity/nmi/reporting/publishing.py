"""The pages that describe the agent: `/metrics` for Prometheus, `/debug` for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podidentity.core.ports import Clock
from podidentity.nmi.reporting.debug import Debug, Decided, Watched
from podidentity.nmi.reporting.metrics import (
    Net,
    Watch,
    add_attestation,
    add_connections,
    add_interception,
    add_process,
    add_watches,
    add_writers,
)
from podidentity.nmi.reporting.observing import Observation
from podidentity.nmi.reporting.scrapes import Scrapes
from podidentity.nmi.server.messages import Handler
from podidentity.settings import NmiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What there is to look at."""

    net: Net
    watches: Callable[[], Sequence[Watch]]
    connections: Callable[[], int]
    cluster: Watched
    decided: Decided


def endpoints(
    settings: NmiSettings, clock: Clock, seen: Observation, parts: Parts
) -> dict[str, Handler]:
    """Return what answers at the sockets `metrics` and `debug`, where they were chosen."""
    registry = seen.metrics.registry
    add_interception(registry, parts.net)
    add_attestation(registry, settings.attestation)
    add_watches(registry, parts.watches)
    add_connections(registry, parts.connections)
    add_writers(registry, seen.writers())
    add_process(registry)
    served: dict[str, Handler] = {}
    if settings.prometheus_port:
        served["metrics"] = Scrapes(registry, clock)
    if settings.debug_port:
        known = {
            "attestation": lambda: settings.attestation,
            "interception": parts.net.interception_problems,
            "watches": lambda: list(map(_watch, parts.watches())),
            **seen.known,
        }
        served["debug"] = Debug(parts.cluster, parts.decided, known)
    return served


def _watch(watch: Watch) -> dict[str, object]:
    return {
        "what": watch.what,
        "synced": watch.synced,
        "trouble": watch.trouble,
        "silent_seconds": round(watch.age, 1),
    }

"""The listeners for those who look at the agent: `/metrics` for Prometheus, `/debug` for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from podidentity.core.attestation import AttestationMode
from podidentity.core.ports import Clock
from podidentity.nmi.reporting.debug import Debug, Decided, Watched
from podidentity.nmi.reporting.metrics import (
    Guard,
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
from podidentity.nmi.server.listener import FOR_LOOKS, Listener
from podidentity.settings import NmiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What there is to look at."""

    interception: Guard
    attestation: AttestationMode
    watches: Callable[[], Sequence[Watch]]
    connections: Callable[[], int]
    cluster: Watched
    decided: Decided


async def publish(
    settings: NmiSettings, clock: Clock, stack: AsyncExitStack, seen: Observation, parts: Parts
) -> None:
    """Serve the metrics, and `/debug` where it was chosen; raise OSError for a port in use."""
    registry = seen.metrics.registry
    add_interception(registry, parts.interception)
    add_attestation(registry, parts.attestation)
    add_watches(registry, parts.watches)
    add_connections(registry, parts.connections)
    add_writers(registry, seen.writers())
    add_process(registry)
    if settings.prometheus_port:
        # Prometheus asks at the node's address, as it asked the archived agent.
        everywhere = "0.0.0.0"  # noqa: S104
        scrapes = Scrapes(registry, clock)
        listener = await Listener.start(scrapes, everywhere, settings.prometheus_port, FOR_LOOKS)
        stack.push_async_callback(listener.close, 0.0)
    if settings.debug_port:
        known = {
            "attestation": lambda: parts.attestation,
            "interception": parts.interception.problems,
            "watches": lambda: list(map(_watch, parts.watches())),
            **seen.known,
        }
        debug = Debug(parts.cluster, parts.decided, known)
        listener = await Listener.start(debug, "127.0.0.1", settings.debug_port)
        stack.push_async_callback(listener.close, 0.0)


def _watch(watch: Watch) -> dict[str, object]:
    return {
        "what": watch.what,
        "synced": watch.synced,
        "trouble": watch.trouble,
        "silent_seconds": round(watch.age, 1),
    }

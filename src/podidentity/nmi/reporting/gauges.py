"""Metrics that are looked at when a scrape asks, because somebody else keeps them anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from podidentity.core.attestation import AttestationMode
from podidentity.nmi.reporting.observing import Observation
from podidentity.telemetry import process
from podidentity.telemetry.metrics import Reading, Registry


class Watch(Protocol):
    """What is followed at the API server."""

    @property
    def what(self) -> str:
        """Its name, such as `pods of node n1`."""

    @property
    def synced(self) -> bool:
        """Whether it has been read once."""

    @property
    def trouble(self) -> str:
        """Why it cannot be followed just now; "" while it can."""

    @property
    def age(self) -> float:
        """Seconds since the API server last said anything about it."""


class Net(Protocol):
    """What `net` says of the node."""

    @property
    def repairs(self) -> int:
        """How often rules were put right."""

    def interception_problems(self) -> Sequence[str]:
        """Return what keeps traffic from being intercepted."""


def look_at_interception(registry: Registry, net: Net) -> None:
    """Show whether pods' traffic is led here."""
    registry.look(
        "gauge",
        "podidentity_interception_healthy",
        "1 while pods' IMDS traffic is led to this agent and nowhere else",
        lambda: _one(not net.interception_problems()),
    )
    registry.look(
        "counter",
        "podidentity_interception_repairs_total",
        "How often others had changed the rules, and they were put right",
        lambda: _one(net.repairs),
    )


def look_at_attestation(registry: Registry, mode: AttestationMode) -> None:
    """Show what proves callers."""
    registry.look(
        "gauge",
        "podidentity_attestation_mode",
        "1 for what proves callers, the value of --attestation",
        lambda: [((each.value,), float(each is mode)) for each in AttestationMode],
        ("mode",),
    )


def look_at_watches(registry: Registry, watches: Callable[[], Iterable[Watch]]) -> None:
    """Show whether the cluster is followed."""
    registry.look(
        "gauge",
        "podidentity_watch_up",
        "1 while a resource is followed at the API server",
        lambda: [((kind(each),), float(each.synced and not each.trouble)) for each in watches()],
        ("resource",),
    )
    registry.look(
        "gauge",
        "podidentity_watch_silence_seconds",
        "Seconds since the API server last said anything about a resource",
        lambda: [((kind(each),), round(each.age, 3)) for each in watches()],
        ("resource",),
    )


def look_at_connections(registry: Registry, count: Callable[[], int]) -> None:
    """Show how many connections pods hold."""
    registry.look(
        "gauge",
        "podidentity_nmi_connections",
        "Connections that are open",
        lambda: _one(count()),
    )


def look_at_tokens(registry: Registry, count: Callable[[], int]) -> None:
    """Show how many tokens are kept."""
    registry.look(
        "gauge",
        "podidentity_cache_tokens",
        "Tokens that are kept",
        lambda: _one(count()),
    )


def look_at_writers(registry: Registry, seen: Observation) -> None:
    """Show whether what is written arrives."""
    writers = [("log", seen.log), *([("audit", seen.audit)] if seen.audit else [])]
    registry.look(
        "counter",
        "podidentity_lines_lost_total",
        "Lines of the log, or of the audit log, that could not be written",
        lambda: [((name,), writer.lost) for name, writer in writers],
        ("to",),
    )
    registry.look(
        "gauge",
        "podidentity_lines_writable",
        "1 while the log, or the audit log, can be written",
        lambda: [((name,), float(not writer.failure)) for name, writer in writers],
        ("to",),
    )


def look_at_process(registry: Registry) -> None:
    """Show what the process takes, by the names that every Prometheus client uses."""
    look = registry.look
    look(
        "counter",
        "process_cpu_seconds_total",
        "CPU time used, in seconds",
        lambda: _one(process.cpu_seconds()),
    )
    look(
        "gauge",
        "process_resident_memory_bytes",
        "Resident memory",
        lambda: _one(process.memory_bytes()),
    )
    look(
        "gauge",
        "process_open_fds",
        "Files and sockets that are open",
        lambda: _one(process.open_descriptors()),
    )
    look(
        "gauge",
        "process_start_time_seconds",
        "When it was started, in seconds since 1970",
        lambda: _one(process.started()),
    )


def kind(watch: Watch) -> str:
    """Return the resource alone, as a label: the node is known by who is scraped."""
    return watch.what.partition(" ")[0]


def _one(value: float) -> Reading:
    return [((), float(value))]

"""Every metric of the agent, on one page.

The first part has the archived project's names, types and labels to the letter, for dashboards
that exist; its buckets are all there too, with smaller ones before them, where most requests are.
https://azure.github.io/aad-pod-identity/docs/configure/pod_identity_metrics/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from podidentity import __version__
from podidentity.core.attestation import AttestationMode, Verdict
from podidentity.core.data_path import Backend, Hop
from podidentity.telemetry.lines import Writer
from podidentity.telemetry.metrics import Registry, Samples

_SMALL = (0.001, 0.002, 0.005)
_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2, 3, 4, 5, 10)
_N = (0.5, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)
OPERATION_BOUNDS = (*_SMALL, 0.01, 0.025, 0.05, 0.1, 0.25, *_N)
CALL_BOUNDS = (*_SMALL, *_S)


class NmiMetrics:
    """The metrics that change while requests are served."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        counter, histogram = registry.counter, registry.histogram
        self.operations = histogram(
            "aadpodidentity_nmi_operations_duration_seconds",
            "Duration in seconds for nmi operations",
            ("operation_type", "status_code", "namespace", "resource"),
            bounds=OPERATION_BOUNDS,
            open_labels=("namespace", "resource"),
            private_labels=("namespace", "resource"),
        )
        self.imds_seconds = histogram(
            "aadpodidentity_imds_operations_duration_seconds",
            "Duration in seconds of imds token operations",
            ("operation_type",),
            bounds=CALL_BOUNDS,
        )
        self.imds_errors = counter(
            "aadpodidentity_imds_operations_errors_count",
            "Total number of errors in imds token operations",
            ("operation_type",),
        )
        self.kubernetes_errors = counter(
            "aadpodidentity_kubernetes_api_operations_errors_count",
            "Total number of errors in kubernetes api operations",
            ("operation_type",),
            open_labels=("operation_type",),
            room=50,
        )
        self.requests = counter(
            "podidentity_nmi_requests_total",
            "Requests by route and status; 499: the client left before its answer",
            ("route", "status_code"),
            open_labels=("status_code",),
            room=100,
        )
        self.decisions = counter(
            "podidentity_nmi_decisions_total",
            "Decisions about token requests, why, and what entitles the pod",
            ("decision", "reason", "basis"),
        )
        self.tokens = counter(
            "podidentity_nmi_tokens_total",
            "Tokens given, by where they came from: cache (a hit), shared (another request's "
            "fetch), imds or entra (a miss)",
            ("origin",),
        )
        self.calls = counter(
            "podidentity_upstream_requests_total",
            "Tokens asked of IMDS or Entra, by outcome",
            ("source", "outcome"),
        )
        self.call_seconds = histogram(
            "podidentity_upstream_duration_seconds",
            "Seconds until IMDS or Entra answered, in whatever way",
            ("source",),
            bounds=CALL_BOUNDS,
        )
        self.events = counter(
            "podidentity_events_total",
            "Kubernetes events: written, repeated, dropped, or failed",
            ("outcome",),
        )
        registry.gauge(
            "podidentity_build_info",
            "1, with the version of this agent",
            lambda: [((__version__,), 1.0)],
            ("version",),
        )


# Failed requests to the API server.

_OLD_NAMES = {("get", "pods"): "get_pod_list", ("get", "secrets"): "get_secret"}
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete", "WATCH": "watch"}


def kubernetes_errors(metrics: NmiMetrics) -> Callable[[str, str], None]:
    """Return what counts a failed request (method, path) to the API server."""

    def count(method: str, path: str) -> None:
        metrics.kubernetes_errors.of(kubernetes_operation(method, path)).value += 1

    return count


def kubernetes_operation(method: str, path: str) -> str:
    """Return the name of a request, the archived agent's where it made the same."""
    segments = path.strip("/").split("/")
    # api/v1/… or apis/GROUP/VERSION/…, then perhaps namespaces/NAME.
    rest = segments[2:] if segments[0] == "api" else segments[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    kind = rest[0] if rest else "api"
    verb = _VERBS.get(method, "other")
    return _OLD_NAMES.get((verb, kind), f"{verb}_{kind}")


# Gauges and counters that other components keep; their callbacks are called at each scrape.


class Watch(Protocol):
    """What is followed at the API server, as a Reflector tells of it."""

    @property
    def what(self) -> str: ...
    @property
    def synced(self) -> bool: ...
    @property
    def trouble(self) -> str: ...
    @property
    def age(self) -> float: ...
    @property
    def stale(self) -> float: ...


class Net(Protocol):
    """What `net` says of the node."""

    @property
    def repairs(self) -> int:
        """How often rules were put right."""

    @property
    def dropped_resets(self) -> int:
        """How many resets of pods the rules dropped."""

    @property
    def verdicts(self) -> Mapping[Verdict, int]:
        """How often connections were judged so."""

    def interception_problems(self) -> Sequence[str]:
        """Return what keeps traffic from being intercepted."""


def add_interception(registry: Registry, net: Net) -> None:
    """Show whether pods' traffic is led here."""
    registry.gauge(
        "podidentity_interception_healthy",
        "1 while pods' IMDS traffic is led to this agent and nowhere else",
        lambda: _one(not net.interception_problems()),
    )
    registry.counter_callback(
        "podidentity_interception_repairs_total",
        "How often others had changed the rules, and they were put right",
        lambda: _one(net.repairs),
    )
    registry.counter_callback(
        "podidentity_resets_dropped_total",
        "Resets of connections to IMDS that the rules dropped: a pod sent too many in a second",
        lambda: _one(net.dropped_resets),
    )


def add_attestation(registry: Registry, mode: AttestationMode, net: Net) -> None:
    """Show what proves callers, and what it said of them."""
    registry.gauge(
        "podidentity_attestation_mode",
        "1 for what proves callers, the value of --attestation",
        lambda: [((each.value,), float(each is mode)) for each in AttestationMode],
        ("mode",),
    )
    registry.counter_callback(
        "podidentity_attestation_verdicts_total",
        "What the kernel said of connections",
        lambda: [((verdict.value,), count) for verdict, count in net.verdicts.items()],
        ("verdict",),
    )


def add_data_path(
    registry: Registry, hop: Callable[[], Hop], backend: Callable[[], Backend | None]
) -> None:
    """Show how far a request from the probe pod comes, and what leads it here."""
    registry.gauge(
        "podidentity_data_path_backend",
        "1 for what leads pods' requests to NMI, by the last request from the probe pod",
        lambda: [((each.value,), float(each is backend())) for each in Backend],
        ("backend",),
    )
    registry.gauge(
        "podidentity_data_path",
        "1 for how far a request from the probe pod came: proved, or where it ended",
        lambda: [((each.value,), float(each is hop())) for each in Hop],
        ("hop",),
    )


def add_watches(registry: Registry, watches: Callable[[], Iterable[Watch]]) -> None:
    """Show whether the cluster is followed."""
    registry.gauge(
        "podidentity_watch_up",
        "1 while a resource is followed at the API server",
        lambda: [((kind(each),), float(each.synced and not each.trouble)) for each in watches()],
        ("resource",),
    )
    registry.gauge(
        "podidentity_watch_silence_seconds",
        "Seconds since the API server last said anything about a resource",
        lambda: [((kind(each),), round(each.age, 3)) for each in watches()],
        ("resource",),
    )
    registry.gauge(
        "podidentity_stale_seconds",
        "How many seconds ago NMI last followed the cluster; 0 while it does",
        lambda: _one(round(max((each.stale for each in watches()), default=0.0), 3)),
    )


def add_connections(registry: Registry, count: Callable[[], int]) -> None:
    registry.gauge(
        "podidentity_nmi_connections",
        "Connections that are open",
        lambda: _one(count()),
    )


def add_tokens(registry: Registry, count: Callable[[], int]) -> None:
    registry.gauge(
        "podidentity_cache_tokens",
        "Tokens that are kept",
        lambda: _one(count()),
    )


def add_writers(registry: Registry, writers: Mapping[str, Writer]) -> None:
    """Show whether what is written arrives."""
    registry.counter_callback(
        "podidentity_lines_lost_total",
        "Lines of the log, or of the audit log, that could not be written",
        lambda: [((name,), writer.lost) for name, writer in writers.items()],
        ("to",),
    )
    registry.gauge(
        "podidentity_lines_writable",
        "1 while the log, or the audit log, can be written",
        lambda: [((name,), float(not writer.failure)) for name, writer in writers.items()],
        ("to",),
    )


def kind(watch: Watch) -> str:
    """Return the resource alone, as a label: the node is known by who is scraped."""
    return watch.what.partition(" ")[0]


def _one(value: float) -> Samples:
    return [((), float(value))]

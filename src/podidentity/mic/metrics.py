"""Every metric of the controller, on one page; and what it says of each call.

The first part has the archived project's names, types and labels to the letter, for dashboards that
exist; its buckets are all there too, with smaller ones before them where most calls are.
https://azure.github.io/aad-pod-identity/docs/configure/prometheus_monitoring/
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Callable

from podidentity import __version__
from podidentity.core.hosts import Host
from podidentity.core.resources import Assignment
from podidentity.mic.calls import (
    Accepted,
    Action,
    CreateRecord,
    DeleteRecord,
    Failure,
    ListHosts,
    LogLine,
    PatchHost,
    PollOperation,
    Progress,
    ReadHost,
    Result,
    StoredRecord,
    UpdateRecord,
)
from podidentity.telemetry.metrics import Counter, Histogram, Registry
from podidentity.telemetry.process import add_process

_SMALL = (0.001, 0.002, 0.005)
_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2, 3, 4, 5, 10)
_M = (0.5, 1, 5, 10, 30, 60, 120, 300, 600, 900, 1200)
RECORD_BOUNDS = (*_SMALL, *_S)
CYCLE_BOUNDS = (0.01, 0.05, 0.1, *_M)
CLOUD_BOUNDS = (0.05, 0.1, 0.2, *_M)
ASSIGNED_BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, *_M)
OVER = 7200.0
"""Seconds after which a failure that was not met again is over. MIC asks again within an hour, but
for machines that are gone."""
_ARM = (ReadHost, ListHosts, PatchHost, PollOperation)
_RECORDS = {CreateRecord: "addition", UpdateRecord: "update", DeleteRecord: "deletion"}

_log = logging.getLogger("podidentity.mic")


class MicMetrics:
    """The metrics that change as the controller works; a mic.driver.Observer."""

    def __init__(self, registry: Registry, now: Callable[[], float]) -> None:
        """`now` is a monotonic clock."""
        self.registry = registry
        self._now = now
        counter, histogram = registry.counter, registry.histogram
        self._record_counts: dict[type, Counter] = {}
        self._record_seconds: dict[type, Histogram] = {}
        for action, word in _RECORDS.items():
            name = f"aadpodidentity_assigned_identity_{word}"
            self._record_seconds[action] = histogram(
                f"{name}_duration_seconds",
                f"Duration in seconds of assigned identity {word} operations",
                bounds=RECORD_BOUNDS,
            ).of()
            self._record_counts[action] = counter(
                f"{name}_count", f"Total number of assigned identity {word} operations"
            ).of()
        self._cycle_seconds = histogram(
            "aadpodidentity_mic_cycle_duration_seconds",
            "Duration in seconds from the first call until none was under way any more",
            bounds=CYCLE_BOUNDS,
        ).of()
        self._cycles = counter(
            "aadpodidentity_mic_cycle_count", "Total number of times that all calls were done"
        ).of()
        self.cloud_errors = counter(
            "aadpodidentity_cloud_provider_operations_errors_count",
            "Total number of errors in cloud provider operations",
            ("operation_type",),
        )
        self.cloud_seconds = histogram(
            "aadpodidentity_cloud_provider_operations_duration_seconds",
            "Duration in seconds of cloudprovider operations",
            ("operation_type",),
            bounds=CLOUD_BOUNDS,
        )
        self.kubernetes_errors = counter(
            "aadpodidentity_kubernetes_api_operations_errors_count",
            "Total number of errors in kubernetes api operations",
            ("operation_type",),
        )
        self.arm_calls = counter(
            "podidentity_mic_arm_calls_total",
            "Calls of Azure Resource Manager, by kind and result: ok, or the kind of failure",
            ("call", "result"),
        )
        self.assigned_seconds = histogram(
            "podidentity_mic_assigned_seconds",
            "Seconds from when a pod began to need an identity until its record said Assigned",
            bounds=ASSIGNED_BOUNDS,
        ).of()
        self.reports = counter(
            "podidentity_mic_reports_total",
            "What the controller had to say in its log, by topic",
            ("topic",),
            open_labels=("topic",),
            room=100,
        )
        self._under_way: Tally[str] = Tally()
        self._cycle_began = 0.0
        self._changing: dict[str, float] = {}
        """When a change began, by host."""
        self._troubles: dict[tuple[str, str], tuple[Failure, float]] = {}
        """By place and call: what Azure answered last where it did not do that, and when."""
        registry.gauge(
            "podidentity_mic_queue_depth",
            "Calls under way, by kind",
            lambda: [((kind,), float(count)) for kind, count in self._under_way.items()],
            ("call",),
        )
        registry.gauge(
            "podidentity_build_info",
            "1, with the version of this controller",
            lambda: [((__version__,), 1.0)],
            ("version",),
        )
        add_process(registry)

    def begun(self, action: Action) -> None:
        if not self._under_way.total():
            self._cycle_began = self._now()
        self._under_way[_word(action)] += 1
        if isinstance(action, PatchHost):
            self._changing[action.host.folded] = self._now()

    def ended(self, action: Action, result: Result, seconds: float, now: float) -> None:
        self._under_way[_word(action)] -= 1
        if not self._under_way.total():
            self._cycles.value += 1
            self._cycle_seconds.observe(self._now() - self._cycle_began)
        if isinstance(action, _ARM):
            self._azure(action, result, seconds)
        else:
            self._kubernetes(action, result, seconds)
        said = result.record if isinstance(result, StoredRecord) else None
        is_assigned = said is not None and said.state is Assignment.ASSIGNED
        if isinstance(action, CreateRecord | UpdateRecord) and action.record and is_assigned:
            self.assigned_seconds.observe(max(0.0, now - action.since))

    def given_up(self, action: Action) -> None:
        self._under_way[_word(action)] -= 1
        if isinstance(action, PatchHost | PollOperation):
            self._changing.pop(action.host.folded, None)

    def troubles(self) -> list[str]:
        """Return what Azure did not do, for `/readyz`, which every pod can read.

        Azure's own words are in the log alone: they may name identities of tenants.
        """
        since = self._now() - OVER
        self._troubles = {key: each for key, each in self._troubles.items() if each[1] > since}
        return [
            f"{place}: {call}: {failure.kind}{_wait(failure)}"
            for (place, call), (failure, _) in sorted(self._troubles.items())
        ]

    def _note(self, action: Action, result: Result) -> None:
        """Log the first failure of a kind, and that it is over."""
        key = (_place(action), _word(action))
        before = self._troubles.pop(key, None)
        if isinstance(result, Failure):
            self._troubles[key] = (result, self._now())
            if before is None or before[0].kind is not result.kind:
                said = f"{_wait(result)}: {result.message or 'no message'}"
                _log.warning("%s: Azure, %s: %s%s", *key, result.kind, said)
        elif before is not None:
            _log.info("%s: Azure, %s: it is well again", *key)

    def _azure(self, action: Action, result: Result, seconds: float) -> None:
        self._note(action, result)
        failed = isinstance(result, Failure)
        told = result.kind.value if isinstance(result, Failure) else "ok"
        self.arm_calls.of(_word(action), told).value += 1
        operation = _operation(action)
        if failed:
            self.cloud_errors.of(operation).value += 1
        if isinstance(action, PatchHost | PollOperation):
            # A change lasts until Azure says that it is done.
            done = failed or (
                not result.operation
                if isinstance(result, Accepted)
                else isinstance(result, Progress) and result.done
            )
            began = self._changing.pop(action.host.folded, None) if done else None
            if began is not None:
                self.cloud_seconds.of(operation).observe(self._now() - began)
        else:
            self.cloud_seconds.of(operation).observe(seconds)

    def _kubernetes(self, action: Action, result: Result, seconds: float) -> None:
        kind = type(action)
        if isinstance(result, Failure):
            name = f"assigned_identity_{_RECORDS[kind]}" if kind in _RECORDS else _word(action)
            self.kubernetes_errors.of(name).value += 1
        elif kind in _RECORDS:
            self._record_counts[kind].value += 1
            self._record_seconds[kind].observe(seconds)

    def report(self, report: LogLine) -> None:
        self.reports.of(report.topic).value += 1
        where = f"{report.host}: " if report.host else ""
        step = f" {report.next_step}" if report.next_step else ""
        _log.warning("%s%s%s", where, report.message, step)


def _place(action: Action) -> str:
    host = getattr(action, "host", None)
    if isinstance(host, Host):
        return host.resource_id
    return f"{getattr(action, 'subscription', '')}/{getattr(action, 'group', '')}"


def _wait(failure: Failure) -> str:
    return f", for {failure.retry_after:.0f} s" if failure.retry_after else ""


def _word(action: Action) -> str:
    """Return the kind of a call as a label: `patch_host`."""
    name = type(action).__name__
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name).lstrip("_")


def _operation(action: Action) -> str:
    """Return the archived controller's name of an operation of Azure."""
    sets = getattr(getattr(action, "host", None), "is_scale_set", False)
    sets = sets or getattr(action, "scale_sets", False)
    verb = "update" if isinstance(action, PatchHost | PollOperation) else "get"
    return f"{'vmss' if sets else 'vm'}_{verb}"


def add_state(
    registry: Registry,
    *,
    leading: Callable[[], bool],
    elections: Callable[[], int],
    paused: Callable[[], tuple[bool, int]],
    watched: Callable[[], list[tuple[str, bool]]],
) -> None:
    """Show who leads, what is paused (everything; how many hosts), and what is followed."""
    registry.gauge(
        "podidentity_mic_leading",
        "1 while this replica leads",
        lambda: [((), float(leading()))],
    )
    registry.counter_callback(
        "aadpodidentity_mic_new_leader_election_count",
        "Total number of times that this replica became the leader",
        lambda: [((), float(elections()))],
    )
    registry.gauge(
        "podidentity_mic_paused",
        "1 while podidentity mic pause keeps MIC from changing Azure; hosts: how many alone",
        lambda: [(("all",), float(paused()[0])), (("hosts",), float(paused()[1]))],
        ("what",),
    )
    registry.gauge(
        "podidentity_watch_up",
        "1 while a resource is followed at the API server",
        lambda: [((what,), float(up)) for what, up in watched()],
        ("resource",),
    )

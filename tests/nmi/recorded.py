"""A record of requests in memory: its lines, audit records, numbers and events."""

from __future__ import annotations

import json
from typing import Any

from podidentity.core.ports import Clock
from podidentity.core.resources import Pod
from podidentity.nmi.reporting.metrics import NmiMetrics
from podidentity.nmi.reporting.request_log import Record, Sinks
from podidentity.telemetry.exposition import render
from podidentity.telemetry.lines import Json
from podidentity.telemetry.metrics import Registry
from podidentity.telemetry.writing import Writer


class Recorded:
    """A Record, and what it wrote."""

    def __init__(self, clock: Clock, *, required: Writer | None = None) -> None:
        self.written: list[str] = []
        self.audited: list[str] = []
        self.told: list[tuple[Pod, str, str]] = []
        self.metrics = NmiMetrics(Registry())
        sinks = Sinks(Json(), self.written.append, self.audited.append)
        self.record = Record(sinks, self.metrics, clock, node="n1", required=required)
        self.record.events = self

    def refused(self, pod: Pod, reason: str, note: str) -> None:
        self.told.append((pod, reason, note))

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.written]

    @property
    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audited]

    def scraped(self, start: str) -> list[str]:
        """Return the lines of a scrape that begin so."""
        text = render(self.metrics.registry)
        return [line for line in text.splitlines() if line.startswith(start)]

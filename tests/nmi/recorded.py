"""A record of requests in memory: its lines, audit records, numbers and events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from podidentity.core.ports import Clock
from podidentity.core.resources import Pod
from podidentity.nmi.reporting.metrics import NmiMetrics
from podidentity.nmi.reporting.request_log import AuditLog, RequestLog
from podidentity.telemetry.lines import Json, Writer
from podidentity.telemetry.metrics import Registry, render


class MemoryWriter(Writer):
    """A writer that keeps its lines."""

    failure = ""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.lost = 0

    def write(self, line: str) -> None:
        self.lines.append(line)

    def commit(self, line: str) -> asyncio.Future[str]:
        self.lines.append(line)
        written: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        written.set_result("")
        return written


class Recorded:
    """A RequestLog, and what it wrote."""

    def __init__(self, clock: Clock, audit: AuditLog | None = None) -> None:
        self.written: list[str] = []
        writer = MemoryWriter()
        self.audited = writer.lines
        self.told: list[tuple[Pod, str, str]] = []
        self.metrics = NmiMetrics(Registry())
        self.record = RequestLog(
            self.written.append,
            Json(),
            self.metrics,
            clock,
            node="n1",
            audit=audit or AuditLog(writer, required=False),
        )
        self.record.events = self

    def warn(self, pod: Pod, reason: str, note: str) -> None:
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

"""What the agent writes and counts of its own work, assembled from the settings."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from podidentity.core.ports import Clock
from podidentity.nmi.reporting.debug import Part
from podidentity.nmi.reporting.metrics import NmiMetrics
from podidentity.nmi.reporting.request_log import AuditLog, RequestLog
from podidentity.settings import NmiSettings
from podidentity.telemetry.lines import Destination, File, Stream, Writer, form_of
from podidentity.telemetry.metrics import Registry

_STDOUT = 1
_log = logging.getLogger("podidentity.audit")


@dataclass(frozen=True, slots=True)
class Observation:
    """The parts that others are given."""

    metrics: NmiMetrics
    requests: RequestLog
    log: Writer
    audit: AuditLog | None = None
    known: dict[str, Part] = field(default_factory=dict)
    """What `/debug` shows: each part of the agent adds its own."""

    def problems(self) -> Sequence[str]:
        return self.audit.problems() if self.audit else ()

    def writers(self) -> dict[str, Writer]:
        """Return the writers of log and audit log by their names in metrics."""
        return {"log": self.log} | ({"audit": self.audit.writer} if self.audit else {})


def observe(settings: NmiSettings, clock: Clock, stack: AsyncExitStack, log: Writer) -> Observation:
    """Open what records go to; `stack` writes the last of them, and ends it."""
    audit = _audit(settings, stack)
    metrics = NmiMetrics(Registry())
    form = form_of(settings.log_format)
    requests = RequestLog(log.write, form, metrics, clock, node=settings.node, audit=audit)
    return Observation(metrics, requests, log, audit)


def _audit(settings: NmiSettings, stack: AsyncExitStack) -> AuditLog | None:
    if not settings.audit_log:
        if settings.audit_required:
            raise ValueError("--audit-required needs --audit-log=PATH.")
        return None
    where = settings.audit_log
    destination: Destination = Stream(_STDOUT) if where == "-" else File(Path(where))

    def tell(failure: str) -> None:
        if failure:
            so = "no token is given" if settings.audit_required else "tokens are given all the same"
            _log.error("the audit log %s cannot be written, %s: %s", where, so, failure)
        else:
            _log.warning("the audit log %s is written again; %s records lost", where, writer.lost)

    writer = Writer(destination, name="audit", tell=tell)
    stack.callback(writer.close)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, writer.reopen)
    stack.callback(loop.remove_signal_handler, signal.SIGHUP)
    # An agent that must not answer without a record knows so before it listens.
    writer.flush()
    return AuditLog(writer, required=settings.audit_required)

"""What an answered request leaves: a log line, an audit record, numbers, an event.

The pipeline calls one method for each way in which a request ends. All that is the same for each
request like it is formatted once, as a `RequestTemplate`: then a request costs two formatted lines
and four additions, and a thread of its own writes the lines.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, Protocol

from podidentity.core.attestation import Verdict
from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    TokenRefused,
    UnprovenCaller,
)
from podidentity.core.ports import Clock
from podidentity.core.resources import Pod
from podidentity.nmi.reporting.audit import AuditLog, audit_members, decision_of, reason_of
from podidentity.nmi.reporting.metrics import AudienceLabels, NmiMetrics, label_of, route_of
from podidentity.nmi.request.outcome import Failed, Granted, Outcome, Rejected, TokenQuery
from podidentity.telemetry.lines import Form, Said, Stamps, Template, json_template
from podidentity.telemetry.log_limiter import WINDOW, LogLimiter
from podidentity.telemetry.metrics import Counter, Histogram
from podidentity.wire.imds import Route

CLIENT_LEFT = 499
"""In log and metrics only, as nginx writes it: the client did not wait for its answer."""
FAILED_FROM = HTTPStatus.BAD_REQUEST
"""From this status on a line is a warning, and repeated ones are counted instead."""

_LOGGER = "podidentity.request"

Write = Callable[[str], object]


class Events(Protocol):
    """Tells the owner of a pod of a refusal."""

    def warn(self, pod: Pod, reason: str, note: str) -> None:
        """Take note of it; costs a moment, and raises nothing."""


class RequestTemplate(NamedTuple):
    """All that requests of the same kind, pod and status have in common; preformatted."""

    stamps: Stamps
    log: Write
    line: Template
    audit: Write | None
    entry: Template
    duration: Histogram
    counters: tuple[Counter, ...]
    """The request, the decision, and the token by its origin."""

    def record(self, now: float, seconds: float) -> None:
        """Record one more that ended at `now` (seconds since 1970) and took so many seconds."""
        stamp, milliseconds = self.stamps.at(now), f"{seconds * 1000:.2f}"
        self.log(self.line.at(stamp, milliseconds))
        if self.audit is not None:
            self.audit(self.entry.at(stamp, milliseconds))
        self.observe(seconds)

    def observe(self, seconds: float) -> None:
        """Count one more that took so many seconds."""
        self.duration.observe(seconds)
        for counter in self.counters:
            counter.value += 1


class RequestLog:
    """Takes down how requests ended."""

    def __init__(
        self,
        log: Write,
        form: Form,
        metrics: NmiMetrics,
        clock: Clock,
        *,
        node: str = "",
        audit: AuditLog | None = None,
    ) -> None:
        """`log` takes lines of the log; `audit` None: there is no audit log."""
        self._log = log
        self._form = form
        self._metrics = metrics
        self._clock = clock
        self._node = node
        self._audit = audit
        self.events: Events | None = None
        """Told of refusals; None before the API server is known."""
        self._stamps = Stamps()
        self._audiences = AudienceLabels()
        # Addresses can be invented, pods cannot: the former leave the latter their room.
        self._limiters = {proved: LogLimiter() for proved in (True, False)}
        self._suppressed = asyncio.Event()

    # Token requests.

    def check(self) -> None:
        """Raise NotReady if an audit log is required and cannot be written."""
        if self._audit is not None and self._audit.problems():
            raise NotReady("the agent's audit log cannot be written")

    async def token(
        self, query: TokenQuery, outcome: Outcome, status: int, begun: float
    ) -> RequestTemplate:
        """Record an answered token request; `begun` is `Clock.monotonic` at its start.

        Returns what the next request like it leaves. Raises NotReady, with nothing recorded, if an
        audit record is required and cannot be written.
        """
        template = self._template(query, outcome, status)
        if isinstance(outcome, Granted):
            await self.again(template, begun)
            if outcome.observed is not None and self.events is not None:
                note = f"Allowed for now: {outcome.observed.told or outcome.observed}"
                self.events.warn(outcome.pod, str(outcome.observed.reason), note)
        else:
            # By what is proved, else by the address: a name is what the client says.
            proved = outcome.pod.ref if outcome.pod else outcome.evidence.delegate
            who, reason = str(proved or query.address), reason_of(outcome.error)
            says = self._may_say(who, reason, proved=proved is not None)
            await self.again(template if says else template._replace(log=_drop), begun)
            self._tell(outcome)
        return template

    async def again(self, template: RequestTemplate, begun: float) -> None:
        """Record one more request like that of `template`; raise NotReady as `token` does."""
        audit = self._audit
        now, seconds = self._clock.time(), self._clock.monotonic() - begun
        if audit is None or not audit.required:
            template.record(now, seconds)
            return
        stamp, milliseconds = self._stamps.at(now), f"{seconds * 1000:.2f}"
        await audit.commit(template.entry.at(stamp, milliseconds))
        template.log(template.line.at(stamp, milliseconds))
        template.observe(seconds)

    def _template(self, query: TokenQuery, outcome: Outcome, status: int) -> RequestTemplate:
        audit = self._audit
        return RequestTemplate(
            stamps=self._stamps,
            log=self._log,
            line=self._form.template(_token_line(query, outcome, status)),
            audit=audit.write if audit is not None else None,
            entry=json_template(audit_members(query, outcome, status, self._node) if audit else ""),
            duration=self._duration(query, outcome, status),
            counters=tuple(self._counters(query, outcome, status)),
        )

    def _duration(self, query: TokenQuery, outcome: Outcome, status: int) -> Histogram:
        namespace = outcome.pod.ref.namespace if outcome.pod else ""
        given = isinstance(outcome, Granted)
        audience = self._audiences.label(query.request.resource, given=given)
        return self._metrics.operations.of(route_of(query), str(int(status)), namespace, audience)

    def _counters(self, query: TokenQuery, outcome: Outcome, status: int) -> list[Counter]:
        metrics, basis = self._metrics, str(outcome.basis or "")
        request = metrics.requests.of(route_of(query), str(int(status)))
        if isinstance(outcome, Granted):
            decision = metrics.decisions.of(decision_of(outcome), "", basis)
            return [request, decision, metrics.tokens.of(str(outcome.fetched.origin))]
        reason = reason_of(outcome.error)
        return [request, metrics.decisions.of(decision_of(outcome), reason, basis)]

    def _tell(self, outcome: Rejected | Failed) -> None:
        """Let the pod's owner know, in words that he may read."""
        note = _note_for_owner(outcome)
        if note and self.events is not None:
            for pod in (outcome.pod,) if outcome.pod else outcome.claimed:
                self.events.warn(pod, reason_of(outcome.error), note)

    # All others.

    def other(
        self, address: str, route: Route, status: int, message: str, begun: float, **more: object
    ) -> None:
        """Record a request that concerns no pod in particular, or whose client has left."""
        self._metrics.requests.of(label_of(route), str(int(status))).value += 1
        # By its reason if it has one: the message may hold what the client wrote.
        kind = more.get("reason") or message
        if status >= FAILED_FROM and not self._may_say(
            address, f"{int(status)} {kind}", proved=False
        ):
            return
        milliseconds = f"{(self._clock.monotonic() - begun) * 1000:.2f}"
        line = self._form.template(_request_line(status, message, address, more))
        self._log(line.at(self._stamps.at(self._clock.time()), milliseconds))

    # Repeated lines.

    async def run(self) -> None:
        """Write how many repeated lines were suppressed, until cancelled."""
        while True:
            await self._suppressed.wait()
            self._suppressed.clear()
            while any(limiter.pending() for limiter in self._limiters.values()):
                await self._clock.sleep(WINDOW)
                self._sum_up()

    def _sum_up(self) -> None:
        now = self._clock.monotonic()
        for limiter in self._limiters.values():
            for who, reason, more in limiter.ended(now):
                fields = {"who": who, "reason": reason, "seconds": int(WINDOW)}
                said = Said("WARNING", _LOGGER, f"{more} more like this", fields)
                self._log(self._form.line(self._stamps.at(self._clock.time()), said))

    def _may_say(self, who: str, reason: str, *, proved: bool) -> bool:
        allowed = self._limiters[proved].allows(who, reason, self._clock.monotonic())
        if not allowed:
            self._suppressed.set()
        return allowed


def _drop(line: str) -> None:
    """Write no line: it was written often enough."""
    del line


def _note_for_owner(outcome: Rejected | Failed) -> str:
    """Return what readers of the pod's events are told; "" if there is nothing to tell."""
    error = outcome.error
    if isinstance(error, Refused):
        # What is worded for the pod names nothing that it may not know.
        return error.refusal.told or str(error.refusal)
    if isinstance(error, UnprovenCaller):
        return str(error) if outcome.evidence.verdict is not Verdict.GONE else ""
    return str(error) if isinstance(error, TokenRefused) else ""


def _token_line(query: TokenQuery, outcome: Outcome, status: int) -> Said:
    """Return the line of a token request."""
    error = None if isinstance(outcome, Granted) else outcome.error
    pod, identity, observed = outcome.pod, outcome.identity, outcome.observed
    evidence = outcome.evidence
    more = {
        "pod": pod.ref.name if pod else None,
        "namespace": pod.ref.namespace if pod else None,
        "asked_for": str(query.asked_for) if query.asked_for and pod is None else None,
        "identity": identity.ref.name if identity else None,
        "client_id": str(identity.client_id or "") if identity else None,
        "resource": query.request.resource,
        "asked": str(query.request.asked or ""),
        "source": outcome.fetched.origin if isinstance(outcome, Granted) else None,
        "reason": reason_of(error) if error else None,
        "observed": observed.reason if observed else None,
        "proof": evidence.detail if error or evidence.delegated else None,
    }
    return _request_line(status, _message(error), query.address, more)


def _message(error: PodIdentityError | None) -> str:
    """Return the words for operators, who read more than the pod: the next step, other objects."""
    if error is None:
        return "token given"
    return str(error.refusal if isinstance(error, Refused) else error)


def _request_line(status: int, message: str, address: str, more: Mapping[str, object]) -> Said:
    """Return the line of any request."""
    level = logging.INFO if status < FAILED_FROM else logging.WARNING
    head = {"status": int(status), "address": address or None}
    return Said(logging.getLevelName(level), _LOGGER, message, {**head, **more})

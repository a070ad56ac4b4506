"""What a request leaves: a log line, an audit record, numbers, an event.

The pipeline calls one method for each way in which a request ends. All that is the same for each
request like it is formatted once, as a `RequestTemplate`: then a request costs two formatted lines
and four additions, and a thread of its own writes the lines.

The audit log has one record for each decision about a token: who got what, why, and never the token
itself. A record is a JSON object in one line. Its fields are stable: programs read them. With
`--audit-required` no answer leaves before its record was written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Counted
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Protocol

from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    TokenRefused,
    UnprovenCaller,
)
from podidentity.core.ports import Clock
from podidentity.core.resources import AzureIdentity, IdentityType, ObjectRef, Pod
from podidentity.nmi.reporting.metrics import NmiMetrics
from podidentity.nmi.reporting.pod_outcomes import PodOutcomes
from podidentity.nmi.request.decision import Failed, Granted, Outcome, Rejected, TokenQuery
from podidentity.telemetry.lines import (
    Form,
    Said,
    Stamps,
    Template,
    Writer,
    json_members,
    json_template,
    present,
)
from podidentity.telemetry.log_limiter import WINDOW, LogLimiter
from podidentity.telemetry.metrics import OTHER, Counter, Histogram
from podidentity.wire.imds import TOKEN_PATH, Route

CLIENT_LEFT = 499
"""In log and metrics only, as nginx writes it: the client did not wait for its answer."""
FAILED_FROM = HTTPStatus.BAD_REQUEST
"""From this status on a line is a warning, and repeated ones are counted instead."""

_LOGGER = "podidentity.request"

HOST_ROUTE = "/host/token/"
"""A value of `operation_type`: the path, as the CSI driver's provider asks."""

_ROUTES = {
    Route.TOKEN: TOKEN_PATH,
    Route.HOST_TOKEN: HOST_ROUTE,
    Route.FORWARD: "metadata",
}
KNOWN_AUDIENCES, AUDIENCES_OF_NAMESPACE = 500, 20
"""Audiences that are told apart in labels: the first so many of which a token was given."""
LINES_OF_NAMESPACE = 100
"""About refusals of a namespace's pods, in a window, however many pods and reasons it has."""

GRANTED = "granted"
REFUSED = "refused"
FAILED = "failed"
"""Entitled, or not known: there was no token to give."""

WRITE_SECONDS = 1.0
"""That an answer waits for its record; then it is 503, because the disk or the pipe has stalled."""

Write = Callable[[str], object]


class Events(Protocol):
    """Tells the owner of a pod of a refusal."""

    def warn(self, pod: Pod, reason: str, note: str) -> None:
        """Take note of it; costs a moment, and raises nothing."""


class AuditLog:
    """The writer of the audit log, and whether answers wait for it."""

    def __init__(self, writer: Writer, *, required: bool) -> None:
        """`required`: no answer leaves before its record is written."""
        self.writer = writer
        self.required = required
        self.write = writer.write

    def problems(self) -> Sequence[str]:
        return self._failures() if self.required else ()

    def warnings(self) -> Sequence[str]:
        return () if self.required else self._failures()

    def _failures(self) -> Sequence[str]:
        failure = self.writer.failure
        return (f"the audit log cannot be written: {failure}",) if failure else ()

    async def commit(self, line: str) -> None:
        """Return when `line` is written, in a group with those of other requests.

        Raises NotReady if it cannot be; it may still be written later, without an answer.
        """
        written = self.writer.commit(line)
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                failure = await written
        except TimeoutError:
            failure = "it takes no record"
        if failure:
            raise NotReady("the agent's audit log cannot be written")


@dataclass(frozen=True, slots=True)
class RequestTemplate:
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
        self.outcomes = PodOutcomes(clock)
        """How the last requests of each pod ended."""
        self.events: Events | None = None
        """Told of refusals; None before the API server is known."""
        self._stamps = Stamps()
        self._audiences = AudienceLabels()
        # Addresses can be invented, pods cannot: the former leave the latter their room.
        self._limiters = {proved: LogLimiter() for proved in (True, False)}
        self._namespaces = LogLimiter(LINES_OF_NAMESPACE)
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
            says = self._may_say(who, reason, proved.namespace if proved else None)
            await self.again(template if says else replace(template, log=_drop), begun)
            self._tell(outcome)
        error = None if isinstance(outcome, Granted) else outcome.error
        self.outcomes.note(outcome, status, reason_of(error) if error else "", _message(error))
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
        audit, metrics, route = self._audit, self._metrics, route_of(query)
        namespace, code = outcome.pod.ref.namespace if outcome.pod else "", str(int(status))
        given = isinstance(outcome, Granted)
        audience = self._audiences.label(query.request.resource, namespace, given=given)
        reason = "" if isinstance(outcome, Granted) else reason_of(outcome.error)
        counters = [
            metrics.requests.of(route, code),
            metrics.decisions.of(decision_of(outcome), reason, str(outcome.basis or "")),
        ]
        if isinstance(outcome, Granted):
            counters.append(metrics.tokens.of(str(outcome.fetched.origin)))
        return RequestTemplate(
            stamps=self._stamps,
            log=self._log,
            line=self._form.template(_token_line(query, outcome, status)),
            audit=audit.write if audit is not None else None,
            entry=json_template(audit_members(query, outcome, status, self._node) if audit else ""),
            duration=metrics.operations.of(route, code, namespace, audience),
            counters=tuple(counters),
        )

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
        if status >= FAILED_FROM and not self._may_say(address, f"{int(status)} {kind}"):
            return
        milliseconds = f"{(self._clock.monotonic() - begun) * 1000:.2f}"
        line = self._form.template(_request_line(status, message, address, more))
        self._log(line.at(self._stamps.at(self._clock.time()), milliseconds))

    # Requests to IMDS and Entra.

    def issued(self, identity: AzureIdentity, outcome: str, seconds: float) -> None:
        """Count a request for a token of `identity`; `outcome` is `ok`, or the kind of error."""
        metrics, source = self._metrics, source_of(identity)
        metrics.calls.of(source, outcome).value += 1
        metrics.call_seconds.of(source).observe(seconds)
        operation = operation_of(identity)
        # The archived agent's `imds_operations` were Entra's as well.
        metrics.imds_seconds.of(operation).observe(seconds)
        if outcome != "ok":
            metrics.imds_errors.of(operation).value += 1

    # Repeated lines.

    async def run(self) -> None:
        """Write how many repeated lines were suppressed, until cancelled."""
        while True:
            await self._suppressed.wait()
            self._suppressed.clear()
            while any(limiter.pending() for limiter in self._all_limiters()):
                await self._clock.sleep(WINDOW)
                self._sum_up()

    def _sum_up(self) -> None:
        now = self._clock.monotonic()
        for limiter in self._all_limiters():
            for who, reason, more in limiter.ended(now):
                fields = {"who": who, "reason": reason, "seconds": int(WINDOW)}
                said = Said("WARNING", _LOGGER, f"{more} more like this", fields)
                self._log(self._form.line(self._stamps.at(self._clock.time()), said))

    def _all_limiters(self) -> tuple[LogLimiter, ...]:
        return (*self._limiters.values(), self._namespaces)

    def _may_say(self, who: str, reason: str, namespace: str | None = None) -> bool:
        """Return whether to write one more line; `namespace` is that of a proved client."""
        limiter, now = self._limiters[namespace is not None], self._clock.monotonic()
        allowed = limiter.allows(who, reason, now) and (
            namespace is None or self._namespaces.allows(namespace, "", now)
        )
        if not allowed:
            self._suppressed.set()
        return allowed


# Log lines.


def _drop(line: str) -> None:
    """Write no line: it was written often enough."""
    del line


def _note_for_owner(outcome: Rejected | Failed) -> str:
    """Return what readers of the pod's events are told; "" if there is nothing to tell."""
    error = outcome.error
    if isinstance(error, Refused):
        # What is worded for the pod names nothing that it may not know.
        return error.refusal.told or str(error.refusal)
    return str(error) if isinstance(error, (UnprovenCaller, TokenRefused)) else ""


def _token_line(query: TokenQuery, outcome: Outcome, status: int) -> Said:
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
    level = logging.INFO if status < FAILED_FROM else logging.WARNING
    head = {"status": int(status), "address": address or None}
    return Said(logging.getLevelName(level), _LOGGER, message, {**head, **more})


# Audit records.


def decision_of(outcome: Outcome) -> str:
    if isinstance(outcome, Granted):
        return GRANTED
    return FAILED if isinstance(outcome, Failed) else REFUSED


def reason_of(error: PodIdentityError) -> str:
    """Return the reason of a refusal, or the kind of error: a bounded set of words."""
    return str(error.refusal.reason) if isinstance(error, Refused) else type(error).__name__


def audit_members(query: TokenQuery, outcome: Outcome, status: int, node: str) -> str:
    """Return the record without its time and its `ms`, which differ each time."""
    request, evidence, observed = query.request, outcome.evidence, outcome.observed
    error = None if isinstance(outcome, Granted) else outcome.error
    pod = outcome.pod
    return json_members(
        present(
            {
                "decision": decision_of(outcome),
                "reason": reason_of(error) if error else None,
                "observed": str(observed.reason) if observed else None,
                "status": int(status),
                "pod": _pod(outcome),
                "asked_for": None if pod else _name(query.asked_for),
                "service_account": pod.service_account if pod else None,
                "node": node,
                "identity": _identity(outcome.identity),
                "audience": request.resource,
                "asked": str(request.asked) if request.asked else None,
                "basis": str(outcome.basis) if outcome.basis else None,
                "origin": str(outcome.fetched.origin) if isinstance(outcome, Granted) else None,
                "address": query.address,
                "delegated_by": str(evidence.delegate) if evidence.delegate else None,
                "proxied_by": str(evidence.proxy) if evidence.proxy else None,
                "proof": evidence.detail if error or evidence.delegated else None,
            }
        )
    )


def _pod(outcome: Outcome) -> dict[str, object] | None:
    pod = outcome.pod
    if pod is not None:
        return {"namespace": pod.ref.namespace, "name": pod.ref.name, "uid": pod.uid}
    if not isinstance(outcome, Granted) and outcome.claimed:
        # Not proved: these have the connection's address.
        return {"claimed": [str(each.ref) for each in outcome.claimed]}
    return None


def _name(ref: ObjectRef | None) -> dict[str, object] | None:
    return {"namespace": ref.namespace, "name": ref.name} if ref else None


def _identity(identity: AzureIdentity | None) -> dict[str, object] | None:
    if identity is None:
        return None
    known = {"client_id": identity.client_id, "resource_id": identity.resource_id}
    return {
        "namespace": identity.ref.namespace,
        "name": identity.ref.name,
        **{name: str(value) for name, value in known.items() if value is not None},
    }


# Labels of metrics.


def label_of(route: Route) -> str:
    return _ROUTES.get(route, "refused")


def route_of(query: TokenQuery) -> str:
    return TOKEN_PATH if query.asked_for is None else HOST_ROUTE


class AudienceLabels:
    """Audiences as values of a label: one earns its place by a token that was given for it."""

    def __init__(self) -> None:
        self._earned: set[str] = set()
        self._known: set[tuple[str, str]] = set()
        self._of_namespace: Counted[str] = Counted()

    def label(self, resource: str, namespace: str, *, given: bool) -> str:
        """Return the value for `resource`, written with or without a slash at its end."""
        plain = resource.rstrip("/")
        if (namespace, plain) in self._known:
            return plain
        full = self._of_namespace[namespace] >= AUDIENCES_OF_NAMESPACE
        if full or len(self._known) >= KNOWN_AUDIENCES or not (given or plain in self._earned):
            return OTHER
        self._earned.add(plain)
        self._known.add((namespace, plain))
        self._of_namespace[namespace] += 1
        return plain


def source_of(identity: AzureIdentity) -> str:
    """Return who issues the identity's tokens."""
    return "imds" if identity.type is IdentityType.USER_ASSIGNED else "entra"


def operation_of(identity: AzureIdentity) -> str:
    """Return the archived agent's name for asking for a token of it."""
    if identity.type is not IdentityType.USER_ASSIGNED:
        return "adal_token"
    return "adal_token_msi" if identity.system_assigned else "adal_token_msi_userassignedid"

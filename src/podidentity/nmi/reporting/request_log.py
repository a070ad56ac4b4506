"""What is left of a request once it is answered: a log line, an audit record, numbers, an event.

`Routes` calls one method for each way in which a request ends. What is the same each time a pod
asks for the same token is made once, as a `Given`: then a request costs two formatted lines and
four additions, and a thread of its own writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple, Protocol

from podidentity.core.errors import NotReady, PodIdentityError
from podidentity.core.ports import Clock
from podidentity.core.resources import AzureIdentity, Pod
from podidentity.nmi.reporting.audit import Decision, decision_of, members, reason_of
from podidentity.nmi.reporting.metrics import NmiMetrics, Resources, label_of, route_of
from podidentity.nmi.reporting.words import (
    FAILED_FROM,
    more_like_this,
    owners_words,
    request_line,
    said,
)
from podidentity.nmi.request.outcome import Asked, Outcome
from podidentity.nmi.server.messages import Caller
from podidentity.telemetry import Form
from podidentity.telemetry.lines import Stamps, Template, json_template
from podidentity.telemetry.metrics import Counter, Histogram
from podidentity.telemetry.repeats import WINDOW, Repeats
from podidentity.telemetry.writing import Writer
from podidentity.wire.metadata import Route

CLIENT_LEFT = 499
"""In log and metrics only, as nginx writes it: the client did not wait for its answer."""

_MEMO = 4096
"""`Given`s that are kept; 110 pods with a few identities and audiences need fewer."""

Write = Callable[[str], None]


class Events(Protocol):
    """Whoever tells a pod's owner of a refusal."""

    def refused(self, pod: Pod, reason: str, note: str) -> None:
        """Take note of it; costs a moment, and raises nothing."""


class NoEvents:
    """Nobody."""

    def refused(self, pod: Pod, reason: str, note: str) -> None:
        """Forget it."""


class Sinks(NamedTuple):
    """Where lines go."""

    form: Form
    log: Write
    audit: Write | None = None
    """None: there is no audit log."""


class Given(NamedTuple):
    """All that a request for a token of the same pod, connection's address and origin leaves."""

    stamps: Stamps
    log: Write
    line: Template
    audit: Write | None
    entry: Template
    duration: Histogram
    counters: tuple[Counter, Counter, Counter]
    """The request, the decision, and the token by its origin."""
    pod: Pod | None
    identity: AzureIdentity | None

    def note(self, now: float, seconds: float) -> None:
        """Record one more that ended at `now` (seconds since 1970) and took so many seconds."""
        stamp, milliseconds = self.stamps.at(now), f"{seconds * 1000:.2f}"
        self.log(self.line.at(stamp, milliseconds))
        if self.audit is not None:
            self.audit(self.entry.at(stamp, milliseconds))
        self.duration.observe(seconds)
        for counter in self.counters:
            counter.value += 1


class Record:
    """Takes down how requests ended."""

    def __init__(
        self,
        sinks: Sinks,
        metrics: NmiMetrics,
        clock: Clock,
        *,
        node: str = "",
        required: Writer | None = None,
    ) -> None:
        """`required`: the audit log's writer, where no token is given that it cannot write."""
        self._sinks = sinks
        self._metrics = metrics
        self._clock = clock
        self._node = node
        self.events: Events = NoEvents()
        """Told of refusals; nobody, before the API server is known."""
        self._required = required
        self._stamps = Stamps()
        self._resources = Resources()
        self._given: dict[tuple[object, ...], Given] = {}
        self._repeats: Repeats[tuple[str, str]] = Repeats()
        self._unsaid = asyncio.Event()

    # Token requests.

    def must_be_possible(self) -> None:
        """Raise NotReady where an audit log is needed and cannot be written."""
        if self._required is not None and self._required.failure:
            raise NotReady("the agent's audit log cannot be written")

    def token(self, asked: Asked, outcome: Outcome, status: int, begun: float) -> None:
        """Record an answered token request; `begun` is `Clock.monotonic` at its start."""
        if outcome.error is not None:
            self._refused(asked, outcome, outcome.error, status, begun)
            return
        self.given(asked, outcome).note(self._clock.time(), self._clock.monotonic() - begun)
        if outcome.observed is not None and outcome.pod is not None:
            observed = outcome.observed
            note = f"Allowed for now: {observed.told or observed}"
            self.events.refused(outcome.pod, str(observed.reason), note)

    def given(self, asked: Asked, outcome: Outcome) -> Given:
        """Return what each request like this one leaves, to be kept while it is the same.

        Not to be kept of an outcome that has `observed`, of which an event tells each time.
        """
        pod, identity, request = outcome.pod, outcome.identity, asked.request
        key = (
            pod.uid if pod else "",
            identity.ref if identity else "",
            request.resource,
            request.asked,
            outcome.origin,
            outcome.basis,
            outcome.observed is None,
            asked.caller.address,
            asked.named is None,
            outcome.delegate,
        )
        found = self._given.get(key)
        # An object that has changed is another one: its lines may read otherwise.
        if found is None or found.pod is not pod or found.identity is not identity:
            if len(self._given) >= _MEMO:
                self._given.clear()
            found = self._given[key] = self._make(asked, outcome)
        return found

    def _make(self, asked: Asked, outcome: Outcome) -> Given:
        decision = Decision(outcome, HTTPStatus.OK, self._node)
        return Given(
            stamps=self._stamps,
            log=self._sinks.log,
            line=self._sinks.form.template(said(asked, outcome, HTTPStatus.OK)),
            audit=self._sinks.audit,
            entry=json_template(members(decision, asked)),
            duration=self._duration(asked, outcome, HTTPStatus.OK),
            counters=(*self._counted(asked, outcome, HTTPStatus.OK), self._origin(outcome)),
            pod=outcome.pod,
            identity=outcome.identity,
        )

    def _refused(
        self, asked: Asked, outcome: Outcome, error: PodIdentityError, status: int, begun: float
    ) -> None:
        now, seconds = self._clock.time(), self._clock.monotonic() - begun
        stamp, milliseconds = self._stamps.at(now), f"{seconds * 1000:.2f}"
        who = str(outcome.pod.ref if outcome.pod else asked.named or asked.caller.address)
        if self._may_say(who, reason_of(error)):
            line = self._sinks.form.template(said(asked, outcome, status))
            self._sinks.log(line.at(stamp, milliseconds))
        if self._sinks.audit is not None:
            decision = Decision(outcome, status, self._node)
            entry = json_template(members(decision, asked))
            self._sinks.audit(entry.at(stamp, milliseconds))
        self._duration(asked, outcome, status).observe(seconds)
        for counter in self._counted(asked, outcome, status):
            counter.value += 1
        self._tell(outcome, error)

    def _tell(self, outcome: Outcome, error: PodIdentityError) -> None:
        """Let the pod's owner know, in words that he may read."""
        note = owners_words(error, outcome)
        if note:
            for pod in (outcome.pod,) if outcome.pod else outcome.claimed:
                self.events.refused(pod, reason_of(error), note)

    # All others.

    def other(
        self, caller: Caller, route: Route, status: int, message: str, begun: float, **more: object
    ) -> None:
        """Record a request that concerns no pod in particular, or whose client has left."""
        self._metrics.requests.of(label_of(route), str(int(status))).value += 1
        # Not by its words where there is one: they may hold what the client wrote.
        kind = more.get("reason") or message
        if status >= FAILED_FROM and not self._may_say(caller.address, f"{int(status)} {kind}"):
            return
        milliseconds = f"{(self._clock.monotonic() - begun) * 1000:.2f}"
        line = self._sinks.form.template(request_line(status, message, caller.address, more))
        self._sinks.log(line.at(self._stamps.at(self._clock.time()), milliseconds))

    # What was left unsaid.

    async def run(self) -> None:
        """Say how often what was not said again and again, until cancelled."""
        while True:
            await self._unsaid.wait()
            self._unsaid.clear()
            while self._repeats.pending():
                await self._clock.sleep(WINDOW)
                self._sum_up()

    def _sum_up(self) -> None:
        for (who, reason), more in self._repeats.ended(self._clock.monotonic()):
            stamp = self._stamps.at(self._clock.time())
            self._sinks.log(self._sinks.form.line(stamp, more_like_this(who, reason, more)))

    def _may_say(self, who: str, reason: str) -> bool:
        says = self._repeats.says((who, reason), self._clock.monotonic())
        if not says:
            self._unsaid.set()
        return says

    # Numbers.

    def _duration(self, asked: Asked, outcome: Outcome, status: int) -> Histogram:
        namespace = outcome.pod.ref.namespace if outcome.pod else ""
        given = outcome.error is None
        resource = self._resources.label(asked.request.resource, given=given)
        return self._metrics.operations.of(route_of(asked), str(int(status)), namespace, resource)

    def _counted(self, asked: Asked, outcome: Outcome, status: int) -> tuple[Counter, Counter]:
        reason = reason_of(outcome.error) if outcome.error else ""
        decision = decision_of(outcome)
        return (
            self._metrics.requests.of(route_of(asked), str(int(status))),
            self._metrics.decisions.of(decision, reason, str(outcome.basis or "")),
        )

    def _origin(self, outcome: Outcome) -> Counter:
        return self._metrics.tokens.of(str(outcome.origin or ""))

"""Kubernetes events: refusals on the pod that was refused, the agent's own warnings on its pod.

A data path that breaks is told of the node, too. Of each pod (or node) and reason one event,
written at once and then at most once a minute with how often it happened since; at once, too, when
it comes back after what had ended it. What is written waits for nobody and nobody waits for it:
where the API server is away, or more happens than may be told, it is dropped, and counted. Of that
namespaces take turns, and the one with most events loses one to another: a tenant's pods may be
refused all day long. A state, on which commands act (a broken path, its end, the backend), is tried
again until it is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, NamedTuple

from podidentity.core.ports import Clock
from podidentity.core.rate_limits import FairCache
from podidentity.core.resources import Pod
from podidentity.telemetry import metrics
from podidentity.waiting import first_of
from podidentity.wire.events import (
    AGAIN,
    OVER,
    AgentReason,
    Happening,
    NodeName,
    render_event,
    render_repetition,
    uid_of,
)
from podidentity.wire.kube import EVENTS, KubeApi, KubeError

APART = 60.0
"""Seconds between two writes of the same event."""
RETRY = 5.0
"""Seconds before a state that could not be written is tried again."""
PACE = 0.2
"""Seconds between any two writes of this agent."""
ROOM = 500
"""Events that are remembered."""

LASTING = 10.0
"""Seconds after which a warning of the agent counts as lasting."""
_LOOK = 5.0

_log = logging.getLogger("podidentity.events")


@dataclass(slots=True)
class _Told:
    """One event: as it is, and as it is known to the API server."""

    happening: Happening
    written: int = 0
    """The count that the API server knows; 0: it has no such event."""
    due: float = -inf
    is_state: bool = False
    """Whether commands act on it: it is tried again until the API server has it."""

    @property
    def waits(self) -> bool:
        """Whether it has happened since it was written."""
        return self.happening.count > self.written

    @property
    def namespace(self) -> str:
        """Where it is written."""
        return self.happening.namespace


class _Events(FairCache[tuple[str, str], _Told]):
    """Events by uid and reason; a state has size 0, and goes for none."""

    def __init__(self, most: int, dropped: Callable[[], None]) -> None:
        """`dropped` is called for each that goes unwritten."""
        super().__init__(most)
        self._dropped = dropped

    def _dispensable(
        self, others: Iterable[tuple[str, str]], new: tuple[str, str]
    ) -> tuple[str, str]:
        going = [key for key in others if not self._all[key].is_state]
        for key in going:
            if not self._all[key].waits:
                return key
        self._dropped()
        return going[-1] if going else new


class PodEvents:
    """Writes events; `run` it as a task."""

    def __init__(
        self, server: KubeApi, clock: Clock, counters: metrics.Family[metrics.Counter], *, node: str
    ) -> None:
        self._server = server
        self._clock = clock
        self._counters = counters
        self._node = node
        self._told = _Events(ROOM, dropped=lambda: self._count("dropped"))
        self._turns: FairCache[str, float] = FairCache(ROOM)
        """When something was last written in a namespace, in monotonic seconds."""
        self._news = asyncio.Event()
        self._trouble = False

    def warn(self, about: Pod | NodeName, reason: str, note: str, *, ends: str = "") -> None:
        """Take note of something that happened to a pod or a node; it is written by `run`.

        `ends`: the reason that holds no more from now on. Of two that end each other each is
        written at once, or else the one that was written last would stand for a minute; and in a
        later second than the other, because events tell no parts of one.
        """
        self._note(about, reason, note, "Warning", ends)

    def tell(self, about: Pod | NodeName, reason: str, note: str, *, ends: str = "") -> None:
        """Take note of something that needs nobody, as `warn` does; other words are told at once.

        They are a fact that has changed, and commands act on it.
        """
        self._note(about, reason, note, "Normal", ends)

    def _note(
        self,
        about: Pod | NodeName,
        reason: str,
        note: str,
        kind: Literal["Warning", "Normal"],
        ends: str,
    ) -> None:
        key, now = (uid_of(about), reason), self._clock.time()
        found, ended = self._told.get(key), self._told.get((uid_of(about), ends))
        was_over = False
        if ended is not None:
            # It was perhaps noted before this one was written: `due` alone does not tell.
            was_over = found is not None and found.happening.last < ended.happening.last
            ended.due = -inf
            now = max(now, int(ended.happening.last) + 1)
        if found is None:
            times = {"first": now, "last": now}
            happening = Happening(
                about=about, reason=reason, note=note, count=1, type=kind, **times
            )
            new = _Told(happening, is_state=bool(ends) or kind == "Normal")
            self._told.put(key, new, new.namespace, 0 if new.is_state else 1)
        else:
            before, known_to_wait = found.happening, found.waits
            found.happening = replace(before, note=note, last=now, count=before.count + 1)
            changed = note != before.note and (kind == "Normal" or note == OVER)
            if changed or was_over:
                found.due = -inf
            elif known_to_wait:
                return
        self._news.set()

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while waiting := [each for _, each in self._told.items() if each.waits]:
                now = self._clock.monotonic()
                due = [each for each in waiting if each.due <= now]
                if due:
                    await self._write(min(due, key=self._turn))
                    await self._clock.sleep(PACE)
                else:
                    self._news.clear()
                    left = min(each.due for each in waiting) - now
                    await first_of(self._news.wait(), self._clock.sleep(left))

    def _turn(self, told: _Told) -> tuple[float, float]:
        return self._turns.get(told.namespace, -inf), told.due

    async def _write(self, told: _Told) -> None:
        now = self._clock.monotonic()
        self._turns.put(told.namespace, now, told.namespace)
        told.due = now + APART
        happening, known = told.happening, told.written
        told.written = happening.count
        try:
            self._count(await self._send(happening, known=known > 0))
        except KubeError as error:
            told.written = known
            if told.is_state:
                told.due = self._clock.monotonic() + max(RETRY, error.retry_after)
            else:
                # What happened meanwhile is forgotten, what happens next is told.
                missed = happening.count - known
                told.happening = replace(told.happening, count=told.happening.count - missed)
            self._count("failed")
            if not self._trouble:
                _log.warning("events cannot be written: %s", error)
            self._trouble = True
        else:
            self._trouble = False

    async def _send(self, happening: Happening, *, known: bool) -> str:
        """Write; return which way."""
        namespace = happening.namespace
        if known:
            try:
                path = EVENTS.path(namespace, happening.name)
                await self._server.merge(path, render_repetition(happening))
            except KubeError as error:
                # Events live for an hour.
                if not error.not_found:
                    raise
            else:
                return "repeated"
        try:
            await self._server.create(EVENTS.path(namespace), render_event(happening, self._node))
        except KubeError as error:
            # It was written before, only the answer was lost.
            if not error.conflict:
                raise
        return "written"

    def _count(self, outcome: str) -> None:
        self._counters.of(outcome).value += 1


class AgentWarning(NamedTuple):
    """Something that an operator should know of an agent that serves."""

    reason: AgentReason
    text: str
    """What it is and, after a semicolon, what to do about it."""
    cause: str = ""
    """What the text is about; its end is told at once, another cause in a minute, texts later."""


class AgentWarnings:
    """Tells the agent's lasting warnings as events on its own pod, for those who cannot ask it.

    `run` it as a task.
    """

    def __init__(
        self,
        events: PodEvents,
        clock: Clock,
        *,
        own: Callable[[], Pod | None],
        warnings: Callable[[], Sequence[AgentWarning]],
    ) -> None:
        """`own` returns the agent's pod; None while it is not known."""
        self._events = events
        self._clock = clock
        self._own = own
        self._warnings = warnings
        self._since: dict[AgentReason, float] = {}
        self._written: dict[AgentReason, tuple[float, str]] = {}
        """When each was written, and with which cause; of a fact, with which text."""

    async def run(self) -> None:
        while True:
            self._look()
            await self._clock.sleep(_LOOK)

    def _look(self) -> None:
        found: dict[AgentReason, list[AgentWarning]] = {}
        for warning in self._warnings():
            found.setdefault(warning.reason, []).append(warning)
        now, pod = self._clock.monotonic(), self._own()
        self._since = {each: self._since.get(each, now) for each in found}
        for reason, since in self._since.items():
            lasts = now - since >= LASTING or reason is AgentReason.BACKEND
            text = ". Also: ".join(warning.text for warning in found[reason])
            # Facts that are no warning are few, and change as a whole.
            cause = found[reason][0].cause if reason.is_warning else text
            written, before = self._written.get(reason, (-inf, ""))
            if pod and lasts and (cause != before or now - written >= AGAIN):
                self._written[reason] = now, cause
                said = self._events.warn if reason.is_warning else self._events.tell
                said(pod, reason, text)
        for reason, (_, cause) in list(self._written.items()):
            if pod and cause and reason.is_warning and reason not in found:
                del self._written[reason]
                self._events.warn(pod, reason, OVER)

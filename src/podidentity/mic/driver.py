"""Drives the controller: tells it what happens, and does what it returns.

The controller is told one thing at a time and answers with calls; each is a task, and its result is
told when it comes. Nothing is decided here but one thing: a write is sent only while we lead.

A controller that raises has a defect, and nobody knows what it would do next: MIC ends, and the
next one begins with what the cluster and Azure say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from podidentity.core.ports import Clock
from podidentity.mic.calls import (
    WRITES,
    Action,
    Call,
    Deposed,
    Event,
    Failure,
    Fault,
    Leading,
    LogLine,
    Result,
)
from podidentity.mic.neighbours import NotLeading
from podidentity.waiting import end_all, first_of

_log = logging.getLogger("podidentity.mic")


class StateMachine(Protocol):
    """The controller (`mic.controller.Controller`)."""

    def on_event(self, event: Event, now: float) -> Sequence[Call]: ...
    def on_result(self, number: int, result: Result, now: float) -> Sequence[Call]: ...
    def on_time(self, now: float) -> Sequence[Call]: ...

    def due(self) -> float | None:
        """Return when `on_time` is to be called; None if nothing is awaited."""


class Executor(Protocol):
    """Does calls (`mic.neighbours.Neighbours`)."""

    async def do(self, action: Action, *, writes: bool) -> Result:
        """Return the result of a call; raise NotLeading."""


class Observer(Protocol):
    """Is told of each call, for metrics and the log (`mic.metrics.MicMetrics`)."""

    def begun(self, action: Action) -> None: ...

    def ended(self, action: Action, result: Result, seconds: float, now: float) -> None:
        """Note its result; `now` is as in the calls."""

    def given_up(self, action: Action) -> None:
        """Note that a call will have no result: another MIC leads, or this one ends."""

    def report(self, report: LogLine) -> None: ...


class Driver:
    """Between the controller and the world. `run` it as a task."""

    def __init__(
        self,
        controller: StateMachine,
        neighbours: Executor,
        clock: Clock,
        observer: Observer,
        *,
        leading: Callable[[], bool],
    ) -> None:
        self._controller = controller
        self._neighbours = neighbours
        self._clock = clock
        self._observer = observer
        self._leading = leading
        self._begun = clock.time() - clock.monotonic()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._led = False
        self._rearmed = asyncio.Event()
        self._defect: Exception | None = None

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def now(self) -> float:
        """Return the time of the calls: seconds since 1970 that never go back."""
        return self._begun + self._clock.monotonic()

    def tell(self, event: Event) -> None:
        self._decide(partial(self._controller.on_event, event))

    def led(self, until: float) -> None:
        """Note that we lead until that monotonic time."""
        self._led = True
        self.tell(Leading(self._begun + until))

    def lost(self) -> None:
        """Note that we lead no more: what is under way is given up."""
        if not self._led:
            return
        self._led = False
        self.tell(Deposed())
        for task in list(self._under_way.values()):
            task.cancel()

    async def run(self) -> None:
        """Call the controller when something is due, until cancelled; then give up all calls.

        Raises what the controller has raised.
        """
        try:
            while self._defect is None:
                self._rearmed.clear()
                due = self._controller.due()
                left = None if due is None else due - self.now()
                if left is not None and left <= 0:
                    self._decide(self._controller.on_time)
                    # Others have their turn, whatever the controller finds due at once.
                    await asyncio.sleep(0)
                    continue
                until_due = () if left is None else (self._clock.sleep(left),)
                await first_of(self._rearmed.wait(), *until_due)
            raise self._defect
        finally:
            await end_all(self._under_way.values())

    def _decide(self, ask: Callable[[float], Sequence[Call]]) -> None:
        if self._defect is not None:
            return
        try:
            calls = ask(self.now())
        except Exception as error:  # noqa: BLE001 - `run` raises it: who tells must not swallow it
            self._defect = error
            self._rearmed.set()
            return
        self._rearmed.set()
        for call in calls:
            if isinstance(call.action, LogLine):
                self._observer.report(call.action)
                continue
            self._observer.begun(call.action)
            task = asyncio.create_task(self._do(call))
            self._under_way[call.number] = task
            task.add_done_callback(partial(self._forget, call))

    def _forget(self, call: Call, task: asyncio.Task[None]) -> None:
        self._under_way.pop(call.number, None)
        if task.cancelled():
            self._observer.given_up(call.action)

    async def _do(self, call: Call) -> None:
        action, began = call.action, self._clock.monotonic()
        writes = isinstance(action, WRITES)
        result: Result
        try:
            if writes and not self._leading():
                raise NotLeading  # noqa: TRY301 - as where the lease ends a moment later
            result = await self._neighbours.do(action, writes=writes)
        except NotLeading:
            result = Failure(kind=Fault.UNREACHABLE, message="another MIC may lead by now")
            self._ended(call, result, began)
            self.lost()
            return
        except Exception as error:  # noqa: BLE001 - a defect in one call costs that call alone
            _log.exception("%s failed; please report this", type(action).__name__)
            # A write may have been done.
            kind = Fault.LOST if writes else Fault.FAILED
            result = Failure(kind=kind, message=type(error).__name__)
        self._ended(call, result, began)

    def _ended(self, call: Call, result: Result, began: float) -> None:
        # First: what is told next may be about the same host or record.
        self._under_way.pop(call.number, None)
        seconds = self._clock.monotonic() - began
        self._observer.ended(call.action, result, seconds, self.now())
        self._decide(partial(self._controller.on_result, call.number, result))

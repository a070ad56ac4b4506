"""The driver between a controller that the test scripts and neighbours that it holds back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.resources import ObjectRef
from podidentity.mic.calls import (
    Action,
    Call,
    DeleteRecord,
    Deposed,
    Event,
    Failure,
    Fault,
    Leading,
    LogLine,
    ReadHost,
    Result,
    Synced,
)
from podidentity.mic.driver import Driver
from podidentity.mic.neighbours import NotLeading
from tests.fakes import NOW, FakeClock

HOST = Host.parse(
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool"
)
READ = ReadHost(HOST)
DELETE = DeleteRecord(ObjectRef("n", "r"), "uid")


@dataclass
class Script:
    """A controller that answers by a test's functions, and notes what it was told."""

    on: Callable[[object], Sequence[Call]] = lambda _: ()
    when_due: Callable[[], Sequence[Call]] = tuple
    due_at: float | None = None
    told: list[object] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    inside: bool = False

    def _noted(self, what: object, now: float) -> Sequence[Call]:
        assert not self.inside
        assert now >= max(self.times, default=0)
        self.times.append(now)
        self.told.append(what)
        self.inside = True
        try:
            return self.on(what)
        finally:
            self.inside = False

    def on_event(self, event: Event, now: float) -> Sequence[Call]:
        return self._noted(event, now)

    def on_result(self, number: int, result: Result, now: float) -> Sequence[Call]:
        return self._noted((number, result), now)

    def on_time(self, now: float) -> Sequence[Call]:
        self.due_at = None
        self._noted("time", now)
        return self.when_due()

    def due(self) -> float | None:
        return self.due_at


@dataclass
class Held:
    """Neighbours that answer when the test says so."""

    waiting: dict[Action, asyncio.Future[Result]] = field(default_factory=dict)
    begun: list[Action] = field(default_factory=list)
    cancelled: list[Action] = field(default_factory=list)

    async def do(self, action: Action, *, writes: bool) -> Result:
        del writes
        self.begun.append(action)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.waiting[action] = future
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled.append(action)
            raise


@dataclass
class Noted:
    reports: list[LogLine] = field(default_factory=list)
    depth: int = 0

    def begun(self, action: Action) -> None:
        del action
        self.depth += 1

    def ended(self, action: Action, result: Result, seconds: float, now: float) -> None:
        del action, result, seconds, now
        self.depth -= 1

    def given_up(self, action: Action) -> None:
        del action
        self.depth -= 1

    def report(self, report: LogLine) -> None:
        self.reports.append(report)


class Scene:
    def __init__(self) -> None:
        self.script, self.held, self.noted, self.clock = Script(), Held(), Noted(), FakeClock()
        self.leads = True
        self.driver = Driver(
            self.script, self.held, self.clock, self.noted, leading=lambda: self.leads
        )


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


@asynccontextmanager
async def running() -> AsyncIterator[Scene]:
    scene = Scene()
    task = asyncio.create_task(scene.driver.run())
    await settle()
    try:
        yield scene
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def once(event: object, *calls: Call) -> Callable[[object], Sequence[Call]]:
    """Return what answers `event` with these calls and all else with none."""
    return lambda told: calls if told == event else ()


async def test_a_call_is_done_and_its_result_told_once() -> None:
    async with running() as scene:
        scene.script.on = once(Synced(), Call(7, READ))
        scene.driver.tell(Synced())
        await settle()
        assert (scene.held.begun, scene.driver.under_way) == ([READ], 1)
        scene.held.waiting[READ].set_result(HostIdentities(state="succeeded"))
        await settle()
        assert scene.script.told == [Synced(), (7, HostIdentities(state="succeeded"))]
        assert (scene.driver.under_way, scene.noted.depth) == (0, 0)


async def test_calls_are_under_way_at_once_and_may_end_in_any_order() -> None:
    async with running() as scene:
        scene.driver.led(10)
        scene.script.on = once(Synced(), Call(1, READ), Call(2, DELETE))
        scene.driver.tell(Synced())
        await settle()
        assert scene.held.begun == [READ, DELETE]
        scene.held.waiting[DELETE].set_result(None)
        await settle()
        scene.held.waiting[READ].set_result(HostIdentities())
        await settle()
        assert [each[0] for each in scene.script.told[2:] if isinstance(each, tuple)] == [2, 1]


async def test_what_is_due_is_done_at_its_time() -> None:
    async with running() as scene:
        scene.script.due_at = NOW + 5
        scene.script.when_due = lambda: (Call(1, READ),)
        scene.driver.tell(Synced())
        await settle()
        scene.clock.advance(4.9)
        await settle()
        assert scene.script.told == [Synced()]
        scene.clock.advance(0.2)
        await settle()
        assert (scene.script.told, scene.held.begun) == ([Synced(), "time"], [READ])


async def test_an_earlier_time_is_not_slept_over() -> None:
    async with running() as scene:
        scene.script.due_at = NOW + 500
        scene.driver.tell(Synced())
        await settle()
        scene.script.due_at = NOW + 1
        scene.driver.tell(Synced())
        await settle()
        scene.clock.advance(1)
        await settle()
        assert "time" in scene.script.told


async def test_the_time_never_goes_back_though_somebody_sets_the_clock() -> None:
    async with running() as scene:
        scene.driver.tell(Synced())
        scene.clock.jump(-3600)
        scene.clock.advance(1)
        scene.driver.tell(Synced())
        assert scene.script.times == [NOW, NOW + 1]


async def test_a_write_without_the_lease_is_not_sent_and_the_controller_is_deposed() -> None:
    async with running() as scene:
        scene.driver.led(10)
        scene.leads = False
        scene.script.on = once(Synced(), Call(1, DELETE), Call(2, READ))
        scene.driver.tell(Synced())
        await settle()
        assert DELETE not in scene.held.begun
        results = [each for each in scene.script.told if isinstance(each, tuple)]
        assert isinstance(results[0][1], Failure)
        assert results[0][1].kind is Fault.UNREACHABLE
        assert scene.script.told[-1] == Deposed()


async def test_a_lease_that_ends_just_before_sending_deposes_as_well() -> None:
    async with running() as scene:
        scene.driver.led(10)
        scene.script.on = once(Synced(), Call(1, DELETE))
        scene.driver.tell(Synced())
        await settle()
        scene.held.waiting[DELETE].set_exception(NotLeading())
        await settle()
        assert scene.script.told[-1] == Deposed()


async def test_loss_of_leadership_gives_up_what_is_under_way_and_tells_nothing_of_it() -> None:
    async with running() as scene:
        scene.driver.led(10)
        scene.script.on = once(Synced(), Call(1, READ), Call(2, DELETE))
        scene.driver.tell(Synced())
        await settle()
        scene.driver.lost()
        await settle()
        assert set(scene.held.cancelled) == {READ, DELETE}
        assert (scene.driver.under_way, scene.noted.depth) == (0, 0)
        assert scene.script.told == [Leading(NOW + 10), Synced(), Deposed()]
        scene.driver.lost()
        assert scene.script.told[-2:] == [Synced(), Deposed()], "told once"


async def test_what_is_given_up_before_it_begins_is_not_under_way_either() -> None:
    async with running() as scene:
        scene.driver.led(10)
        scene.script.on = once(Synced(), Call(1, READ))
        scene.driver.tell(Synced())
        scene.driver.lost()
        await settle()
        assert (scene.held.begun, scene.noted.depth) == ([], 0)


async def test_a_renewal_is_told_with_until_when_it_is_in_the_calls_time() -> None:
    async with running() as scene:
        scene.clock.advance(100)
        scene.driver.led(110)
        assert scene.script.told == [Leading(NOW + 110)]


async def test_a_report_is_written_and_has_no_result() -> None:
    async with running() as scene:
        report = LogLine("throttled", "Azure wants to be left alone", "Wait.", HOST)
        scene.script.on = once(Synced(), Call(1, report))
        scene.driver.tell(Synced())
        await settle()
        assert (scene.noted.reports, scene.script.told) == ([report], [Synced()])


async def test_a_defect_in_one_call_is_its_failure_and_the_rest_goes_on() -> None:
    async with running() as scene:
        scene.script.on = once(Synced(), Call(1, READ))
        scene.driver.tell(Synced())
        await settle()
        scene.held.waiting[READ].set_exception(RecursionError("nobody thought of this"))
        await settle()
        (_, (number, result)) = scene.script.told  # type: ignore[misc] # a number and a result
        assert (number, result) == (1, Failure(kind=Fault.FAILED, message="RecursionError"))  # type: ignore[has-type] # see above


async def test_a_controller_with_a_defect_ends_mic_and_is_asked_no_more() -> None:
    scene = Scene()
    task = asyncio.create_task(scene.driver.run())
    await settle()

    def fail(told: object) -> Sequence[Call]:
        raise RecursionError(f"nobody thought of {told}")

    scene.script.on = fail
    scene.driver.tell(Synced())
    scene.driver.tell(Synced())
    await settle()
    with pytest.raises(RecursionError):
        await task
    assert scene.script.told == [Synced()]

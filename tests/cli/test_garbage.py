"""Passes of Python's collector stay short however much a program keeps, and garbage still goes."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from podidentity.cli.programs import keep_passes_short
from podidentity.core.resources import ObjectRef


class Cycle:
    """A value that only the collector can free."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def each_pass_takes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Have the collector be told of here, and each of its passes take so many seconds."""
    before, thresholds = gc.callbacks[:], gc.get_threshold()
    seconds = now = 0.0

    def thread_time() -> float:
        nonlocal now
        now += seconds
        return now

    def take(number: float) -> None:
        nonlocal seconds
        seconds = number

    monkeypatch.setattr(time, "thread_time", thread_time)
    gc.unfreeze()
    keep_passes_short()
    yield take
    gc.callbacks[:] = before
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_what_a_long_pass_has_left_is_not_looked_at_again(
    each_pass_takes: Callable[[float], None],
) -> None:
    each_pass_takes(0.02)
    kept = [ObjectRef("red", str(number)) for number in range(100_000)]
    gc.collect()
    assert gc.get_freeze_count() > len(kept)
    assert len(gc.get_objects()) < 1_000


def test_while_lists_are_read_no_pass_looks_at_more_than_came_since_the_last(
    each_pass_takes: Callable[[float], None],
) -> None:
    each_pass_takes(0.02)
    looked_at: list[int] = []

    def look(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            looked_at.append(len(gc.get_objects()))

    gc.collect()
    gc.collect()  # finds nothing: the next may look at a quarter of what the first found
    gc.callbacks.append(look)
    kept = [ObjectRef("red", str(number)) for number in range(500_000)]
    assert len(looked_at) > 3
    assert max(looked_at) < 150_000 < len(kept)


def test_values_that_are_not_looked_at_go_with_their_last_reference(
    each_pass_takes: Callable[[float], None],
) -> None:
    each_pass_takes(0.02)
    for _ in range(3):
        kept = {number: ObjectRef("red", str(number)) for number in range(50_000)}
        gc.collect()
        frozen = gc.get_freeze_count()
        kept.clear()
        assert gc.get_freeze_count() <= frozen - 50_000


@pytest.mark.parametrize("seconds", [0.001, 0.02])
def test_garbage_goes_in_each_pass(
    seconds: float, each_pass_takes: Callable[[float], None]
) -> None:
    each_pass_takes(seconds)
    for _ in range(3):
        gone = weakref.ref(Cycle())
        gc.collect()
        assert gone() is None


def test_where_passes_are_short_all_is_looked_at_again(
    each_pass_takes: Callable[[float], None],
) -> None:
    each_pass_takes(0.001)
    value = Cycle()
    gone = weakref.ref(value)
    gc.collect()
    del value
    gc.collect()
    assert gone() is None
    assert gc.get_freeze_count() == 0

"""Counters that say how long to wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.pacing import Bucket, Window

GAPS = st.lists(st.floats(0, 2), min_size=30, max_size=60)


def admitted(window: Window, gaps: list[float]) -> list[float]:
    """Return when each of those who came after these gaps was let in, in order."""
    now, times = 0.0, []
    for gap in gaps:
        now += gap
        while (wait := window.wait(now)) > 0:
            now += wait
        window.take(now)
        times.append(now)
    return times


@given(gaps=GAPS, most=st.integers(1, 10))
def test_no_span_however_it_lies_holds_more_than_is_allowed(gaps: list[float], most: int) -> None:
    times = admitted(Window(most, 1.0), gaps)
    for first, after in zip(times, times[most:], strict=False):
        assert after - first >= 1.0 - 1e-9


@given(gaps=GAPS)
def test_whoever_comes_when_there_is_room_does_not_wait(gaps: list[float]) -> None:
    window, now = Window(100, 1.0), 0.0
    for gap in gaps:
        now += gap
        assert window.wait(now) == 0
        window.take(now)


def test_some_of_the_worlds_above_are_crowded() -> None:
    times = admitted(Window(3, 1.0), [0.0] * 30)
    assert times[-1] == 9.0


def test_a_request_that_leaves_some_to_others_waits_sooner() -> None:
    window = Window(4, 1.0)
    for now in (0.0, 0.1, 0.2):
        window.take(now)
    assert window.wait(0.3) == 0
    assert window.wait(0.3, leaving=2) == 1.1 - 0.3
    assert window.wait(0.3, leaving=1) == 1.0 - 0.3


def test_a_pause_lets_nobody_in_and_a_shorter_one_does_not_end_it() -> None:
    window = Window(4, 1.0)
    window.pause(10.0)
    window.pause(5.0)
    assert (window.wait(4.0), window.wait(10.0)) == (6.0, 0.0)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(2.0, 10.0, now=0.0)
    assert [bucket.take(0.0) for _ in range(11)] == [0.0] * 10 + [0.5]
    assert [bucket.take(0.5), bucket.take(0.5)] == [0.0, 0.5]


def test_a_bucket_that_rested_is_as_good_as_new_and_no_better() -> None:
    bucket = Bucket(2.0, 10.0, now=0.0)
    bucket.take(0.0)
    assert not bucket.full(0.0)
    assert bucket.full(1000.0)
    assert sum(bucket.take(1000.0) == 0 for _ in range(100)) == 10

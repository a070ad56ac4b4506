from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest

from podidentity.mic.gates import Gate


def test_nothing_waits_while_azure_answers() -> None:
    gate = Gate()
    assert all(gate.admit(number, 0.0) for number in range(1000))
    assert not gate.waiting


def test_after_a_refusal_nobody_calls_before_the_retry_after_ends() -> None:
    gate = Gate()
    assert gate.admit("a", 0.0)
    gate.throttled(0.0, 30.0)
    assert not gate.admit("b", 29.9)
    assert (gate.closed(29.9), gate.closed(30.0), gate.opens()) == (True, False, 30.0)
    assert gate.admit("b", 30.0)


def test_a_refusal_without_a_time_closes_for_ten_seconds() -> None:
    gate = Gate()
    gate.throttled(5.0, 0.0)
    assert gate.opens() == 15.0


def test_who_waits_longest_is_next() -> None:
    gate = Gate()
    gate.throttled(0.0, 10.0)
    assert not any(gate.admit(who, 1.0) for who in ("a", "b", "c", "a"))
    assert list(gate.waiting) == ["a", "b", "c"]
    assert not gate.admit("b", 10.0)
    assert gate.admit("a", 10.0)
    gate.leave("b")
    assert gate.admit("c", 11.0)


def test_after_a_refusal_the_rate_begins_low_and_grows_with_each_success() -> None:
    gate = Gate()
    for _ in range(20):
        gate.admit("x", 0.0)
        gate.succeeded(0.0)
    gate.throttled(1.0, 1.0)
    times, now = [], 2.0
    for _ in range(40):
        now = max(now, gate.opens())
        assert gate.admit("x", now)
        gate.succeeded(now)
        times.append(now)
    # 20 in 2 s were refused: it begins at 7 a second.
    assert times[1] - times[0] == pytest.approx(1 / 7, rel=0.01)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.1


def test_refusals_of_calls_that_were_sent_together_count_once() -> None:
    gate = Gate()
    gate.throttled(0.0, 10.0)
    gate.throttled(0.0, 10.0)
    gate.throttled(0.0, 10.0)
    assert gate.admit("a", 10.0)
    assert gate.opens() == 11.0


def test_a_sick_subscription_is_asked_by_one_call_at_a_time() -> None:
    gate = Gate()
    for _ in range(3):
        gate.failed(0.0)
    assert not gate.admit("a", 0.5)
    assert gate.admit("a", 1.0)
    assert gate.opens() == inf
    assert not gate.admit("b", 100.0)
    gate.failed(1.0)
    assert gate.opens() == 3.0
    assert not gate.admit("c", 3.0)
    assert gate.admit("b", 3.0)
    gate.succeeded(3.0)
    assert all(gate.admit(who, 3.0) for who in ("c", "d", "e"))


def test_a_subscription_that_throttles_is_well_what_failed_before_does_not_count() -> None:
    gate = Gate()
    for answer in (gate.failed, gate.failed, lambda now: gate.throttled(now, 1.0), gate.failed):
        answer(0.0)
    gate.failed(0.0)
    assert gate.admit("a", 1.0)
    assert gate.opens() < inf


def test_a_probe_that_is_not_sent_makes_room_for_another() -> None:
    gate = Gate()
    for _ in range(3):
        gate.failed(0.0)
    assert gate.admit("a", 1.0)
    gate.leave("a")
    assert gate.admit("b", 1.0)


def test_a_new_leader_keeps_what_azure_asked_for() -> None:
    gate = Gate()
    gate.throttled(0.0, 10.0)
    gate.admit("a", 1.0)
    gate.forget()
    assert not gate.waiting
    assert gate.closed(9.0)


# The rate.


def limited(*successes: float, refused: float) -> Gate:
    """Return a gate that Azure closed for a second, after calls that ended at these times."""
    gate = Gate()
    for now in successes:
        gate.succeeded(now)
    gate.throttled(refused, 1.0)
    return gate


def gap(gate: Gate, now: float) -> float:
    """Return the seconds between a call, which goes now, and the next."""
    assert gate.admit("x", now)
    return gate.opens() - now


@pytest.mark.parametrize(
    ("successes", "rate"),
    [
        ([0.0] * 20, 7.0),
        ([0.0, 2.0] * 10, 7.0),
        ([0.0] * 100 + [10.0] * 20, 7.0),
        ([0.0] * 2, 1.0),
        ([], 1.0),
    ],
    ids=["at once", "in two seconds", "before that does not count", "slow", "none"],
)
def test_the_rate_begins_at_seven_tenths_of_what_passed_in_two_seconds_but_at_one_a_second(
    successes: list[float], rate: float
) -> None:
    gate = limited(*sorted(successes), refused=10.0)
    assert gap(gate, 11.0) == pytest.approx(1 / rate)


def test_each_refusal_of_calls_that_were_sent_behind_the_last_slows_to_seven_tenths() -> None:
    gate, now, gaps = limited(*[0.0] * 20, refused=0.0), 1.0, []
    for _ in range(8):
        gaps.append(gap(gate, now))
        gate.throttled(now, 1.0)
        now += 1.0
    rates = [7, 4.9, 3.43, 2.401, 1.6807, 1.17649, 1, 1]
    assert gaps == [pytest.approx(1 / rate) for rate in rates]


def test_as_many_successes_as_a_second_has_make_it_one_call_a_second_faster() -> None:
    gate = limited(*[0.0] * 20, refused=0.0)
    gate.succeeded(1.0)
    assert gap(gate, 1.0) == pytest.approx(1 / (7 + 1 / 7))


def test_from_two_hundred_calls_a_second_on_there_is_no_limit() -> None:
    gate, now = limited(refused=0.0), 1.0
    for _ in range(40_000):
        assert gate.admit("x", now)
        if gate.opens() <= now:
            break
        now = gate.opens()
        gate.succeeded(now)
    assert all(gate.admit(number, now) for number in range(1000))
    # One call a second more each second: 200 seconds.
    assert now == pytest.approx(200, rel=0.05)


def test_a_clock_that_is_set_back_holds_up_nobody_where_azure_refused_nothing() -> None:
    gate = Gate()
    assert gate.admit("a", 4000.0)
    assert gate.admit("b", 400.0)


# A sick subscription.


def test_failures_with_a_success_between_them_do_not_make_a_subscription_sick() -> None:
    gate = Gate()
    for answer in (gate.failed, gate.failed, gate.succeeded, gate.failed, gate.failed):
        answer(0.0)
    assert not gate.sick


def test_a_new_leader_does_not_wait_for_the_probe_of_the_one_before() -> None:
    gate = Gate()
    for _ in range(3):
        gate.failed(0.0)
    assert gate.admit("a", 1.0)
    gate.forget()
    assert gate.admit("b", 1.0)

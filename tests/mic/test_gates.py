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

from __future__ import annotations

from podidentity.telemetry.repeats import KINDS, SAID, WINDOW, Repeats


def test_of_the_same_a_few_are_said_and_the_rest_is_counted_at_the_end_of_the_window() -> None:
    repeats: Repeats[str] = Repeats()
    said = [repeats.says("a", now / 10) for now in range(20)]
    assert said == [True] * SAID + [False] * (20 - SAID)
    assert repeats.pending()
    assert repeats.ended(WINDOW - 0.1) == []
    assert repeats.ended(WINDOW) == [("a", 20 - SAID)]
    assert not repeats.pending()
    assert repeats.says("a", WINDOW), "a new window begins"


def test_what_is_said_now_and_then_is_always_said() -> None:
    repeats: Repeats[str] = Repeats()
    assert all(repeats.says("a", step * WINDOW / SAID) for step in range(100))


def test_one_kind_silences_no_other() -> None:
    repeats: Repeats[str] = Repeats()
    for _ in range(100):
        repeats.says("loud", 0)
    assert repeats.says("quiet", 0)


def test_kinds_without_end_take_no_memory_without_end() -> None:
    repeats: Repeats[int] = Repeats()
    assert sum(repeats.says(kind, 0) for kind in range(10 * KINDS)) == KINDS
    assert repeats.says(-1, WINDOW), "there is room again"


def test_what_was_left_unsaid_is_counted_even_if_it_goes_on() -> None:
    repeats: Repeats[str] = Repeats()
    for _ in range(SAID + 1):
        repeats.says("a", 0)
    assert not repeats.says("a", WINDOW + 1)
    assert repeats.ended(WINDOW + 1) == [("a", 2)]

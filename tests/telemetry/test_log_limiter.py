"""Of repeated lines a few are written, and no client silences another."""

from __future__ import annotations

from podidentity.telemetry.log_limiter import CLIENTS, KINDS, LINES, OTHERS, WINDOW, LogLimiter


def test_of_the_same_a_few_are_written_and_the_rest_is_counted_at_the_end_of_the_window() -> None:
    limiter = LogLimiter()
    allowed = [limiter.allows("a", "k", now / 10) for now in range(20)]
    assert allowed == [True] * LINES + [False] * (20 - LINES)
    assert limiter.pending()
    assert limiter.ended(WINDOW - 0.1) == []
    assert limiter.ended(WINDOW) == [("a", "k", 20 - LINES)]
    assert not limiter.pending()
    assert limiter.allows("a", "k", WINDOW), "a new window begins"


def test_what_is_said_now_and_then_is_always_written() -> None:
    limiter = LogLimiter()
    assert all(limiter.allows("a", "k", step * WINDOW / LINES) for step in range(100))


def test_one_kind_silences_no_other() -> None:
    limiter = LogLimiter()
    for _ in range(100):
        limiter.allows("a", "loud", 0)
    assert limiter.allows("a", "quiet", 0)


def test_one_client_with_kinds_without_end_silences_no_other_client() -> None:
    limiter = LogLimiter()
    allowed = sum(limiter.allows("loud", f"{kind}", 0) for kind in range(10_000))
    assert allowed == KINDS + LINES
    assert limiter.allows("quiet", "k", 0)


def test_clients_beyond_the_capacity_share_a_place_and_are_not_silent() -> None:
    limiter = LogLimiter()
    allowed = sum(limiter.allows(f"{client}", "k", 0) for client in range(10 * CLIENTS))
    assert allowed == CLIENTS + LINES
    assert (OTHERS, "k", 9 * CLIENTS - LINES) in limiter.ended(WINDOW)
    assert limiter.allows("new", "k", WINDOW), "there is room again"


def test_clients_that_said_little_make_room_when_their_windows_have_ended() -> None:
    limiter = LogLimiter()
    for client in range(CLIENTS):
        limiter.allows(f"{client}", "k", 0)
    for _ in range(LINES):
        limiter.allows("late", "k", WINDOW)
    assert limiter.ended(2 * WINDOW) == []


def test_what_was_suppressed_is_counted_even_if_it_goes_on() -> None:
    limiter = LogLimiter()
    for _ in range(LINES + 1):
        limiter.allows("a", "k", 0)
    assert not limiter.allows("a", "k", WINDOW + 1)
    assert limiter.ended(WINDOW + 1) == [("a", "k", 2)]

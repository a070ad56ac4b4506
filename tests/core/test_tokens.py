from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.errors import (
    NotYetKnown,
    Refused,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.tokens import AccessToken, Schedule, TokenRequest, negative_ttl, schedule
from tests.core.objects import client_id, resource_id

TOKEN = AccessToken(
    value="eyJ.secret.sig",
    client_id=client_id(1),
    expires_on=1_000,
    not_before=0,
    resource="https://vault.azure.net",
)


def test_no_way_of_showing_a_token_shows_its_text() -> None:
    for shown in (repr(TOKEN), str(TOKEN), f"{TOKEN}", f"{TOKEN!r}", repr([TOKEN])):
        assert "secret" not in shown


def test_the_life_of_a_token_is_in_whole_seconds_and_never_negative() -> None:
    assert TOKEN.life(999.9) == 1
    assert TOKEN.life(1_000) == 0
    assert TOKEN.life(5_000) == 0


def test_the_id_asked_for_is_whichever_was_given() -> None:
    assert TokenRequest(resource="r").asked is None
    assert TokenRequest(resource="r", resource_id=resource_id(1)).asked == resource_id(1)


def test_an_error_of_a_refusal_says_only_what_the_pod_may_read() -> None:
    refusal = Refusal(reason=Reason.NO_LABEL, message="inside", next_step="Do.", told="outside")
    assert str(Refused(refusal)) == "outside"
    assert str(refusal) == "inside Do."


# How long a token answers, and how long a failure is believed.


DAY = 86_400


@pytest.mark.parametrize(
    ("life", "expected"),
    [
        (DAY, Schedule(renew=DAY / 2, stale=DAY - 300, last=DAY - 30)),
        (7200, Schedule(renew=3600, stale=6900, last=7170)),
        (3600, Schedule(renew=3000, stale=3300, last=3570)),
        (600, Schedule(renew=225, stale=300, last=570)),
        (60, Schedule(renew=22.5, stale=30, last=30)),
        (1, Schedule(renew=0.375, stale=0.5, last=0.5)),
    ],
)
def test_a_token_is_renewed_ahead_then_fetched_first_then_gone(
    life: float, expected: Schedule
) -> None:
    assert schedule(life) == expected


@given(
    life=st.integers(1, 10 * DAY),
    jitter=st.floats(0, 1),
)
def test_ages_come_in_their_order_and_none_beyond_what_the_token_has(
    life: int, jitter: float
) -> None:
    found = schedule(life, jitter=jitter)
    assert 0 < found.renew <= found.stale <= found.last < life
    assert found.stale <= life - min(300, life / 2)


@given(life=st.integers(1, 10 * DAY))
def test_jitter_only_ever_renews_earlier_and_by_a_tenth_at_most(life: int) -> None:
    plain, early = schedule(life), schedule(life, jitter=1.0)
    assert early.renew == pytest.approx(0.9 * plain.renew)
    assert (early.stale, early.last) == (plain.stale, plain.last)


def refused(status: int) -> TokenRefused:
    return TokenRefused("no", status=status, error="invalid")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (refused(400), [60, 60, 60]),
        (refused(401), [10, 10, 10]),
        (refused(403), [10, 10, 10]),
        (NotYetKnown("no", status=400, error="invalid"), [0.5, 1, 2, 2]),
        (TokenSourceDown("away"), [1, 2, 4, 8, 10, 10]),
        (TokenUnavailable("hm"), [1, 2, 4, 8, 10]),
        (TokenThrottled("slow", retry_after=7), [7, 7]),
        (TokenThrottled("slow", retry_after=999_999), [3600]),
    ],
    ids=["request", "login", "forbidden", "new", "down", "unknown", "throttled", "for-weeks"],
)
def test_a_failure_is_believed_for_as_long_as_its_kind_deserves(
    error: TokenUnavailable, seconds: list[float]
) -> None:
    assert [negative_ttl(error, before) for before in range(len(seconds))] == seconds


def test_a_failure_that_lasts_for_weeks_has_a_number_still() -> None:
    assert negative_ttl(TokenSourceDown("away"), 10**6) == 10

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

import pytest

from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.wire.entra import StaleAssertion, parse_answer
from tests.fakes import NOW, VAULT
from tests.wire.entra.test_exchange import HERE, SECRET

TRACE = "\r\nTrace ID: 1\r\nCorrelation ID: 2\r\nTimestamp: 2026-11-25 12:00:00Z"


def refusal(status: int, body: object, retry_after: str = "") -> TokenUnavailable:
    given = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(TokenUnavailable) as caught:
        parse_answer(
            status,
            given,
            client=HERE,
            resource=VAULT,
            proof=SECRET,
            now=NOW,
            retry_after=retry_after,
        )
    return caught.value


def entra(code: int, error: str = "invalid_client", text: str = "no.") -> dict[str, Any]:
    description = f"AADSTS{code}: {text}{TRACE}"
    return {"error": error, "error_description": description, "error_codes": [code]}


@pytest.mark.parametrize("code", [7000215, 7000222, 700027, 70011, 500011, 90002])
def test_what_entra_refuses_is_passed_on_without_what_differs_each_time(code: int) -> None:
    found = refusal(401, entra(code))
    assert type(found) is TokenRefused
    assert (found.status, found.error) == (401, "invalid_client")
    assert str(found) == f"https://login.microsoftonline.com: AADSTS{code}: no."


@pytest.mark.parametrize("code", [70021, 700016, 700211, 700212, 700213, 70025])
def test_what_may_only_have_to_spread_is_not_yet_known(code: int) -> None:
    assert isinstance(refusal(400, entra(code, "unauthorized_client")), NotYetKnown)


def test_an_assertion_out_of_its_time_may_be_made_anew() -> None:
    assert isinstance(refusal(401, entra(700024)), StaleAssertion)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("", 5), ("99999", 3600), ("Wed, 25 Nov 2026", 5)]
)
def test_a_throttled_answer_says_when_to_ask_again(header: str, seconds: int) -> None:
    found = refusal(429, b"", header)
    assert isinstance(found, TokenThrottled)
    assert found.retry_after == seconds


def test_a_client_that_asks_in_a_loop_is_told_to_leave_entra_alone_for_a_minute() -> None:
    found = refusal(400, entra(50196, "invalid_grant"))
    assert isinstance(found, TokenThrottled)
    assert found.retry_after == 60


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (302, b""),
        (307, entra(7000215)),
        (400, b"<html>a proxy's page</html>"),
        (403, b"[]"),
        (400, entra(90061, "invalid_request")),
        (404, b"{}"),
        (500, entra(90033, "temporarily_unavailable")),
        (503, b""),
        (100, b""),
    ],
)
def test_anything_else_counts_as_no_answer(status: int, body: object) -> None:
    found = refusal(status, body)
    assert isinstance(found, TokenSourceDown)
    assert f"(status {status})" in str(found)


@pytest.mark.parametrize("codes", [None, 7, "70021", [None, "x", -1, {}]])
def test_numbers_of_any_kind_are_read_with_care(codes: object) -> None:
    assert type(refusal(400, entra(1) | {"error_codes": codes})) is TokenRefused


@pytest.mark.parametrize("text", [SECRET.text, quote_plus(SECRET.text)])
@pytest.mark.parametrize("before", [0, 590])
def test_a_secret_that_an_answer_repeats_is_in_no_error(text: str, before: int) -> None:
    body = {"error": f"e {text}", "error_description": f"{'x' * before} you sent {text} and more"}
    found = refusal(400, body)
    assert isinstance(found, TokenRefused)
    said = f"{found}{found!r}{found.error}"
    assert text[:5] not in said
    assert "…" in said

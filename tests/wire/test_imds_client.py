from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.resources import ClientId
from podidentity.core.tokens import AccessToken
from podidentity.wire.imds_client import parse_answer, render_request
from tests.fakes import CLIENT, NOW, OTHER_CLIENT, VAULT, identity
from tests.jwts import jwt

ID = ClientId.parse(CLIENT)
OF = identity(resource_id=None)
GOOD: dict[str, Any] = {
    "access_token": jwt(appid=CLIENT),
    "client_id": CLIENT,
    "expires_in": "86317",
    "expires_on": str(int(NOW) + 86_317),
    "ext_expires_in": "86399",
    "not_before": str(int(NOW) - 300),
    "resource": VAULT,
    "token_type": "Bearer",
}


def parse(status: int, body: bytes, retry_after: str = "") -> AccessToken:
    return parse_answer(status, body, identity=OF, resource=VAULT, now=NOW, retry_after=retry_after)


def answer(**changes: Any) -> bytes:
    fields = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return json.dumps(fields).encode()


def test_a_request_names_the_identity_and_encodes_the_resource() -> None:
    assert render_request(OF, "api://a?b=c&d") == (
        "/metadata/identity/oauth2/token?api-version=2018-02-01"
        f"&resource=api%3A%2F%2Fa%3Fb%3Dc%26d&client_id={CLIENT}"
    )
    assert render_request(OF, "a", bypass_cache=True).endswith("&bypass_cache=true")


def test_an_answer_becomes_a_token_with_its_life() -> None:
    assert parse(200, answer()) == AccessToken(
        value=GOOD["access_token"],
        client_id=ID,
        expires_on=int(NOW) + 86_317,
        not_before=int(NOW) - 300,
        resource=VAULT,
        ext_expires_in=82,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_in": 86_317, "expires_on": int(NOW) + 86_317, "not_before": int(NOW) - 300},
        {"expires_on": None},
        {"expires_on": str(int(NOW) + 2 * 86_317)},
        {"expires_in": "172634"},
        {"expires_on": "", "expires_in": "86317.9"},
        {"client_id": None},
        {"client_id": CLIENT.upper()},
        {"access_token": jwt(azp=CLIENT)},
        {"access_token": jwt(appid=CLIENT.upper(), exp=1)},
        {"ext_expires_in": None, "token_type": None},
    ],
)
def test_spellings_of_imds_through_the_years_are_read(changes: dict[str, Any]) -> None:
    assert parse(200, answer(**changes)).expires_on == int(NOW) + 86_317


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": OTHER_CLIENT},
        {"access_token": jwt(appid=OTHER_CLIENT)},
        {"access_token": jwt(appid=OTHER_CLIENT), "client_id": OTHER_CLIENT},
        {"access_token": jwt(oid=CLIENT)},
        {"access_token": "opaque"},
        {"access_token": "a.b.c"},
        {"access_token": "a.ééé.c"},
        {"access_token": jwt(appid=3)},
        {"access_token": "..", "client_id": CLIENT},
    ],
)
def test_a_token_that_is_not_provably_the_asked_identitys_is_not_handed_out(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(TokenSourceDown, match="not handed out") as caught:
        parse(200, answer(**changes))
    assert jwt(appid=OTHER_CLIENT) not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no JSON object"),
        (b"<html>", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"\xff", "no JSON object"),
        (b"[" * 10_000, "no JSON object"),
        (answer(access_token=None), "without an access_token"),
        (answer(access_token=["x"]), "without an access_token"),
        (answer(expires_on=str(int(NOW) - 1)), "no life left"),
        (answer(expires_on="", expires_in=""), "no life left"),
        (answer(expires_on="11/25/2026", expires_in="soon"), "no life left"),
    ],
)
def test_an_answer_that_makes_no_sense_counts_as_none(body: bytes, why: str) -> None:
    with pytest.raises(TokenSourceDown, match=why):
        parse(200, body)


@pytest.mark.parametrize(
    ("status", "body", "error", "told"),
    [
        (
            400,
            {"error": "invalid_resource", "error_description": "AADSTS500011: no\n such"},
            "invalid_resource",
            "IMDS: AADSTS500011: no such",
        ),
        (
            401,
            {"error": "unknown_source", "error_description": "Unknown Source x"},
            "unknown_source",
            "IMDS: Unknown Source x",
        ),
        (403, {}, "invalid_request", "IMDS: status 403 without a reason"),
        (
            400,
            {"error": "Bad request. api-version is invalid"},
            "invalid_request",
            "IMDS: Bad request. api-version is invalid",
        ),
    ],
)
def test_a_refusal_of_imds_is_passed_on(
    status: int, body: dict[str, str], error: str, told: str
) -> None:
    with pytest.raises(TokenRefused) as caught:
        parse(status, json.dumps(body).encode())
    assert (caught.value.status, caught.value.error, str(caught.value)) == (status, error, told)
    assert not isinstance(caught.value, NotYetKnown)


def test_an_identity_that_imds_does_not_know_may_come_yet() -> None:
    body = {"error": "invalid_request", "error_description": "Identity not found"}
    with pytest.raises(NotYetKnown):
        parse(400, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("", 1), ("0", 1), ("999999999", 60), ("Wed, 25 Nov 2026 12:00:00 GMT", 1)],
)
def test_a_throttled_answer_says_when_to_ask_again(header: str, seconds: int) -> None:
    with pytest.raises(TokenThrottled) as caught:
        parse(429, b"{}", header)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("status", [100, 204, 301, 404, 405, 410, 500, 503, 599])
def test_any_other_status_counts_as_no_answer(status: int) -> None:
    with pytest.raises(TokenSourceDown, match=str(status)):
        parse(status, b'{"error":"unknown"}')


@given(st.integers(100, 599), st.binary(max_size=200), st.text(max_size=5))
def test_whatever_imds_answers_it_is_a_token_or_unavailable(
    status: int, body: bytes, header: str
) -> None:
    with pytest.raises(TokenUnavailable):
        parse(status, body, header)

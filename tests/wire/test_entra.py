"""Requests to Entra's token endpoint, its answers and its refusals."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any
from urllib.parse import parse_qs, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.authorities import PUBLIC
from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.resources import AccessToken, Authority, ClientId, Tenant
from podidentity.wire.entra import (
    Client,
    ClientCredential,
    StaleAssertion,
    parse_answer,
    render_request,
    signed,
    signing_input,
)
from tests.fakes import CLIENT, NOW, OTHER_CLIENT, VAULT
from tests.jwts import jwt

TENANT = "aaaaaaaa-2222-3333-4444-555555555555"
HERE = Client(
    client_id=ClientId.parse(CLIENT), tenant=Tenant.parse(TENANT), authority=PUBLIC.authority
)
STACK = Client(
    client_id=ClientId.parse(CLIENT),
    tenant=Tenant.parse("adfs"),
    authority=Authority.parse("https://adfs.local.azurestack.external/"),
)
SECRET = ClientCredential(text="s3cret +&", assertion=False)
GOOD: dict[str, Any] = {
    "token_type": "Bearer",
    "expires_in": 3599,
    "ext_expires_in": 7199,
    "access_token": jwt(appid=CLIENT, tid=TENANT, exp=int(NOW) + 3599, nbf=int(NOW) - 300),
}


def answer(**changes: Any) -> bytes:
    fields = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return json.dumps(fields).encode()


def parse(body: bytes, status: int = 200, client: Client = HERE) -> AccessToken:
    return parse_answer(
        status, body, client=client, resource=VAULT, credential=SECRET, now=NOW, retry_after=""
    )


def form(client: Client, resource: str, credential: ClientCredential) -> dict[str, str]:
    asked = parse_qs(render_request(client, resource, credential).decode(), strict_parsing=True)
    return {name: only for name, (only,) in asked.items()}


def test_entra_is_asked_at_version_2_and_adfs_at_version_1() -> None:
    assert HERE.url == f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"
    assert STACK.url == "https://adfs.local.azurestack.external/adfs/oauth2/token"


def test_a_secret_and_an_assertion_are_sent_as_msal_sends_them() -> None:
    assert form(HERE, VAULT, SECRET) == {
        "client_id": CLIENT,
        "grant_type": "client_credentials",
        "scope": "https://vault.azure.net/.default",
        "client_secret": "s3cret +&",
    }
    assert form(STACK, VAULT, ClientCredential(text="a.b.c", assertion=True)) == {
        "client_id": CLIENT,
        "grant_type": "client_credentials",
        "resource": VAULT,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "a.b.c",
    }


@pytest.mark.parametrize(
    ("resource", "scope"),
    [
        ("https://vault.azure.net/", "https://vault.azure.net//.default"),
        ("https://database.windows.net/", "https://database.windows.net//.default"),
        ("https://management.azure.com/.default", "https://management.azure.com/.default"),
        (CLIENT, f"{CLIENT}/.default"),
    ],
)
def test_a_resource_becomes_a_scope_verbatim(resource: str, scope: str) -> None:
    assert form(HERE, resource, SECRET)["scope"] == scope


def test_ad_fs_is_asked_for_the_resource_of_a_scope() -> None:
    for resource in (VAULT, f"{VAULT}/.default"):
        assert form(STACK, resource, SECRET)["resource"] == VAULT


def test_an_answer_becomes_a_token_with_its_life() -> None:
    assert parse(answer()) == AccessToken(
        value=GOOD["access_token"],
        client_id=ClientId.parse(CLIENT),
        expires_on=int(NOW) + 3599,
        not_before=int(NOW) - 300,
        resource=VAULT,
        ext_expires_in=3600,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_in": "3599", "ext_expires_in": "7199", "expires_on": "1", "not_before": ""},
        {"expires_in": 3599.9},
        {"expires_in": "", "ext_expires_in": ""},
        {"expires_in": None, "ext_expires_in": None, "token_type": None},
        {"expires_in": {"of": []}, "ext_expires_in": True},
        {"access_token": jwt(azp=CLIENT.upper(), tid=TENANT.upper())},
        {"access_token": jwt(appid=CLIENT, tid=TENANT, exp="soon", nbf=[])},
    ],
)
def test_spellings_of_both_versions_are_read(changes: dict[str, Any]) -> None:
    assert parse(answer(**changes)).expires_on == int(NOW) + 3599


def test_what_an_answer_leaves_out_is_from_now_on_and_no_longer_than_its_life() -> None:
    bare = jwt(appid=CLIENT, tid=TENANT)
    found = parse(answer(access_token=bare, ext_expires_in=None))
    assert (found.not_before, found.ext_expires_in) == (int(NOW), 0)


def test_a_clock_that_is_behind_makes_no_token_live_longer() -> None:
    later = jwt(appid=CLIENT, tid=TENANT, exp=int(NOW) + 99_999)
    assert parse(answer(access_token=later)).expires_on == int(NOW) + 3599


def test_a_token_of_one_second_is_given() -> None:
    soon = jwt(appid=CLIENT, tid=TENANT, exp=int(NOW) + 1)
    assert parse(answer(access_token=soon)).expires_on == int(NOW) + 1


@pytest.mark.parametrize("left", [0, -1])
def test_a_clock_that_is_ahead_is_named_as_the_cause(left: int) -> None:
    sooner = jwt(appid=CLIENT, tid=TENANT, exp=int(NOW) + left)
    with pytest.raises(TokenSourceDown, match="compare this node's clock"):
        parse(answer(access_token=sooner))


@pytest.mark.parametrize(
    "token",
    [
        jwt(appid=OTHER_CLIENT, tid=TENANT),
        jwt(tid=TENANT),
        jwt(oid=CLIENT, tid=TENANT),
        jwt(appid=3, tid=TENANT),
        "opaque",
        "a.b.c",
        "..",
    ],
)
def test_the_token_of_another_client_is_not_handed_out(token: str) -> None:
    with pytest.raises(TokenSourceDown, match="not provably that client's") as caught:
        parse(answer(access_token=token))
    assert token not in str(caught.value) or token == ".."


@pytest.mark.parametrize("tid", [OTHER_CLIENT, ""])
def test_the_token_of_another_tenant_is_not_handed_out(tid: str) -> None:
    with pytest.raises(TokenRefused, match="another tenant"):
        parse(answer(access_token=jwt(appid=CLIENT, tid=tid)))


def test_a_tenant_that_is_named_by_its_domain_is_not_compared() -> None:
    named = Client(
        client_id=HERE.client_id,
        tenant=Tenant.parse("contoso.onmicrosoft.com"),
        authority=HERE.authority,
    )
    assert parse(answer(), client=named).value == GOOD["access_token"]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"\xff", b"[" * 10_000, answer(access_token=None)]
)
def test_an_answer_that_makes_no_sense_counts_as_none(body: bytes) -> None:
    with pytest.raises(TokenSourceDown, match="microsoftonline"):
        parse(body)


@pytest.mark.parametrize("token", [None, "", ["x"]])
def test_an_answer_without_a_token_is_told_as_such(token: object) -> None:
    with pytest.raises(TokenSourceDown, match="answered without an access_token"):
        parse(answer(access_token=token))


@given(st.integers(100, 599), st.binary(max_size=200))
def test_whatever_is_answered_it_is_a_token_or_unavailable(status: int, body: bytes) -> None:
    with pytest.raises(TokenUnavailable):
        parse(body, status)


def test_a_proof_shows_itself_nowhere() -> None:
    assert SECRET.text not in repr(SECRET)


TRACE = "\r\nTrace ID: 1\r\nCorrelation ID: 2\r\nTimestamp: 2026-11-25 12:00:00Z"


def refusal(status: int, body: object, retry_after: str = "") -> TokenUnavailable:
    given = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(TokenUnavailable) as caught:
        parse_answer(
            status,
            given,
            client=HERE,
            resource=VAULT,
            credential=SECRET,
            now=NOW,
            retry_after=retry_after,
        )
    return caught.value


def entra(code: int, error: str = "invalid_client") -> dict[str, Any]:
    description = f"AADSTS{code}: no.{TRACE}"
    return {"error": error, "error_description": description, "error_codes": [code]}


@pytest.mark.parametrize("code", [7000215, 7000222, 700027, 70011, 500011, 90002])
def test_what_entra_refuses_is_passed_on_without_what_differs_each_time(code: int) -> None:
    found = refusal(401, entra(code))
    assert type(found) is TokenRefused
    assert (found.status, found.error) == (401, "invalid_client")
    assert str(found) == f"https://login.microsoftonline.com: AADSTS{code}: no."


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_of_each_status_is_told_to_its_end_or_the_first_trace(status: int) -> None:
    for text in ("no", f"no{TRACE}{TRACE}"):
        found = refusal(status, {"error": "denied", "error_description": text})
        assert isinstance(found, TokenRefused)
        assert (found.status, found.error) == (status, "denied")
        assert str(found) == "https://login.microsoftonline.com: no"


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


CHAIN = [b"own", b"issuer"]


def parts(text: bytes) -> list[dict[str, Any]]:
    return [
        json.loads(urlsafe_b64decode(part + b"=" * (-len(part) % 4))) for part in text.split(b".")
    ]


def test_entras_assertion_names_the_certificate_by_sha_256() -> None:
    header, claims = parts(signing_input(HERE, CHAIN, now=NOW + 0.9, unique="u"))
    assert header == {
        "alg": "PS256",
        "typ": "JWT",
        "x5t#S256": "Wzl1ZRw8q5LQRMCW3DChwtlSVJdFdHLeSMUeyzY9H0o",
        "x5c": ["b3du", "aXNzdWVy"],
    }
    assert claims == {
        "aud": HERE.url,
        "iss": CLIENT,
        "sub": CLIENT,
        "jti": "u",
        "nbf": int(NOW),
        "iat": int(NOW),
        "exp": int(NOW) + 600,
    }


def test_the_assertion_for_adfs_is_the_older_one() -> None:
    header, claims = parts(signing_input(STACK, CHAIN, now=NOW, unique="u"))
    assert (header["alg"], header["x5t"]) == ("RS256", "-_Y8atulf_KhjYPVXe_z216JsEM")
    assert claims["aud"] == "https://adfs.local.azurestack.external/adfs/oauth2/token"


def test_the_signature_comes_last_without_padding() -> None:
    assert signed(b"a.b", b"\xff\xfe") == "a.b.__4"

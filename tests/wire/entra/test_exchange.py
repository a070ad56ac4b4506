from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.authorities import PUBLIC, Authority, Tenant
from podidentity.core.errors import TokenRefused, TokenSourceDown, TokenUnavailable
from podidentity.core.ids import ClientId
from podidentity.core.tokens import AccessToken
from podidentity.wire.entra import Client, ClientCredential, parse_answer, render_request
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
        status, body, client=client, resource=VAULT, proof=SECRET, now=NOW, retry_after=""
    )


def form(client: Client, resource: str, proof: ClientCredential) -> dict[str, str]:
    asked = parse_qs(render_request(client, resource, proof).decode(), strict_parsing=True)
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


def test_a_clock_that_is_behind_makes_no_token_live_longer() -> None:
    later = jwt(appid=CLIENT, tid=TENANT, exp=int(NOW) + 99_999)
    assert parse(answer(access_token=later)).expires_on == int(NOW) + 3599


def test_a_clock_that_is_ahead_is_named_as_the_cause() -> None:
    sooner = jwt(appid=CLIENT, tid=TENANT, exp=int(NOW) - 1)
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


@given(st.integers(100, 599), st.binary(max_size=200))
def test_whatever_is_answered_it_is_a_token_or_unavailable(status: int, body: bytes) -> None:
    with pytest.raises(TokenUnavailable):
        parse(body, status)


def test_a_proof_shows_itself_nowhere() -> None:
    assert SECRET.text not in repr(SECRET)

"""Entra: what it publishes, whom it gives a token, and its errors in their documented form."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from podidentity_sandbox.azure.messages import Reply, Request
from tests.sandbox.azure.direct import Direct

VAULT = "https://vault.azure.net"


def post(
    direct: Direct, form: dict[str, str], path: str = "oauth2/v2.0/token"
) -> tuple[Reply, Any]:
    return direct.sign_in(form, path)


def good_form(direct: Direct) -> dict[str, str]:
    return {
        "grant_type": "client_credentials",
        "client_id": direct.plan.operator_id,
        "client_secret": direct.plan.operator_secret,
        "scope": f"{VAULT}/.default",
    }


@pytest.mark.parametrize(
    ("change", "status", "error", "code"),
    [
        ({"grant_type": ""}, 400, "invalid_request", 900144),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, 400, "unauthorized_client", 700016),
        ({"client_secret": None}, 401, "invalid_client", 7000218),
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": ""}, 401, "invalid_client", 7000218),
        ({"scope": ""}, 400, "invalid_request", 900144),
        ({"scope": VAULT}, 400, "invalid_scope", 1002012),
        ({"scope": f"{VAULT}/.default openid"}, 400, "invalid_scope", 1002012),
        ({"scope": "https://nowhere.example/.default"}, 400, "invalid_resource", 500011),
    ],
)
def test_a_bad_request_is_refused_by_its_code(
    direct: Direct, change: dict[str, str | None], status: int, error: str, code: int
) -> None:
    form = {k: v for k, v in {**good_form(direct), **change}.items() if v is not None}
    reply, body = post(direct, form)
    assert (reply.status, body["error"], body["error_codes"]) == (status, error, [code])
    assert body["error_description"].startswith(f"AADSTS{code}: ")
    assert set(body) == {
        "error",
        "error_description",
        "error_codes",
        "timestamp",
        "trace_id",
        "correlation_id",
        "error_uri",
    }
    assert direct.plan.operator_secret not in reply.body.decode()


def test_a_managed_identity_cannot_sign_in_with_a_secret(direct: Direct) -> None:
    mine = direct.identity("mine")
    _, body = post(direct, {**good_form(direct), "client_id": mine.client_id, "client_secret": ""})
    assert body["error_codes"] == [7000218]
    form = {**good_form(direct), "client_id": mine.client_id}
    assert post(direct, form)[1]["error_codes"] == [7000232]


def test_another_tenant_is_not_found(direct: Direct) -> None:
    target = "/00000000-0000-0000-0000-000000000000/v2.0/.well-known/openid-configuration"
    reply = direct.signed_in(Request(method="GET", target=target))
    assert (reply.status, json.loads(reply.body)["error_codes"]) == (400, [90002])


@pytest.mark.parametrize("slash", ["", "/"])
def test_v2_answers_in_integers_and_the_resource_keeps_its_slash(
    direct: Direct, slash: str
) -> None:
    _, body = post(direct, {**good_form(direct), "scope": f"{VAULT}{slash}/.default"})
    assert (body["token_type"], body["expires_in"], body["ext_expires_in"]) == (
        "Bearer",
        3599,
        3599,
    )
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert claims["aud"] == f"{VAULT}{slash}"
    assert claims["iss"] == f"https://sts.windows.net/{direct.plan.tenant_id}/"
    assert "xms_mirid" not in claims


def test_v1_answers_in_strings(direct: Direct) -> None:
    form = {**good_form(direct), "resource": VAULT}
    _, body = post(direct, form, "oauth2/token?api-version=1.0")
    assert {type(value) for value in body.values()} == {str}
    assert body["resource"] == VAULT


@pytest.mark.parametrize("version", ["", "/v2.0"])
def test_the_published_keys_explain_the_signature(direct: Direct, version: str) -> None:
    def get(path: str) -> Any:
        target = f"/{direct.plan.tenant_id}{path}"
        return json.loads(direct.signed_in(Request(method="GET", target=target)).body)

    configuration = get(f"{version}/.well-known/openid-configuration")
    where = configuration["jwks_uri"].partition(direct.plan.tenant_id)[2]
    (key,) = get(where)["keys"]
    token = post(direct, good_form(direct))[1]["access_token"]
    assert jwt.get_unverified_header(token)["kid"] == key["kid"]
    jwt.decode(token, jwt.PyJWK(key, "RS256"), algorithms=["RS256"], audience=VAULT)

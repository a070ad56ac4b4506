"""Key Vault: which tokens it takes, whom it lets in, what it answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jwt
import pytest

from podidentity_sandbox.azure.directory import Principal
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.seed import operator_object_id
from podidentity_sandbox.azure.state import UserAssignedIdentity, Vault
from tests.sandbox.azure.direct import Direct

VAULT = "https://vault.azure.net"
PATH = "/secrets/demo"


@pytest.fixture
def reader(direct: Direct) -> UserAssignedIdentity:
    """A vault my-kv that the operator fills and this identity reads."""
    mine = direct.identity("reader")
    grants = {operator_object_id(direct.plan): ["All"], mine.principal_id: ["Get"]}
    policies = tuple(
        {"objectId": who, "permissions": {"secrets": what}} for who, what in grants.items()
    )
    direct.world.put(
        Vault(id="/v", name="My-KV", location="westeurope", tags={}, sku={}, policies=policies)
    )
    assert call(direct, "PUT", PATH, {"value": "first"})[0].status == 200
    return mine


def call(
    direct: Direct,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str | None = None,
) -> tuple[Reply, Any]:
    bearer = direct.token(VAULT) if token is None else token
    request = Request(
        method=method,
        target=path if "?" in path else f"{path}?api-version=7.4",
        host="my-kv.vault.azure.net",
        headers={"authorization": f"Bearer {bearer}"} if bearer else {},
        body=json.dumps(body).encode() if body is not None else b"",
    )
    reply = direct.vaults.handle(request)
    return reply, json.loads(reply.body) if reply.body else None


def as_reader(direct: Direct, reader: UserAssignedIdentity) -> str:
    return direct.token(VAULT, direct.world.principals[reader.principal_id])


def test_the_reader_gets_the_newest_version_and_older_ones_by_name(
    direct: Direct, reader: UserAssignedIdentity
) -> None:
    token = as_reader(direct, reader)
    first = call(direct, "GET", PATH, token=token)[1]["id"]
    call(direct, "PUT", "/secrets/DEMO", {"value": "second"})
    assert call(direct, "GET", f"{PATH}/", token=token)[1]["value"] == "second"
    path = first.removeprefix("https://my-kv.vault.azure.net")
    assert call(direct, "GET", path, token=token)[1]["value"] == "first"


@pytest.mark.parametrize(
    ("because", "words"),
    [
        ("none", "AKV10000: Request is missing a Bearer or PoP token."),
        ("rubbish", "S2S17001"),
        ("unsigned", "S2S17001"),
        ("stranger", "AKV10046"),
        ("forged", "AKV10046"),
        ("issuer", "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/"),
        ("audience", "AKV10022: Invalid audience. Expected https://vault.azure.net, found: https:"),
        ("expired", "S2S12086"),
        ("early", "S2S17001"),
    ],
)
def test_a_token_that_is_worth_nothing_gets_401_and_the_challenge(
    direct: Direct, reader: UserAssignedIdentity, because: str, words: str
) -> None:
    good = as_reader(direct, reader)
    claims = jwt.decode(good, options={"verify_signature": False})
    who = direct.world.principals[reader.principal_id]
    head, _, signature = good.split(".")
    kid = jwt.get_unverified_header(good)["kid"]
    other_body = direct.token(VAULT).split(".")[1]
    tokens = {
        "none": "",
        "rubbish": "rubbish",
        "unsigned": jwt.encode(claims, "", algorithm="none", headers={"kid": kid}),
        "stranger": direct.token(VAULT, who, issuer=direct.stranger()),
        "forged": f"{head}.{other_body}.{signature}",
        "issuer": _with_issuer(direct, "https://sts.windows.net/other/", who),
        "audience": direct.token("https://management.azure.com/"),
        "expired": direct.token(VAULT, lifetime=-1),
        "early": direct.token(VAULT, now=direct.clock.now + 1000),
    }
    reply, body = call(direct, "GET", PATH, token=tokens[because])
    assert (reply.status, body["error"]["code"]) == (401, "Unauthorized")
    assert words in body["error"]["message"]
    assert reply.headers["WWW-Authenticate"] == (
        f'Bearer authorization="https://login.microsoftonline.com/{direct.plan.tenant_id}",'
        f' resource="{VAULT}"'
    )


def _with_issuer(direct: Direct, issuer: str, who: Principal) -> str:
    right = direct.issuer.issuer
    direct.issuer.issuer = issuer
    try:
        return direct.token(VAULT, who)
    finally:
        direct.issuer.issuer = right


def test_whom_no_policy_names_is_forbidden_in_the_real_words(
    direct: Direct, reader: UserAssignedIdentity
) -> None:
    other = direct.identity("other")
    token = direct.token(VAULT, direct.world.principals[other.principal_id])
    reply, body = call(direct, "GET", PATH, token=token)
    assert (reply.status, body["error"]["innererror"]) == (403, {"code": "AccessDenied"})
    assert body["error"]["message"].startswith(
        f"The user, group or application 'appid={other.client_id};oid={other.principal_id};"
        f"iss=https://sts.windows.net/{direct.plan.tenant_id}/' does not have secrets get"
        " permission on key vault 'My-KV;location=westeurope'."
    )
    assert reader.client_id != other.client_id


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (f"PUT {PATH}?api-version=7.4", 403, "Forbidden"),
        (f"DELETE {PATH}?api-version=7.4", 403, "Forbidden"),
        ("GET /secrets/other?api-version=7.4", 404, "SecretNotFound"),
        (f"GET {PATH}/0123?api-version=7.4", 404, "SecretNotFound"),
        (f"GET {PATH}?", 400, "BadParameter"),
        ("GET /secrets/a_b?api-version=7.4", 400, "BadParameter"),
        ("GET /keys/demo?api-version=7.4", 404, "NotFound"),
    ],
)
def test_a_reader_is_refused_what_is_not_there_or_not_his(
    direct: Direct, reader: UserAssignedIdentity, asked: str, status: int, code: str
) -> None:
    method, target = asked.split(" ")
    token = as_reader(direct, reader)
    reply, body = call(direct, method, target, {"value": "x"}, token=token)
    assert (reply.status, body["error"]["code"]) == (status, code)


def test_a_deleted_secret_is_gone(direct: Direct, reader: UserAssignedIdentity) -> None:
    assert call(direct, "DELETE", PATH)[0].status == 200
    assert call(direct, "GET", PATH, token=as_reader(direct, reader))[0].status == 404


def test_a_policy_for_keys_says_nothing_of_secrets(
    direct: Direct, reader: UserAssignedIdentity
) -> None:
    vault = direct.world.vault("my-kv")
    assert vault is not None
    policy = {"objectId": reader.principal_id, "permissions": {"keys": ["get"]}}
    direct.world.put(replace(vault, policies=(policy,)))
    assert call(direct, "GET", PATH, token=as_reader(direct, reader))[0].status == 403

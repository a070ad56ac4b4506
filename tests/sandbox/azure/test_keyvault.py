"""Key Vault: its tokens, access policies and roles."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jwt
import pytest

from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.seed import operator_object_id
from podidentity_sandbox.azure.state import UserAssignedIdentity, Vault
from tests.sandbox.azure.direct import Direct

VAULT = "https://vault.azure.net"
PATH = "/secrets/demo"


def put_vault(direct: Direct, may: dict[str, list[str]], *, by_roles: bool = False) -> Vault:
    """Store the vault My-KV; `may` has the permissions on its secrets, by object id."""
    group = f"{direct.world.subscription}/resourceGroups/{direct.plan.cluster_group}"
    vault = Vault(
        id=f"{group}/providers/Microsoft.KeyVault/vaults/My-KV",
        name="My-KV",
        location="westeurope",
        tags={},
        sku={},
        policies=tuple(
            {"objectId": who, "permissions": {"secrets": what}} for who, what in may.items()
        ),
        by_roles=by_roles,
    )
    direct.world.put(vault)
    return vault


def put_own_vault(direct: Direct, *permissions: str) -> Vault:
    """Store the vault with these permissions for the operator."""
    return put_vault(direct, {operator_object_id(direct.plan): list(permissions)})


@pytest.fixture
def reader(direct: Direct) -> UserAssignedIdentity:
    """A vault that the operator fills and this identity reads."""
    mine = direct.identity("reader")
    put_vault(direct, {operator_object_id(direct.plan): ["All"], mine.principal_id: ["Get"]})
    made(direct, "PUT", PATH, {"value": "first"})
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


def made(direct: Direct, method: str, path: str, body: object = None) -> Any:
    reply, answer = call(direct, method, path, body)
    assert reply.status == 200, answer
    return answer


def as_reader(direct: Direct, reader: UserAssignedIdentity) -> str:
    return direct.token(VAULT, direct.principal_of(reader))


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
    who = direct.principal_of(reader)
    head, _, signature = good.split(".")
    kid = jwt.get_unverified_header(good)["kid"]
    other_body = direct.token(VAULT).split(".")[1]
    tokens = {
        "none": "",
        "rubbish": "rubbish",
        "unsigned": jwt.encode(claims, "", algorithm="none", headers={"kid": kid}),
        "stranger": direct.token(VAULT, who, issuer=direct.stranger()),
        "forged": f"{head}.{other_body}.{signature}",
        "issuer": direct.token(VAULT, who, issuer=direct.of_another_tenant()),
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


def test_a_policy_for_keys_says_nothing_of_secrets(direct: Direct) -> None:
    vault = put_own_vault(direct, "all")
    policy = {"objectId": operator_object_id(direct.plan), "permissions": {"keys": ["get"]}}
    direct.world.put(replace(vault, policies=(policy,)))
    assert call(direct, "GET", PATH)[0].status == 403


# ---- Whose secrets they are


@pytest.mark.parametrize(
    ("method", "needed", "other"), [("GET", "get", "set"), ("PUT", "set", "get")]
)
def test_each_operation_needs_its_permission(
    direct: Direct, method: str, needed: str, other: str
) -> None:
    # https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#secret-access-control
    put_own_vault(direct, other)
    reply, answer = call(direct, method, PATH, {"value": "1"})
    assert (reply.status, answer["error"]["code"]) == (403, "Forbidden")
    assert answer["error"]["innererror"] == {"code": "AccessDenied"}
    issuer = f"iss=https://sts.windows.net/{direct.plan.tenant_id}/"
    who = f"appid={direct.plan.operator_id};oid={operator_object_id(direct.plan)};{issuer}"
    assert answer["error"]["message"].startswith(
        f"The user, group or application '{who}' does not have secrets {needed} permission on key"
        " vault 'My-KV;location=westeurope'."
    )
    put_own_vault(direct, needed)
    assert call(direct, method, PATH, {"value": "1"})[0].status != 403


@pytest.fixture
def by_roles(direct: Direct) -> UserAssignedIdentity:
    """A vault my-kv whose secrets roles decide about, and an identity without any."""
    put_vault(direct, {operator_object_id(direct.plan): ["all"]}, by_roles=True)
    return direct.identity("reader")


def test_where_roles_decide_a_policy_and_the_ownership_of_all_are_worth_nothing(
    direct: Direct, by_roles: UserAssignedIdentity
) -> None:
    del by_roles
    reply, answer = call(direct, "PUT", PATH, {"value": "first"})
    assert reply.status == 403
    assert answer["error"]["innererror"] == {"code": "ForbiddenByRbac"}
    message = answer["error"]["message"]
    assert "Action: 'Microsoft.KeyVault/vaults/secrets/setSecret/action'\r\n" in message
    assert "/providers/microsoft.keyvault/vaults/my-kv/secrets/demo'\r\n" in message


def filled(direct: Direct) -> Vault:
    """Return the vault, once the operator may fill it."""
    vault = direct.world.vault("my-kv")
    assert vault is not None
    direct.grant("Key Vault Secrets Officer", operator_object_id(direct.plan), vault.id)
    for name in ("demo", "other"):
        made(direct, "PUT", f"/secrets/{name}", {"value": name})
    return vault


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("Key Vault Secrets User", {"get"}),
        ("Contributor", set()),
        ("Key Vault Secrets Officer", {"get", "set"}),
    ],
)
def test_a_role_at_the_vault_lets_its_holder_do_what_its_data_actions_say(
    direct: Direct, by_roles: UserAssignedIdentity, role: str, may: set[str]
) -> None:
    vault = filled(direct)
    direct.grant(role, by_roles.principal_id, vault.id)
    token = as_reader(direct, by_roles)
    done = {
        "get": call(direct, "GET", PATH, token=token),
        "set": call(direct, "PUT", PATH, {"value": "x"}, token=token),
    }
    assert {what for what, (reply, _) in done.items() if reply.status == 200} == may


def test_a_role_at_one_secret_opens_that_secret_alone(
    direct: Direct, by_roles: UserAssignedIdentity
) -> None:
    vault = filled(direct)
    direct.grant("Key Vault Secrets User", by_roles.principal_id, f"{vault.id}/secrets/demo")
    token = as_reader(direct, by_roles)
    assert call(direct, "GET", PATH, token=token)[1]["value"] == "demo"
    assert call(direct, "GET", "/secrets/other", token=token)[0].status == 403


@pytest.mark.parametrize("version", ["7.0", "7.4", "2025-07-01"])
@pytest.mark.parametrize("other", ["7.9", "2024-11-01", "1999-12-01"])
def test_a_version_that_key_vault_has_is_taken_and_any_other_refused_with_the_latest(
    direct: Direct, reader: UserAssignedIdentity, version: str, other: str
) -> None:
    token = as_reader(direct, reader)
    assert call(direct, "GET", f"{PATH}?api-version={version}", token=token)[0].status == 200
    reply, answer = call(direct, "GET", f"{PATH}?api-version={other}", token=token)
    assert (reply.status, answer["error"]["code"]) == (400, "BadParameter")
    assert answer["error"]["message"] == (
        f"The specified version ({other}) is not recognized. Consider using the latest supported"
        " version (2026-04-01)."
    )

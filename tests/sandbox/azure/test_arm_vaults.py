"""Vaults as ARM has them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.azure.direct import Direct

KIND = "providers/Microsoft.KeyVault/vaults"


def body(direct: Direct, **change: Any) -> dict[str, Any]:
    properties = {
        "tenantId": direct.plan.tenant_id,
        "sku": {"family": "A", "name": "standard"},
        "accessPolicies": [],
        **change,
    }
    kept = {name: value for name, value in properties.items() if value is not None}
    return {"location": "West Europe", "properties": kept}


def path(direct: Direct, name: str = "my-kv") -> str:
    return f"resourceGroups/{direct.plan.cluster_group}/{KIND}/{name}"


def test_a_vault_is_made_changed_listed_and_deleted(direct: Direct) -> None:
    mine = direct.identity("mine")
    policy = {"objectId": mine.principal_id, "permissions": {"secrets": ["get"], "keys": None}}
    status, made, _ = direct.arm("PUT", path(direct), body(direct))
    changed = direct.arm("PUT", path(direct), body(direct, accessPolicies=[policy]))
    assert (status, changed[0]) == (201, 200)
    assert made["location"] == "westeurope"
    assert made["properties"]["vaultUri"] == "https://my-kv.vault.azure.net/"
    (read,) = direct.made("GET", path(direct))["properties"]["accessPolicies"]
    assert read["permissions"] == {"secrets": ["get"], "keys": []}
    for where in (KIND, f"resourceGroups/{direct.plan.cluster_group}/{KIND}"):
        assert [one["name"] for one in direct.made("GET", where)["value"]] == ["my-kv"]
    assert direct.made("GET", f"resourceGroups/{direct.plan.node_group}/{KIND}")["value"] == []
    assert [direct.arm("DELETE", path(direct))[0] for _ in range(2)] == [200, 204]
    assert direct.arm("GET", path(direct))[1]["error"]["code"] == "ResourceNotFound"


@pytest.mark.parametrize(
    ("version", "asked", "by_roles"),
    [
        ("2025-05-01", None, False),
        ("2026-02-01", None, True),
        ("2025-05-01", True, True),
        ("2026-02-01", False, False),
    ],
)
def test_a_new_vault_has_what_was_asked_for_and_else_what_the_version_says(
    direct: Direct, version: str, asked: bool | None, by_roles: bool
) -> None:
    where = f"{path(direct)}?api-version={version}"
    made = direct.made("PUT", where, body(direct, enableRbacAuthorization=asked))
    assert made["properties"]["enableRbacAuthorization"] is by_roles
    again = direct.made("PUT", where, body(direct))
    assert again["properties"]["enableRbacAuthorization"] is by_roles


def test_to_turn_a_vault_over_to_roles_one_must_be_able_to_assign_them(direct: Direct) -> None:
    direct.made("PUT", path(direct), body(direct, enableRbacAuthorization=False))
    mine = direct.identity("mine")
    direct.grant("Key Vault Contributor", mine.principal_id, direct.world.subscription)
    who = direct.world.principals[mine.principal_id]
    asked = body(direct, enableRbacAuthorization=True)
    status, answer, _ = direct.arm("PUT", path(direct), asked, principal=who)
    assert (status, answer["error"]["code"]) == (403, "AuthorizationFailed")
    assert direct.arm("PUT", path(direct), body(direct), principal=who)[0] == 200
    assert direct.made("PUT", path(direct), asked)["properties"]["enableRbacAuthorization"]


def test_a_vault_name_is_taken_in_all_of_azure(direct: Direct) -> None:
    direct.made("PUT", path(direct), body(direct))
    other = f"resourceGroups/{direct.plan.node_group}/{KIND}/MY-KV"
    status, answer, _ = direct.arm("PUT", other, body(direct))
    assert (status, answer["error"]["code"]) == (409, "VaultAlreadyExists")


@pytest.mark.parametrize("name", ["1st", "a--b", "ab", "a-", "a_b_c", "a" * 25])
def test_a_vault_name_obeys_the_rules_of_a_host_name(direct: Direct, name: str) -> None:
    status, answer, _ = direct.arm("PUT", path(direct, name), body(direct))
    assert (status, answer["error"]["code"]) == (400, "VaultNameNotValid")


@pytest.mark.parametrize(
    "change",
    [
        {"sku": None},
        {"tenantId": "another"},
        {"accessPolicies": None, "enableRbacAuthorization": False},
        {"enableRbacAuthorization": "yes"},
        {"accessPolicies": [{}]},
        {"accessPolicies": [{"objectId": "x", "permissions": {"secrets": "get"}}]},
    ],
)
def test_a_vault_without_what_it_needs_is_refused(direct: Direct, change: dict[str, Any]) -> None:
    status, answer, _ = direct.arm("PUT", path(direct), body(direct, **change))
    assert (status, answer["error"]["code"]) == (400, "BadRequest")

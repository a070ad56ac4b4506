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


def test_a_vault_always_uses_access_policies_and_its_maker_is_let_in(direct: Direct) -> None:
    asked = body(direct, enableRbacAuthorization=True)
    made = direct.made("PUT", path(direct), asked)["properties"]
    assert made["enableRbacAuthorization"] is False
    assert [policy["permissions"]["secrets"] for policy in made["accessPolicies"]] == [["all"]]
    again = direct.made("PUT", path(direct), asked)["properties"]
    assert again["accessPolicies"] == []


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
        {"accessPolicies": None},
        {"accessPolicies": [{}]},
        {"accessPolicies": [{"objectId": "x", "permissions": {"secrets": "get"}}]},
    ],
)
def test_a_vault_without_what_it_needs_is_refused(direct: Direct, change: dict[str, Any]) -> None:
    status, answer, _ = direct.arm("PUT", path(direct), body(direct, **change))
    assert (status, answer["error"]["code"]) == (400, "BadRequest")

"""What a subscription holds: vaults, storage accounts, and the lists of all that is in it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.azure.direct import Direct

VAULTS = "providers/Microsoft.KeyVault/vaults"
ACCOUNTS = "providers/Microsoft.Storage/storageAccounts"
CLUSTERS = "providers/Microsoft.ContainerService/managedClusters"
IDENTITIES = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
ACCOUNT: dict[str, Any] = {
    "location": "West Europe",
    "kind": "StorageV2",
    "sku": {"name": "Standard_LRS"},
    "properties": {"accessTier": "Cool"},
}


def vault(direct: Direct, **change: Any) -> dict[str, Any]:
    properties = {
        "tenantId": direct.plan.tenant_id,
        "sku": {"family": "A", "name": "standard"},
        "accessPolicies": [],
        **change,
    }
    kept = {name: value for name, value in properties.items() if value is not None}
    return {"location": "West Europe", "properties": kept}


def path(direct: Direct, name: str = "my-kv", kind: str = VAULTS, group: str = "") -> str:
    return f"resourceGroups/{group or direct.plan.cluster_group}/{kind}/{name}"


def account(direct: Direct, name: str = "mydata") -> str:
    return path(direct, name, ACCOUNTS)


@pytest.mark.parametrize("kind", [VAULTS, ACCOUNTS, IDENTITIES])
def test_a_resource_is_listed_and_deleted(direct: Direct, kind: str) -> None:
    name = "mine1"
    where = path(direct, name, kind)
    direct.made("PUT", where, vault(direct) if kind == VAULTS else ACCOUNT)
    for listed in (kind, f"resourceGroups/{direct.plan.cluster_group}/{kind}"):
        assert name in {one["name"] for one in direct.made("GET", listed)["value"]}
    elsewhere = direct.made("GET", f"resourceGroups/{direct.plan.node_group}/{kind}")["value"]
    assert name not in {one["name"] for one in elsewhere}
    assert [direct.arm("DELETE", where)[0] for _ in range(2)] == [200, 204]
    assert direct.refused("GET", where) == (404, "ResourceNotFound")


# ---- Vaults


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
    for body in (vault(direct, enableRbacAuthorization=asked), vault(direct)):
        made = direct.made("PUT", where, body)
        assert made["properties"]["enableRbacAuthorization"] is by_roles


def test_to_turn_a_vault_over_to_roles_one_must_be_able_to_assign_them(direct: Direct) -> None:
    direct.made("PUT", path(direct), vault(direct, enableRbacAuthorization=False))
    mine = direct.identity("mine")
    direct.grant("Contributor", mine.principal_id, direct.world.subscription)
    who, asked = direct.principal_of(mine), vault(direct, enableRbacAuthorization=True)
    refused = direct.refused("PUT", path(direct), asked, principal=who)
    assert refused == (403, "AuthorizationFailed")
    assert direct.arm("PUT", path(direct), vault(direct), principal=who)[0] == 200
    assert direct.made("PUT", path(direct), asked)["properties"]["enableRbacAuthorization"]


@pytest.mark.parametrize("deleted", ["", "vault", "group"])
def test_a_vault_name_is_taken_in_all_of_azure_and_after_its_deletion(
    direct: Direct, deleted: str
) -> None:
    direct.made("PUT", "resourceGroups/mine", {"location": "westeurope"})
    where = path(direct, group="mine")
    direct.made("PUT", where, vault(direct))
    if deleted:
        direct.made("DELETE", where if deleted == "vault" else "resourceGroups/mine")
    taken = direct.refused("PUT", path(direct, "MY-KV"), vault(direct))
    assert taken == (409, "VaultAlreadyExists")


# ---- What opens an account or a cluster


def test_a_reader_sees_an_account_and_a_cluster_and_not_what_opens_them(direct: Direct) -> None:
    direct.made("PUT", account(direct), ACCOUNT)
    reader = direct.identity("reader")
    direct.grant("Reader", reader.principal_id, direct.world.subscription)
    who = direct.principal_of(reader)
    cluster = path(direct, direct.plan.cluster_name, CLUSTERS)
    for where, action in ((account(direct), "listKeys"), (cluster, "listClusterUserCredential")):
        assert direct.arm("GET", where, principal=who)[0] == 200
        refused = direct.refused("POST", f"{where}/{action}", principal=who)
        assert refused == (403, "AuthorizationFailed")


# ---- Lists of everything


def test_lists_show_what_one_may_read_and_nothing_to_strangers(direct: Direct) -> None:
    """A Contributor of one vault finds it by name."""
    direct.made("PUT", path(direct, "one-kv"), vault(direct))
    two = direct.made("PUT", path(direct, "two-kv", group=direct.plan.node_group), vault(direct))
    mine = direct.identity("mine")
    who = direct.principal_of(mine)
    assert direct.refused("GET", VAULTS, principal=who) == (403, "AuthorizationFailed")
    direct.grant("Reader", mine.principal_id, two["id"])
    for where in (VAULTS, "resources"):
        listed = direct.arm("GET", where, principal=who)[1]["value"]
        assert [one["name"] for one in listed] == ["two-kv"]
    group = f"resourceGroups/{direct.plan.cluster_group}/{VAULTS}"
    assert direct.arm("GET", group, principal=who)[0] == 403

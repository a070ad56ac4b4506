"""What a subscription holds: groups, vaults, storage accounts, features, and their lists."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.sandbox.azure.direct import Direct

VAULTS = "providers/Microsoft.KeyVault/vaults"
ACCOUNTS = "providers/Microsoft.Storage/storageAccounts"
CLUSTERS = "providers/Microsoft.ContainerService/managedClusters"
IDENTITIES = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
FEATURE = (
    "providers/Microsoft.Features/providers/Microsoft.ContainerService/features"
    "/EnablePodIdentityPreview"
)
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


@pytest.mark.parametrize("name", ["1st", "a--b", "ab", "a-", "a_b_c", "a" * 25])
def test_a_vault_name_obeys_the_rules_of_a_host_name(direct: Direct, name: str) -> None:
    refused = direct.refused("PUT", path(direct, name), vault(direct))
    assert refused == (400, "VaultNameNotValid")


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
    refused = direct.refused("PUT", path(direct), vault(direct, **change))
    assert refused == (400, "BadRequest")


# ---- Storage accounts


def test_a_second_put_changes_what_it_names_and_keeps_the_keys(direct: Direct) -> None:
    direct.made("PUT", account(direct), ACCOUNT)
    keys = direct.made("POST", f"{account(direct)}/listKeys")
    assert [key["keyName"] for key in keys["keys"]] == ["key1", "key2"]
    assert [len(base64.b64decode(key["value"])) for key in keys["keys"]] == [64, 64]
    again = {**ACCOUNT, "tags": {"a": "b"}, "properties": {"supportsHttpsTrafficOnly": False}}
    status, changed, _ = direct.arm("PUT", account(direct), again)
    assert (status, changed["tags"]) == (200, {"a": "b"})
    assert changed["properties"]["supportsHttpsTrafficOnly"] is False
    assert changed["properties"]["accessTier"] == "Cool"
    assert direct.made("POST", f"{account(direct)}/listKeys") == keys


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


BAD_VALUE = (400, "InvalidValuesForRequestParameters")


@pytest.mark.parametrize(
    ("name", "change", "refusal"),
    [
        ("mydata", {"location": "northeurope"}, (409, "InvalidResourceLocation")),
        ("other", {"kind": "BlobStorage"}, BAD_VALUE),
        ("other", {"sku": {"name": "Cheap"}}, BAD_VALUE),
        ("other", {"location": None}, (400, "LocationRequired")),
        ("other", {"properties": {"supportsHttpsTrafficOnly": "no"}}, BAD_VALUE),
    ],
)
def test_what_no_account_can_be_is_refused(
    direct: Direct, name: str, change: dict[str, Any], refusal: tuple[int, str]
) -> None:
    direct.made("PUT", account(direct), ACCOUNT)
    assert direct.refused("PUT", account(direct, name), {**ACCOUNT, **change}) == refusal


# ---- Features, providers, groups, and lists of everything


def test_a_feature_is_registered_a_little_after_it_was_asked_for(direct: Direct) -> None:
    def state(method: str = "GET", below: str = "") -> str:
        return str(direct.made(method, f"{FEATURE}{below}")["properties"]["state"])

    assert state() == "NotRegistered"
    assert state("POST", "/register") == state() == "Registering"
    direct.clock.now += 0.2
    assert state() == state("POST", "/register") == "Registered"


@pytest.mark.parametrize(
    ("method", "where", "refusal"),
    [
        ("GET", "providers/Contoso.Tea", (404, "InvalidResourceNamespace")),
        (
            "GET",
            "resources?api-version=2021-04-01&$filter=substringof('a', name)",
            (400, "InvalidFilterInQueryString"),
        ),
    ],
)
def test_what_is_not_there_or_not_understood_is_refused(
    direct: Direct, method: str, where: str, refusal: tuple[int, str]
) -> None:
    assert direct.refused(method, where) == refusal


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("", ["mine", "my-kv"]),
        ("resourceType eq 'Microsoft.KeyVault/vaults' and name eq 'MY-kv'", ["my-kv"]),
        ("resourceType eq 'Microsoft.KeyVault/vaults' and name eq 'other'", []),
        ("location eq 'westeurope' and name eq 'mine'", ["mine"]),
    ],
)
def test_resources_are_listed_by_type_and_name(
    direct: Direct, asked: str, names: list[str]
) -> None:
    direct.made("PUT", "resourceGroups/mine", {"location": "westeurope"})
    direct.identity("mine", "mine")
    direct.made("PUT", path(direct, group="mine"), vault(direct))
    query = f"?api-version=2021-04-01&$filter={asked}" if asked else ""
    found = direct.made("GET", f"resourceGroups/mine/resources{query}")["value"]
    assert [one["name"] for one in found] == names
    everywhere = direct.made("GET", f"resources{query}")["value"]
    assert {one["id"] for one in found} <= {one["id"] for one in everywhere}


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

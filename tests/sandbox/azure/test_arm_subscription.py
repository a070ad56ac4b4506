"""What a subscription holds besides single resources: features, lists, groups, deleted vaults."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.azure.direct import Direct

FEATURES = "providers/Microsoft.Features/providers/Microsoft.ContainerService/features"
FEATURE = f"{FEATURES}/EnablePodIdentityPreview"
KEYVAULT = "providers/Microsoft.KeyVault"


def vault_body(direct: Direct) -> dict[str, Any]:
    properties = {
        "tenantId": direct.plan.tenant_id,
        "sku": {"family": "A", "name": "standard"},
        "accessPolicies": [],
    }
    return {"location": "westeurope", "properties": properties}


def vault_path(group: str, name: str = "my-kv") -> str:
    return f"resourceGroups/{group}/{KEYVAULT}/vaults/{name}"


def test_a_feature_is_registered_a_little_after_it_was_asked_for(direct: Direct) -> None:
    def state() -> str:
        return str(direct.made("GET", FEATURE)["properties"]["state"])

    assert state() == "NotRegistered"
    assert direct.made("POST", f"{FEATURE}/register")["properties"]["state"] == "Registering"
    assert state() == "Registering"
    direct.clock.now += 0.2
    assert state() == "Registered"
    assert direct.made("POST", f"{FEATURE}/register")["properties"]["state"] == "Registered"
    name = direct.made("GET", FEATURE)["name"]
    assert name == "Microsoft.ContainerService/EnablePodIdentityPreview"


def test_a_feature_that_does_not_exist_is_not_found(direct: Direct) -> None:
    status, answer, _ = direct.arm("POST", f"{FEATURES}/Nonsense/register")
    assert (status, answer["error"]["code"]) == (404, "FeatureNotFound")


def test_providers_are_registered_from_the_start(direct: Direct) -> None:
    made = direct.made("POST", "providers/microsoft.containerservice/register")
    assert made == direct.made("GET", "providers/Microsoft.ContainerService")
    assert made["registrationState"] == "Registered"
    status, answer, _ = direct.arm("GET", "providers/Contoso.Tea")
    assert (status, answer["error"]["code"]) == (404, "InvalidResourceNamespace")


def test_a_group_exists_or_not(direct: Direct) -> None:
    group = direct.plan.cluster_group
    asked = [direct.arm("HEAD", f"resourcegroups/{name}")[0] for name in (group, "nope")]
    assert asked == [204, 404]


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
    kind = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
    direct.made("PUT", f"resourceGroups/mine/{kind}/mine", {"location": "westeurope"})
    direct.made("PUT", vault_path("mine"), vault_body(direct))
    query = f"?api-version=2021-04-01&$filter={asked}" if asked else ""
    found = direct.made("GET", f"resourceGroups/mine/resources{query}")["value"]
    assert [one["name"] for one in found] == names
    everywhere = direct.made("GET", f"resources{query}")["value"]
    assert {one["id"] for one in found} <= {one["id"] for one in everywhere}


def test_a_filter_that_is_not_known_is_refused(direct: Direct) -> None:
    query = "?api-version=2021-04-01&$filter=substringof('a', name)"
    status, answer, _ = direct.arm("GET", f"resources{query}")
    assert (status, answer["error"]["code"]) == (400, "InvalidFilterInQueryString")


def test_lists_show_what_the_caller_may_read_and_nothing_to_strangers(direct: Direct) -> None:
    """A Contributor of one vault finds it by name."""
    direct.made("PUT", vault_path(direct.plan.cluster_group, "one-kv"), vault_body(direct))
    two = direct.made("PUT", vault_path(direct.plan.node_group, "two-kv"), vault_body(direct))
    mine = direct.identity("mine")
    who = direct.world.principals[mine.principal_id]
    status, answer, _ = direct.arm("GET", f"{KEYVAULT}/vaults", principal=who)
    assert (status, answer["error"]["code"]) == (403, "AuthorizationFailed")
    direct.grant("Reader", mine.principal_id, two["id"])
    for where in (f"{KEYVAULT}/vaults", "resources"):
        listed = direct.arm("GET", where, principal=who)[1]["value"]
        assert [one["name"] for one in listed] == ["two-kv"]
    group = f"resourceGroups/{direct.plan.cluster_group}/{KEYVAULT}/vaults"
    assert direct.arm("GET", group, principal=who)[0] == 403


@pytest.mark.parametrize("with_its_group", [False, True])
def test_a_deleted_vault_keeps_its_name(direct: Direct, with_its_group: bool) -> None:
    direct.made("PUT", "resourceGroups/mine", {"location": "westeurope"})
    direct.made("PUT", vault_path("mine"), vault_body(direct))
    direct.made("DELETE", "resourceGroups/mine" if with_its_group else vault_path("mine"))
    other = vault_path(direct.plan.cluster_group)
    status, answer, _ = direct.arm("PUT", other, vault_body(direct))
    assert (status, answer["error"]["code"]) == (409, "VaultAlreadyExists")

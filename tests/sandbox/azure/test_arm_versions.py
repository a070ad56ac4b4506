"""ARM knows the api-versions of each resource type, and refuses any other in its own words."""

from __future__ import annotations

import pytest

from podidentity.wire.arm import COMPUTE_API, IDENTITY_API
from podidentity_sandbox.azure.arm.versions import OWN, TYPES
from tests.sandbox.azure.direct import Direct

IDENTITIES = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
SCALE_SETS = "providers/Microsoft.Compute/virtualMachineScaleSets"


def test_the_products_own_versions_are_azures() -> None:
    identity = TYPES["microsoft.managedidentity/userassignedidentities"]
    assert IDENTITY_API in identity.versions
    for kind in ("virtualmachines", "virtualmachinescalesets"):
        assert COMPUTE_API in TYPES[f"microsoft.compute/{kind}"].versions


@pytest.mark.parametrize("name", list(TYPES))
def test_the_versions_of_a_type_are_in_order_and_each_is_there_once(name: str) -> None:
    versions = [
        # A preview comes before the version that it previews.
        version.removesuffix("-preview") + (" " if version.endswith("-preview") else "z")
        for version in TYPES[name].versions
    ]
    assert versions == sorted(set(versions))


def test_a_date_that_the_type_of_a_resource_does_not_have_is_refused_with_those_that_it_has(
    direct: Direct,
) -> None:
    where = f"{direct.plan.scale_set_id}?api-version=1999-12-01"
    status, answer, _ = direct.arm("GET", where)
    assert (status, answer["error"]["code"]) == (400, "NoRegisteredProviderFound")
    assert answer["error"]["message"].startswith(
        "No registered resource provider found for location 'westeurope' and API version"
        " '1999-12-01' for type 'virtualMachineScaleSets'. The supported api-versions are"
        " '2015-05-01-preview, 2015-06-15, "
    )
    assert ", 2024-07-01, " in answer["error"]["message"]


def test_the_location_of_a_resource_that_is_to_be_made_is_the_requests(direct: Direct) -> None:
    where = f"resourceGroups/{direct.plan.node_group}/{IDENTITIES}/new?api-version=2024-07-01"
    status, answer, _ = direct.arm("PUT", where, {"location": "northeurope"})
    assert (status, answer["error"]["code"]) == (400, "NoRegisteredProviderFound")
    assert "for location 'northeurope'" in answer["error"]["message"]


@pytest.mark.parametrize("below", ["", "/nothing"])
def test_where_no_location_is_known_the_type_itself_is_missed(direct: Direct, below: str) -> None:
    group = f"resourceGroups/{direct.plan.node_group}"
    where = f"{group}/{SCALE_SETS}{below}?api-version=2024-11-30"
    status, answer, _ = direct.arm("GET", where)
    assert (status, answer["error"]["code"]) == (404, "InvalidResourceType")
    assert answer["error"]["message"].startswith(
        "The resource type 'virtualMachineScaleSets' could not be found in the namespace"
        " 'Microsoft.Compute' for api version '2024-11-30'. The supported api-versions are '2015"
    )


def test_what_arm_serves_itself_has_versions_of_its_own(direct: Direct) -> None:
    status, answer, _ = direct.arm("GET", "resourceGroups?api-version=2024-11-30")
    assert (status, answer["error"]["code"]) == (400, "InvalidApiVersionParameter")
    assert answer["error"]["message"].endswith(f"The supported versions are '{','.join(OWN)}'.")


def test_a_part_and_an_action_have_the_versions_of_what_they_belong_to(direct: Direct) -> None:
    mine = direct.identity("mine")
    credentials = f"{mine.id}/federatedIdentityCredentials"
    assert direct.arm("GET", f"{credentials}?api-version=2018-11-30")[0] == 400
    assert direct.arm("GET", f"{mine.id}?api-version=2018-11-30")[0] == 200
    assert direct.arm("GET", f"{credentials}?api-version=2023-01-31")[0] == 200


def test_a_version_is_looked_at_before_a_permission(direct: Direct) -> None:
    mine = direct.identity("mine")
    stranger = direct.principal_of(mine)
    where = f"{mine.id}?api-version=1999-12-01"
    assert direct.arm("GET", where, principal=stranger)[0] == 400

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


UNREGISTERED = (400, "NoRegisteredProviderFound")
MISSED = (
    "The resource type 'virtualMachineScaleSets' could not be found in the namespace"
    " 'Microsoft.Compute' for api version '1999-12-01'. The supported api-versions are '2015"
)


@pytest.mark.parametrize(
    ("method", "where", "refusal", "words"),
    [
        (
            *("GET", f"{SCALE_SETS}/aks-nodepool1-12345678-vmss", UNREGISTERED),
            "No registered resource provider found for location 'westeurope' and API version"
            " '1999-12-01' for type 'virtualMachineScaleSets'. The supported api-versions are"
            " '2015-05-01-preview, 2015-06-15, ",
        ),
        (
            *("PUT", f"{IDENTITIES}/new", UNREGISTERED),
            "No registered resource provider found for location 'northeurope'",
        ),
        ("GET", SCALE_SETS, (404, "InvalidResourceType"), MISSED),
        ("GET", f"{SCALE_SETS}/nothing", (404, "InvalidResourceType"), MISSED),
    ],
)
def test_a_date_that_a_type_does_not_have_is_refused_by_the_location_as_far_as_it_is_known(
    direct: Direct, method: str, where: str, refusal: tuple[int, str], words: str
) -> None:
    path = f"resourceGroups/{direct.plan.node_group}/{where}?api-version=1999-12-01"
    found, answer, _ = direct.arm(method, path, {"location": "northeurope"})
    assert (found, answer["error"]["code"]) == refusal
    assert answer["error"]["message"].startswith(words)


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

"""The api-versions of each resource type, and the refusal of any other.

A client that asks with a date that Azure does not have must fail here as it fails there. So each
row is from a public source, and none is here because a client of ours sends it:

- compute: what ARM itself listed for virtual machines in
  https://github.com/MicrosoftDocs/azure-docs/pull/62621 (2020) and for scale sets in
  https://github.com/Azure/azure-sdk-for-python/issues/32029 (2023); later ones are the folders of
  https://github.com/Azure/azure-rest-api-specs/tree/main/specification/compute/resource-manager/Microsoft.Compute/Compute/stable
- identities, vaults, storage, authorization: the folders of
  https://github.com/Azure/bicep-types-az/tree/main/generated
- clusters: the tags of aks/readme.md of azure-rest-api-specs up to 2024-01-01, then folders beside
  it that were looked at one by one: of the ones between some may be missing
- what ARM serves itself: https://github.com/crossplane-contrib/provider-upjet-azure/issues/630
  (2023), later ones from Microsoft.Resources/resources/readme.md of azure-rest-api-specs

That operations and their results have the versions of their provider's main type is from memory.
Words of the refusals: the same issues, and https://github.com/Azure/azure-sdk-for-js/issues/15460.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from podidentity_sandbox.azure.arm.call import ArmError

_COMPUTE = (
    "2015-05-01-preview 2015-06-15 2016-03-30 2016-04-30-preview 2016-08-30 2017-03-30 2017-12-01"
    " 2018-04-01 2018-06-01 2018-10-01 2019-03-01 2019-07-01 2019-12-01 2020-06-01 2020-12-01"
    " 2021-03-01 2021-04-01 2021-07-01 2021-11-01 2022-03-01 2022-08-01 2022-11-01 2023-03-01"
    " 2023-07-01 2023-09-01 2024-03-01 2024-07-01 2024-11-01 2025-04-01 2025-11-01 2026-03-01"
    " 2026-04-01"
)
_CREDENTIALS = (
    "2022-01-31-preview 2023-01-31 2023-07-31-preview 2024-11-30 2025-01-31-preview"
    " 2025-05-31-preview"
)
_VAULTS = (
    "2015-06-01 2016-10-01 2018-02-14-preview 2018-02-14 2019-09-01 2020-04-01-preview"
    " 2021-04-01-preview 2021-06-01-preview 2021-10-01 2021-11-01-preview 2022-02-01-preview"
    " 2022-07-01 2022-11-01"
    " 2023-02-01 2023-07-01 2024-04-01-preview 2024-11-01 2024-12-01-preview 2025-05-01 2026-02-01"
    " 2026-03-01-preview 2026-05-15 2026-06-01-preview"
)
_STORAGE = (
    "2015-05-01-preview 2015-06-15 2016-01-01 2016-05-01 2016-12-01 2017-06-01 2017-10-01"
    " 2018-02-01 2018-03-01-preview 2018-07-01 2018-11-01 2019-04-01 2019-06-01 2020-08-01-preview"
    " 2021-01-01 2021-02-01 2021-04-01 2021-06-01 2021-08-01 2021-09-01 2022-05-01 2022-09-01"
    " 2023-01-01 2023-04-01 2023-05-01 2024-01-01 2025-01-01 2025-06-01 2025-08-01 2026-04-01"
)
_CLUSTERS = (
    "2017-08-31 2018-03-31 2018-08-01-preview 2019-02-01 2019-04-01 2019-06-01 2019-08-01"
    " 2019-10-01 2019-11-01 2020-01-01 2020-02-01 2020-03-01 2020-04-01 2020-06-01 2020-07-01"
    " 2020-09-01 2020-11-01 2020-12-01 2021-02-01 2021-03-01 2021-05-01 2021-07-01 2021-08-01"
    " 2021-09-01 2021-10-01 2021-11-01-preview 2022-01-01 2022-01-02-preview 2022-02-01"
    " 2022-02-02-preview 2022-03-01 2022-03-02-preview 2022-04-01 2022-04-02-preview"
    " 2022-05-02-preview 2022-06-01 2022-06-02-preview 2022-07-01 2022-07-02-preview"
    " 2022-08-02-preview 2022-08-03-preview 2022-09-01 2022-09-02-preview 2022-10-02-preview"
    " 2022-11-01 2022-11-02-preview 2023-01-01 2023-01-02-preview 2023-02-01 2023-02-02-preview"
    " 2023-03-01 2023-03-02-preview 2023-04-01 2023-04-02-preview 2023-05-01 2023-05-02-preview"
    " 2023-06-01 2023-06-02-preview 2023-07-01 2023-07-02-preview 2023-08-01 2023-08-02-preview"
    " 2023-09-01 2023-09-02-preview 2023-10-01 2023-10-02-preview 2023-11-01 2023-11-02-preview"
    " 2024-01-01 2024-09-01 2025-05-01 2025-10-01 2026-06-01"
)
_TYPES = {
    "Microsoft.Compute/virtualMachines": _COMPUTE,
    "Microsoft.Compute/virtualMachineScaleSets": _COMPUTE,
    "Microsoft.Compute/virtualMachineScaleSets/virtualMachines": _COMPUTE,
    "Microsoft.Compute/locations/operations": _COMPUTE,
    "Microsoft.ManagedIdentity/userAssignedIdentities": (
        f"2015-08-31-preview 2018-11-30 2021-09-30-preview {_CREDENTIALS}"
    ),
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": _CREDENTIALS,
    "Microsoft.KeyVault/vaults": _VAULTS,
    "Microsoft.Storage/storageAccounts": _STORAGE,
    "Microsoft.Storage/checkNameAvailability": _STORAGE,
    "Microsoft.ContainerService/managedClusters": _CLUSTERS,
    "Microsoft.ContainerService/locations/operations": _CLUSTERS,
    "Microsoft.Authorization/roleAssignments": (
        "2015-07-01 2017-10-01-preview 2018-01-01-preview 2018-09-01-preview 2020-03-01-preview"
        " 2020-04-01-preview 2020-08-01-preview 2020-10-01-preview 2022-04-01"
    ),
    "Microsoft.Authorization/roleDefinitions": (
        "2015-07-01 2018-01-01-preview 2022-04-01 2022-05-01-preview"
    ),
    "Microsoft.Features/features": "2015-12-01 2021-07-01 2025-03-01",
}
_OWN = (
    "2025-04-01 2025-03-01 2024-11-01 2024-07-01 2024-03-01 2023-07-01 2023-07-01-preview"
    " 2023-03-01-preview 2022-12-01 2022-11-01-preview 2022-09-01 2022-06-01 2022-05-01"
    " 2022-03-01-preview 2022-01-01 2021-04-01 2021-01-01 2020-10-01 2020-09-01 2020-08-01"
    " 2020-07-01 2020-06-01 2020-05-01 2020-01-01 2019-11-01 2019-10-01 2019-09-01 2019-08-01"
    " 2019-07-01 2019-06-01 2019-05-10 2019-05-01 2019-03-01 2018-11-01 2018-09-01 2018-08-01"
    " 2018-07-01 2018-06-01 2018-05-01 2018-02-01 2018-01-01 2017-12-01 2017-08-01 2017-06-01"
    " 2017-05-10 2017-05-01 2017-03-01 2016-09-01 2016-07-01 2016-06-01 2016-02-01 2015-11-01"
    " 2015-01-01 2014-04-01-preview 2014-04-01 2014-01-01 2013-03-01 2014-02-26 2014-04"
)
OWN = tuple(_OWN.split())
"""Of what ARM serves itself: subscriptions, resource groups, providers, lists of all resources."""
LOCATIONS = (
    "eastus, eastus2, westus, centralus, northcentralus, southcentralus, northeurope, westeurope,"
    " eastasia, southeastasia, japaneast, japanwest, australiaeast, australiasoutheast,"
    " brazilsouth, southindia, centralindia, westindia, canadacentral, canadaeast, westus2,"
    " westcentralus, uksouth, ukwest, koreacentral, koreasouth, francecentral"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceType:
    """A type of a resource provider, with the api-versions that it has."""

    namespace: str
    name: str
    versions: tuple[str, ...]


TYPES: Mapping[str, ResourceType] = {
    name.lower(): ResourceType(
        namespace=name.partition("/")[0],
        name=name.partition("/")[2],
        versions=tuple(versions.split()),
    )
    for name, versions in _TYPES.items()
}
"""By their names in lower case."""


def type_of(path: str) -> ResourceType | None:
    """Return the type that the path addresses; None where ARM serves it itself; raise ArmError.

    An action or a part that is no type of its own has the versions of what it belongs to.
    """
    _, marked, below = path.lower().rpartition("/providers/")
    if "/providers/microsoft.features/" in path.lower():
        return TYPES["microsoft.features/features"]
    namespace, *steps = below.split("/") if marked else [""]
    if not steps or steps == ["register"]:
        return None
    kinds = steps[0::2]
    for length in range(len(kinds), 0, -1):
        found = TYPES.get("/".join((namespace, *kinds[:length])))
        if found is not None:
            return found
    message = f"The sandbox has no resource type at '{path}'."
    raise ArmError(404, "InvalidResourceType", message)


def newest(kind: ResourceType | None) -> str:
    """Return the newest api-version that is no preview."""
    versions = OWN if kind is None else tuple(reversed(kind.versions))
    return next(version for version in versions if not version.endswith("-preview"))


def check(kind: ResourceType | None, version: str, location: str) -> None:
    """Raise ArmError unless the type has the api-version.

    `location` is that of the resource; "" where none is known, as in a list: ARM then misses the
    type itself.
    """
    if kind is None:
        if version not in OWN:
            message = f"The api-version '{version}' is invalid. The supported versions are"
            raise ArmError(400, "InvalidApiVersionParameter", f"{message} '{','.join(OWN)}'.")
        return
    if version in kind.versions:
        return
    supported = f"The supported api-versions are '{', '.join(kind.versions)}'."
    if location:
        raise ArmError(
            400,
            "NoRegisteredProviderFound",
            f"No registered resource provider found for location '{location}' and API version"
            f" '{version}' for type '{kind.name}'. {supported} The supported locations are"
            f" '{LOCATIONS}'.",
        )
    raise ArmError(
        404,
        "InvalidResourceType",
        f"The resource type '{kind.name}' could not be found in the namespace '{kind.namespace}'"
        f" for api version '{version}'. {supported}",
    )

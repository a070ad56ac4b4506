"""All resources in one list, by which `az` finds the group of a name.

https://learn.microsoft.com/rest/api/resources/resources/list
"""

from __future__ import annotations

import re
from typing import Any

from podidentity_sandbox.azure.aks.model import KIND as CLUSTERS
from podidentity_sandbox.azure.aks.model import ManagedCluster
from podidentity_sandbox.azure.arm import identities, scalesets, storage, vaults
from podidentity_sandbox.azure.arm.call import ArmError, Call
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import ScaleSet, StorageAccount, UserAssignedIdentity, Vault

_CLAUSE = re.compile(
    r"(?P<field>resourceType|name|resourceGroup|location) eq '(?P<value>[^']*)'", re.IGNORECASE
)


def list_resources(call: Call) -> Reply:
    """List the resources that `$filter` admits."""
    wanted = _filter(call.request.parameter("$filter"))
    found = [
        *_of(call, UserAssignedIdentity, identities.KIND),
        *_of(call, ScaleSet, scalesets.KIND),
        *_of(call, Vault, vaults.KIND),
        *_of(call, StorageAccount, storage.KIND),
        *_of(call, ManagedCluster, CLUSTERS),
    ]
    return Reply.json({"value": [one for one in found if _admits(wanted, one)]})


def _of(
    call: Call,
    resource: type[UserAssignedIdentity | ScaleSet | Vault | StorageAccount | ManagedCluster],
    kind: str,
) -> list[dict[str, Any]]:
    return [
        {"id": one.id, "name": one.name, "type": kind, "location": one.location}
        for one in call.listed(resource, kind)
    ]


def _filter(asked: str) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for clause in re.split(r"\s+and\s+", asked.strip(), flags=re.IGNORECASE) if asked else ():
        match = _CLAUSE.fullmatch(clause.strip())
        if match is None:
            message = f"Invalid $filter '{asked}' specified in the query string."
            raise ArmError(400, "InvalidFilterInQueryString", message)
        wanted[match["field"].lower()] = match["value"].lower()
    return wanted


def _admits(wanted: dict[str, str], one: dict[str, Any]) -> bool:
    facts = {
        "resourcetype": one["type"],
        "name": one["name"],
        "resourcegroup": one["id"].split("/")[4],
        "location": one["location"],
    }
    return all(facts[field].lower() == value for field, value in wanted.items())

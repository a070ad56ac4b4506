"""A subscription: resource groups, a preview feature, providers, and the list of all resources."""

from __future__ import annotations

import re
from typing import Any

from podidentity_sandbox.azure.aks.profile import ManagedCluster
from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, location_of, tags_of
from podidentity_sandbox.azure.arm.versions import TYPES
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import (
    Group,
    Located,
    RoleAssignment,
    ScaleSet,
    StorageAccount,
    UserAssignedIdentity,
    Vault,
    VirtualMachine,
)

# ---- Subscriptions and resource groups


def list_subscriptions(call: ArmCall) -> Reply:
    """List the subscriptions in which the caller has any role, or below which."""
    mine = {
        assignment.scope.lower().split("/")[2]
        for assignment in call.world.all(RoleAssignment)
        if assignment.principal_id == call.caller.object_id
    }
    value = [_subscription(call, one) for one in call.world.plan.subscriptions if one in mine]
    count = {"type": "Total", "value": len(value)}
    return Reply.json({"value": value, "count": count})


def get_subscription(call: ArmCall) -> Reply:
    return Reply.json(_subscription(call, call.params["subscription"].lower()))


def list_groups(call: ArmCall) -> Reply:
    return Reply.json({"value": [_group(group) for group in call.listed(Group)]})


def get_group(call: ArmCall) -> Reply:
    return Reply.json(_group(call.group()))


def head_group(call: ArmCall) -> Reply:
    """Say by the status whether a resource group exists."""
    try:
        call.group()
    except ArmError as error:
        return Reply(status=error.status)
    return Reply(status=204)


def put_group(call: ArmCall) -> Reply:
    """Make a resource group, or change its tags; its location stays."""
    body = call.body()
    name, location = call.params["group"], location_of(body)
    where = f"{call.subscription}/resourceGroups/{name}"
    old = call.world.find(Group, where)
    if old and old.location != location:
        raise ArmError(
            409,
            "InvalidResourceGroupLocation",
            f"Invalid resource group location '{location}'. The Resource group already exists in"
            f" location '{old.location}'.",
        )
    new = Group(
        id=old.id if old else where,
        name=old.name if old else name,
        location=location,
        tags=tags_of(body),
    )
    call.world.put(new)
    return Reply.json(_group(new), status=200 if old else 201)


def delete_group(call: ArmCall) -> Reply:
    """Delete a resource group with all that is in it; the names of its vaults stay taken."""
    call.world.remove(call.group().id)
    return Reply(status=200)


def _subscription(call: ArmCall, name: str) -> dict[str, Any]:
    plan = call.world.plan
    home = name == plan.subscription_id
    return {
        "id": f"/subscriptions/{name}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": name,
        "tenantId": plan.tenant_id,
        "displayName": plan.subscription_name if home else f"Subscription {name[:8]}",
        "state": "Enabled",
    }


def _group(group: Group) -> dict[str, Any]:
    # Its type in the document is another than in actions.
    state = {"provisioningState": "Succeeded"}
    return group.shown(type="Microsoft.Resources/resourceGroups", properties=state)


# ---- Preview features, which a subscription registers for, and resource providers.
#
# https://learn.microsoft.com/rest/api/resources/features

POD_IDENTITY = "Microsoft.ContainerService/EnablePodIdentityPreview"
_PROVIDERS = sorted({kind.namespace for kind in TYPES.values()} | {"Microsoft.Resources"})


def register(call: ArmCall) -> Reply:
    """Ask for a feature; it is there a little later."""
    _check_known(call)
    there = call.now + call.world.weather.seconds("operations")
    call.world.features.setdefault(POD_IDENTITY.lower(), there)
    return get_feature(call)


def get_feature(call: ArmCall) -> Reply:
    _check_known(call)
    since = call.world.features.get(POD_IDENTITY.lower())
    state = "Registering" if since is not None and since > call.now else "Registered"
    namespace, _, name = POD_IDENTITY.partition("/")
    base = f"{call.subscription}/providers/Microsoft.Features/providers/{namespace}"
    document = {
        "id": f"{base}/features/{name}",
        "name": POD_IDENTITY,
        "type": "Microsoft.Features/providers/features",
        "properties": {"state": "NotRegistered" if since is None else state},
    }
    return Reply.json(document)


def get_provider(call: ArmCall) -> Reply:
    """Return a resource provider: all that the sandbox has are registered from the start."""
    asked = call.params["namespace"]
    for name in _PROVIDERS:
        if name.lower() == asked.lower():
            document = {
                "id": f"{call.subscription}/providers/{name}",
                "namespace": name,
                "registrationState": "Registered",
                "registrationPolicy": "RegistrationRequired",
                "resourceTypes": [],
            }
            return Reply.json(document)
    message = f"The resource namespace '{asked}' is invalid."
    raise ArmError(404, "InvalidResourceNamespace", message)


def _check_known(call: ArmCall) -> None:
    if f"{call.params['namespace']}/{call.params['name']}".lower() != POD_IDENTITY.lower():
        message = f"The feature '{call.params['name']}' could not be found."
        raise ArmError(404, "FeatureNotFound", message)


# ---- All resources in one list, by which `az` finds the group of a name.
#
# https://learn.microsoft.com/rest/api/resources/resources/list

_RECORDS: tuple[type[Located], ...] = (
    UserAssignedIdentity,
    ScaleSet,
    VirtualMachine,
    Vault,
    StorageAccount,
    ManagedCluster,
)
_CLAUSE = re.compile(
    r"(?P<field>resourceType|name|resourceGroup|location) eq '(?P<value>[^']*)'", re.IGNORECASE
)


def list_resources(call: ArmCall) -> Reply:
    wanted = _filter(call.request.parameter("$filter"))
    found = [one.shown() for record in _RECORDS for one in call.listed(record)]
    return Reply.json({"value": [one for one in found if _admits(wanted, one)]})


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

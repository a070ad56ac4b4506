"""Subscriptions and resource groups."""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.azure.arm.call import ArmError, Call, location_of, tags_of
from podidentity_sandbox.azure.arm.deleted_vaults import soft_delete
from podidentity_sandbox.azure.arm.operations import accepted_at, start
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import Group, RoleAssignment, Vault

KIND = "Microsoft.Resources/subscriptions/resourceGroups"


def list_subscriptions(call: Call) -> Reply:
    """List the subscription to whom has any role in it or below, and nothing to others."""
    mine = any(
        assignment.principal_id == call.caller.object_id
        for assignment in call.world.all(RoleAssignment)
    )
    value = [_subscription(call)] if mine else []
    count = {"type": "Total", "value": len(value)}
    return Reply.json({"value": value, "count": count})


def get_subscription(call: Call) -> Reply:
    """Return the subscription."""
    return Reply.json(_subscription(call))


def list_groups(call: Call) -> Reply:
    """List the resource groups."""
    return Reply.json({"value": [_group(group) for group in call.listed(Group, KIND)]})


def get_group(call: Call) -> Reply:
    """Return a resource group."""
    return Reply.json(_group(call.group()))


def head_group(call: Call) -> Reply:
    """Say by the status whether a resource group exists."""
    try:
        call.group()
    except ArmError as error:
        return Reply(status=error.status)
    return Reply(status=204)


def put_group(call: Call) -> Reply:
    """Make a resource group, or change its tags; its location stays."""
    body = call.body()
    name, location = call.params["group"], location_of(body)
    where = f"{call.world.subscription}/resourceGroups/{name}"
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


def delete_group(call: Call) -> Reply:
    """Delete a resource group with all that is in it; vaults can be brought back."""
    group = call.group()
    for vault in call.world.all(Vault, group.id):
        soft_delete(call, vault)
    call.world.remove(group.id)
    where = f"{call.world.subscription}/operationresults"
    return accepted_at(call, start(call, delay=0), where)


def _subscription(call: Call) -> dict[str, Any]:
    plan = call.world.plan
    return {
        "id": call.world.subscription,
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": plan.subscription_id,
        "tenantId": plan.tenant_id,
        "displayName": plan.subscription_name,
        "state": "Enabled",
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "tags": dict(group.tags),
        "properties": {"provisioningState": "Succeeded"},
    }

"""Subscriptions, resource groups, and the answers to long-running operations."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmError, Call, location_of, tags_of
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import Group, Operation, RoleAssignment

ARM = "https://management.azure.com"


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
    return Reply.json({"value": [_group(group) for group in call.world.all(Group)]})


def get_group(call: Call) -> Reply:
    """Return a resource group."""
    return Reply.json(_group(call.group()))


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
    """Delete a resource group with all that is in it."""
    call.world.remove(call.group().id)
    operation = start_operation(call, delay=0)
    where = f"{ARM}{call.world.subscription}/operationresults/{operation.id}{_version(call)}"
    return Reply.json(None, status=202, headers={"Location": where, "Retry-After": "1"})


def start_operation(call: Call, *, delay: float) -> Operation:
    """Begin a long-running operation that succeeds `delay` seconds from now."""
    operation = Operation(id=str(uuid.uuid4()), started_at=call.now, due_at=call.now + delay)
    call.world.operations[operation.id] = operation
    return operation


def accepted(call: Call, body: object, *, location: str, delay: float) -> Reply:
    """Return the 202 of compute: where to ask, and in how many seconds."""
    operation = start_operation(call, delay=delay)
    where = (
        f"{ARM}{call.world.subscription}/providers/Microsoft.Compute/locations/{location}"
        f"/operations/{operation.id}{_version(call)}"
    )
    after = str(max(1, math.ceil(delay)))
    headers = {"Azure-AsyncOperation": where, "Retry-After": after}
    return Reply.json(body, status=202, headers=headers)


def get_operation(call: Call) -> Reply:
    """Say how an operation stands."""
    operation = _operation(call)
    answer: dict[str, Any] = {"startTime": _iso(operation.started_at), "name": operation.id}
    if call.now < operation.due_at:
        return Reply.json({**answer, "status": "InProgress"}, headers={"Retry-After": "1"})
    return Reply.json({**answer, "endTime": _iso(operation.due_at), "status": "Succeeded"})


def get_operation_result(call: Call) -> Reply:
    """Say by the status whether an operation is done."""
    _operation(call)
    return Reply.json(None)


def _operation(call: Call) -> Operation:
    operation = call.world.operations.get(call.params["name"].lower())
    if operation is None:
        message = f"The operation '{call.params['name']}' could not be found."
        raise ArmError(404, "NotFound", message)
    return operation


def _version(call: Call) -> str:
    return f"?api-version={call.request.parameter('api-version')}"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


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

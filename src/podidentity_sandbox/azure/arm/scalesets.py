"""Virtual machine scale sets: reading them, and changing their identities.

https://learn.microsoft.com/rest/api/compute/virtual-machine-scale-sets
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmError, Call, allows
from podidentity_sandbox.azure.arm.identity_block import added, patched, rendered
from podidentity_sandbox.azure.arm.operations import accepted
from podidentity_sandbox.azure.directory import Principal
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import ScaleSet, UserAssignedIdentity, World
from podidentity_sandbox.azure.verification import Caller

KIND = "Microsoft.Compute/virtualMachineScaleSets"
WRITE = f"{KIND}/write"
ASSIGN = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"


def get_scale_set(call: Call) -> Reply:
    """Return a scale set: its identities are those asked for last, in force or not yet."""
    return Reply.json(_json(call, _existing(call)))


def list_scale_sets(call: Call) -> Reply:
    """List the scale sets of a resource group, or of the subscription."""
    return Reply.json({"value": [_json(call, found) for found in call.listed(ScaleSet, KIND)]})


def patch_scale_set(call: Call) -> Reply:
    """Change the identities; the machines have them when the operation is done."""
    scale_set, body = _existing(call), call.body()
    if set(body) - {"identity"}:
        message = "The sandbox changes nothing of a scale set but its identity."
        raise ArmError(400, "InvalidParameter", message)
    if call.now < scale_set.settled_at:
        raise ArmError(
            409,
            "Conflict",
            "The request failed due to conflict with a concurrent request. To resolve it, please"
            " refer to https://aka.ms/activitylog to get more details on the conflicting requests.",
        )
    if "identity" not in body:
        return Reply.json(_json(call, scale_set))
    changed = with_identity(call.world, call.caller, scale_set, body["identity"])
    put(call.world, changed)
    delay = call.world.arm_delay
    if not delay:
        return Reply.json(_json(call, changed))
    return accepted(call, _json(call, changed), location=changed.location, delay=delay)


def with_identity(world: World, caller: Caller, scale_set: ScaleSet, identity: object) -> ScaleSet:
    """Return the scale set after `caller` patched its `identity`; raise ArmError."""
    _may_assign(world, caller, scale_set, added(identity))
    system = Principal(
        object_id=str(uuid.uuid4()),
        app_id=str(uuid.uuid4()),
        name=scale_set.name,
        tenant_id=world.plan.tenant_id,
    )
    block = patched(
        scale_set.identity,
        identity,
        scale_set=scale_set.id,
        find=lambda name: world.find(UserAssignedIdentity, name),
        system=system,
    )
    return replace(
        scale_set,
        identity=block,
        before=scale_set.identity,
        settled_at=world.clock() + world.arm_delay,
    )


def put(world: World, scale_set: ScaleSet) -> None:
    """Store a changed scale set; its system's identity comes and goes with it."""
    old = world.find(ScaleSet, scale_set.id)
    if old and old.identity.system:
        world.principals.pop(old.identity.system.object_id, None)
    if scale_set.identity.system:
        world.principals[scale_set.identity.system.object_id] = scale_set.identity.system
    world.put(scale_set)


def _may_assign(world: World, caller: Caller, scale_set: ScaleSet, identities: list[str]) -> None:
    closed = [name for name in identities if not allows(world, caller.object_id, ASSIGN, name)]
    if closed:
        raise ArmError(
            403,
            "LinkedAuthorizationFailed",
            f"The client '{caller.app_id}' with object id '{caller.object_id}' has permission to"
            f" perform action '{WRITE}' on scope '{scale_set.id}'; however, it does not have"
            f" permission to perform action '{ASSIGN}' on the linked scope(s)"
            f" '{','.join(closed)}' or the"
            " linked scope(s) are invalid.",
        )


def _existing(call: Call) -> ScaleSet:
    call.group()
    scale_set = call.world.find(ScaleSet, call.id)
    if scale_set is None:
        raise call.missing(KIND)
    return scale_set


def _json(call: Call, scale_set: ScaleSet) -> dict[str, Any]:
    settled = call.now >= scale_set.settled_at
    answer: dict[str, Any] = {
        "name": scale_set.name,
        "id": scale_set.id,
        "type": KIND,
        "location": scale_set.location,
        "tags": {},
        "sku": {"name": "Standard_D2s_v5", "tier": "Standard", "capacity": scale_set.capacity},
        "properties": {
            "provisioningState": "Succeeded" if settled else "Updating",
            "orchestrationMode": "Uniform",
            "overprovision": False,
            "singlePlacementGroup": False,
            "upgradePolicy": {"mode": "Manual"},
        },
    }
    identity = rendered(scale_set.identity, call.world.plan.tenant_id)
    return {**answer, "identity": identity} if identity else answer

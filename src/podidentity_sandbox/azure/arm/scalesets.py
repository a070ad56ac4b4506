"""Virtual machine scale sets: reading them, and changing their identities.

https://learn.microsoft.com/rest/api/compute/virtual-machine-scale-sets
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, allows
from podidentity_sandbox.azure.arm.operations import accepted
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import (
    IdentityBlock,
    Principal,
    ScaleSet,
    UserAssignedIdentity,
    World,
)
from podidentity_sandbox.azure.verification import Caller

# ---- The identities of a scale set after a PATCH of `identity`: a pure decision
#
# Patch semantics as the archived MIC relied on them (pkg/cloudprovider/vmss.go of
# https://github.com/Azure/aad-pod-identity): what is not named stays, null removes, the type says
# whether the system's half is kept. The words of FailedIdentityOperation are the real ones; those
# of `InvalidParameter` are ours.

_ID = re.compile(
    r"/subscriptions/[^/]+/resourcegroups/[^/]+"
    r"/providers/microsoft\.managedidentity/userassignedidentities/[^/]+",
    re.IGNORECASE,
)
_TYPES = {
    "none": (False, False),
    "systemassigned": (True, False),
    "userassigned": (False, True),
    "systemassigned,userassigned": (True, True),
}
"""Type, in lower case without spaces, to (system's half, user's half)."""

Find = Callable[[str], UserAssignedIdentity | None]


def patched(
    current: IdentityBlock, body: object, *, scale_set: str, find: Find, system: Principal
) -> IdentityBlock:
    """Return the identities after the PATCH `body`, the value of `identity`.

    `find` knows the identities that exist; `system` is the principal of the system's half where it
    is new. Raises ArmError, and then nothing changes.
    """
    kind = _type(body)
    wants_system, wants_user = _TYPES[kind]
    named = _named(body)
    if not wants_user:
        if named:
            message = f"userAssignedIdentities cannot be set with the type '{kind}'."
            raise ArmError(400, "InvalidParameter", message)
        return IdentityBlock(system=_system(current, system) if wants_system else None)
    user = {identity.id.lower(): identity for identity in current.user}
    for name, remove in named.items():
        if remove:
            user.pop(name.lower(), None)
        else:
            user[name.lower()] = _found(name, find, scale_set)
    if not user:
        message = f"The type '{kind}' needs at least one user assigned identity."
        raise ArmError(400, "InvalidParameter", message)
    return IdentityBlock(
        system=_system(current, system) if wants_system else None, user=tuple(user.values())
    )


def added(body: object) -> list[str]:
    """Return the ids that a PATCH adds or keeps by name: those that need the assign permission."""
    return [name for name, remove in _named(body).items() if not remove]


def rendered(block: IdentityBlock, tenant_id: str) -> dict[str, Any] | None:
    """Return the value of `identity` in ARM's answer; None where there is no identity at all."""
    if not block.system and not block.user:
        return None
    halves = ["SystemAssigned"] * bool(block.system) + ["UserAssigned"] * bool(block.user)
    answer: dict[str, Any] = {"type": ", ".join(halves)}
    if block.system:
        answer |= {"principalId": block.system.object_id, "tenantId": tenant_id}
    if block.user:
        # Compute writes these ids in its own case, not in that of the identity's own answer.
        answer["userAssignedIdentities"] = {
            identity.id.replace("/resourcegroups/", "/resourceGroups/"): {
                "principalId": identity.principal_id,
                "clientId": identity.client_id,
            }
            for identity in block.user
        }
    return answer


def _type(body: object) -> str:
    kind = body.get("type") if isinstance(body, dict) else None
    key = kind.replace(" ", "").lower() if isinstance(kind, str) else ""
    if key not in _TYPES:
        message = f"The value '{kind}' of parameter 'identity.type' is invalid."
        raise ArmError(400, "InvalidParameter", message)
    return key


def _named(body: object) -> dict[str, bool]:
    """Return the named ids, with whether each is to be removed."""
    named = body.get("userAssignedIdentities") if isinstance(body, dict) else None
    if named is None:
        return {}
    if not isinstance(named, dict):
        message = "The value of parameter 'identity.userAssignedIdentities' is invalid."
        raise ArmError(400, "InvalidParameter", message)
    for name, value in named.items():
        if not _ID.fullmatch(name):
            raise ArmError(
                400,
                "LinkedInvalidPropertyId",
                f"Property id '{name}' at path 'identity.userAssignedIdentities' is invalid. Expect"
                " fully qualified resource Id that start with '/subscriptions/{subscriptionId}' or"
                " '/providers/{resourceProviderNamespace}/'.",
            )
        if value is not None and not isinstance(value, dict):
            message = f"The value of '{name}' must be an object or null."
            raise ArmError(400, "InvalidParameter", message)
    return {name: value is None for name, value in named.items()}


def _system(current: IdentityBlock, new: Principal) -> Principal:
    return current.system or new


def _found(name: str, find: Find, scale_set: str) -> UserAssignedIdentity:
    identity = find(name)
    if identity is None:
        inner = (
            f'{{"error":{{"code":"BadRequest","message":"Resource \'{name}\' was not found."}}}}'
        )
        raise ArmError(
            400,
            "FailedIdentityOperation",
            f"Identity operation for resource '{scale_set}' failed with error 'Failed to perform"
            " resource identity operation. Status: 'BadRequest'. Response: "
            f"'{inner}'.'.",
        )
    return identity


# ---- The routes

KIND = "Microsoft.Compute/virtualMachineScaleSets"
WRITE = f"{KIND}/write"
ASSIGN = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"


def get_scale_set(call: ArmCall) -> Reply:
    """Return a scale set: its identities are those asked for last, in force or not yet."""
    return Reply.json(_json(call, _existing(call)))


def list_scale_sets(call: ArmCall) -> Reply:
    """List the scale sets of a resource group, or of the subscription."""
    return Reply.json({"value": [_json(call, found) for found in call.listed(ScaleSet, KIND)]})


def patch_scale_set(call: ArmCall) -> Reply:
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
    outcome = call.world.weather.outcome()
    changed = replace(
        changed, settled_at=call.now + outcome.seconds, failed=outcome.error is not None
    )
    put(call.world, changed)
    if not outcome.seconds and not outcome.error:
        return Reply.json(_json(call, changed))
    return accepted(call, _json(call, changed), location=changed.location, outcome=outcome)


def with_identity(world: World, caller: Caller, scale_set: ScaleSet, identity: object) -> ScaleSet:
    """Return the scale set after `caller` patched its `identity`; raise ArmError.

    When the machines have it is the caller's to say.
    """
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
        scale_set, identity=block, before=scale_set.in_force(world.clock()), failed=False
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


def _existing(call: ArmCall) -> ScaleSet:
    call.group()
    scale_set = call.world.find(ScaleSet, call.id)
    if scale_set is None:
        raise call.missing(KIND)
    return scale_set


def _json(call: ArmCall, scale_set: ScaleSet) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "name": scale_set.name,
        "id": scale_set.id,
        "type": KIND,
        "location": scale_set.location,
        "tags": {},
        "sku": {"name": "Standard_D2s_v5", "tier": "Standard", "capacity": scale_set.capacity},
        "properties": {
            "provisioningState": _state(scale_set, call.now),
            "orchestrationMode": "Uniform",
            "overprovision": False,
            "singlePlacementGroup": False,
            "upgradePolicy": {"mode": "Manual"},
        },
    }
    identity = rendered(scale_set.identity, call.world.plan.tenant_id)
    return {**answer, "identity": identity} if identity else answer


def _state(scale_set: ScaleSet, now: float) -> str:
    if now < scale_set.settled_at:
        return "Updating"
    return "Failed" if scale_set.failed else "Succeeded"

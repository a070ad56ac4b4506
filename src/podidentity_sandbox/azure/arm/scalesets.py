"""Scale sets and virtual machines: reading them, changing their identities, and their end.

The identities of a Uniform scale set are those of all its instances. A Flexible one makes virtual
machines, and each has its own: a change of the set reaches none that is there.
https://learn.microsoft.com/rest/api/compute/virtual-machine-scale-sets,
https://learn.microsoft.com/rest/api/compute/virtual-machines
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, allows
from podidentity_sandbox.azure.arm.operations import accepted
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import (
    IdentityBlock,
    Machines,
    Principal,
    ScaleSet,
    UserAssignedIdentity,
    VirtualMachine,
    World,
)
from podidentity_sandbox.azure.verification import Caller
from podidentity_sandbox.plan import stable_guid
from podidentity_sandbox.weather import Outcome

M = TypeVar("M", bound=Machines)

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
    named, kept = _named(body), (current.system or system) if wants_system else None
    if not wants_user:
        if named:
            raise _invalid(f"userAssignedIdentities cannot be set with the type '{kind}'.")
        return IdentityBlock(system=kept)
    user = {identity.id.lower(): identity for identity in current.user}
    for name, remove in named.items():
        if remove:
            user.pop(name.lower(), None)
        else:
            user[name.lower()] = _found(name, find, scale_set)
    if not user:
        raise _invalid(f"The type '{kind}' needs at least one user assigned identity.")
    return IdentityBlock(system=kept, user=tuple(user.values()))


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


def _invalid(message: str) -> ArmError:
    return ArmError(400, "InvalidParameter", message)


def _type(body: object) -> str:
    kind = body.get("type") if isinstance(body, dict) else None
    key = kind.replace(" ", "").lower() if isinstance(kind, str) else ""
    if key not in _TYPES:
        raise _invalid(f"The value '{kind}' of parameter 'identity.type' is invalid.")
    return key


def _named(body: object) -> dict[str, bool]:
    """Return the named ids, with whether each is to be removed."""
    named = body.get("userAssignedIdentities") if isinstance(body, dict) else None
    if named is None:
        return {}
    if not isinstance(named, dict):
        raise _invalid("The value of parameter 'identity.userAssignedIdentities' is invalid.")
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
            raise _invalid(f"The value of '{name}' must be an object or null.")
    return {name: value is None for name, value in named.items()}


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

ASSIGN = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"


def delete(record: type[Machines], call: ArmCall) -> Reply:
    """Delete a scale set or a machine; until the operation is done it is Deleting."""
    machines = call.find(record)
    if machines is None:
        return Reply(status=204)
    outcome = Outcome(seconds=call.world.weather.seconds("scale-sets"))
    until = min(machines.gone_at, call.now + outcome.seconds)
    put(call.world, replace(machines, gone_at=until))
    return accepted(call, None, machines, outcome)


def _check_alive(machines: Machines) -> None:
    # Words: https://github.com/microsoft/onefuzz/pull/511,
    # https://github.com/Azure/azure-sdk-for-python/issues/2702.
    if math.isinf(machines.gone_at):
        return
    if isinstance(machines, ScaleSet):
        kind = "Virtual Machine Scale Set"
        why = (
            "it is marked for deletion. For more information on your operations, please refer to"
            " https://aka.ms/activitylog."
        )
    else:
        kind = "VM"
        why = (
            "the VM is marked for deletion. You can only retry the Delete operation (or wait for an"
            " ongoing one to complete)."
        )
    message = f"Operation 'Update {kind}' is not allowed on {kind} '{machines.name}' since {why}"
    raise ArmError(409, "OperationNotAllowed", message)


def patch(record: type[Machines], call: ArmCall) -> Reply:
    machines, body = call.existing(record), call.body()
    _check_alive(machines)
    if set(body) - {"identity"}:
        raise _invalid("The sandbox changes nothing of a machine but its identity.")
    if call.now < machines.settled_at:
        raise ArmError(
            409,
            "Conflict",
            "The request failed due to conflict with a concurrent request. To resolve it, please"
            " refer to https://aka.ms/activitylog to get more details on the conflicting requests.",
        )
    if "identity" not in body:
        return Reply.json(shown(call, machines))
    changed = with_identity(call.world, call.caller, machines, body["identity"])
    outcome = call.world.weather.outcome(machines.id)
    changed = replace(
        changed, settled_at=call.now + outcome.seconds, failed=outcome.error is not None
    )
    put(call.world, changed)
    if not outcome.seconds and not outcome.error:
        return Reply.json(shown(call, changed))
    return accepted(call, shown(call, changed), changed, outcome)


def with_identity(world: World, caller: Caller, machines: M, identity: object) -> M:
    """Return the machines after `caller` patched their `identity`; raise ArmError.

    What is added or kept by name needs the permission to assign it. When they have it is the
    caller's to say.
    """
    named = [name for name, remove in _named(identity).items() if not remove]
    closed = [name for name in named if not allows(world, caller.object_id, ASSIGN, name)]
    if closed:
        raise ArmError(
            403,
            "LinkedAuthorizationFailed",
            f"The client '{caller.app_id}' with object id '{caller.object_id}' has permission to"
            f" perform action '{machines.TYPE}/write' on scope '{machines.id}'; however, it does"
            f" not have permission to perform action '{ASSIGN}' on the linked scope(s)"
            f" '{','.join(closed)}' or the linked scope(s) are invalid.",
        )
    block = patched(
        machines.identity,
        identity,
        scale_set=machines.id,
        find=lambda name: world.find(UserAssignedIdentity, name),
        system=Principal.new(machines.name, world.plan.tenant_id),
    )
    return replace(machines, identity=block, before=machines.in_force(world.clock()), failed=False)


def put(world: World, machines: Machines) -> None:
    """Store changed machines; the system's identity comes and goes with them."""
    old = world.find(Machines, machines.id)
    if old and old.identity.system:
        world.principals.pop(old.identity.system.object_id, None)
    if machines.identity.system:
        world.principals[machines.identity.system.object_id] = machines.identity.system
    world.put(machines)


def shown(call: ArmCall, machines: Machines) -> dict[str, Any]:
    """Return a document: its identities are those asked for last, in force or not yet."""
    plan, size = call.world.plan, "Standard_D2s_v5"
    properties: dict[str, Any] = {"provisioningState": _state(machines, call.now)}
    more: dict[str, Any] = {"properties": properties}
    if isinstance(machines, ScaleSet):
        more["sku"] = {"name": size, "tier": "Standard", "capacity": machines.capacity}
        properties |= {
            "orchestrationMode": "Flexible" if machines.flexible else "Uniform",
            "overprovision": False,
            "singlePlacementGroup": False,
            "upgradePolicy": {"mode": "Manual"},
        }
    elif isinstance(machines, VirtualMachine):
        properties |= {
            "vmId": stable_guid(plan.name, f"vm {machines.name}"),
            "hardwareProfile": {"vmSize": size},
        }
        if machines.scale_set:
            properties["virtualMachineScaleSet"] = {"id": machines.scale_set}
    identity = rendered(machines.identity, plan.tenant_id)
    return machines.shown(**more, **({"identity": identity} if identity else {}))


def _state(machines: Machines, now: float) -> str:
    if not math.isinf(machines.gone_at):
        return "Deleting"
    if now < machines.settled_at:
        return "Updating"
    return "Failed" if machines.failed else "Succeeded"

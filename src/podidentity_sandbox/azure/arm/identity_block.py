"""What a PATCH of `identity` makes of the identities of a scale set: a pure decision.

Patch semantics as the archived MIC relied on them (pkg/cloudprovider/vmss.go of
https://github.com/Azure/aad-pod-identity): what is not named stays, null removes, the type says
whether the system's half is kept. The words of FailedIdentityOperation are the real ones; those of
`InvalidParameter` are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmError
from podidentity_sandbox.azure.directory import Principal
from podidentity_sandbox.azure.state import IdentityBlock, UserAssignedIdentity

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

"""Azure's built-in roles that the sandbox knows, and whether a set of them allows an action.

Ids and actions: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A built-in role."""

    id: str
    """GUID of its definition, the same in every subscription."""
    name: str
    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()

    def allows(self, action: str) -> bool:
        """Return whether the role grants `action`, such as Microsoft.KeyVault/vaults/read."""
        return _any(self.actions, action) and not _any(self.not_actions, action)


OWNER = Role(id="8e3af657-a8ff-443c-a75c-2fe8c4bcb635", name="Owner", actions=("*",))
ROLES = (
    OWNER,
    Role(
        id="b24988ac-6180-42a0-ab88-20f7382dd24c",
        name="Contributor",
        actions=("*",),
        not_actions=(
            "Microsoft.Authorization/*/Delete",
            "Microsoft.Authorization/*/Write",
            "Microsoft.Authorization/elevateAccess/Action",
        ),
    ),
    Role(id="acdd72a7-3385-48ef-bd42-f606fba81ae7", name="Reader", actions=("*/read",)),
    Role(
        id="f1a07417-d97a-45cb-824c-7a7467783830",
        name="Managed Identity Operator",
        actions=(
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
            "Microsoft.Authorization/*/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ),
    ),
    Role(
        id="9980e02c-c2be-4d73-94e8-173b1dc7cf3c",
        name="Virtual Machine Contributor",
        actions=(
            "Microsoft.Authorization/*/read",
            "Microsoft.Compute/virtualMachines/*",
            "Microsoft.Compute/virtualMachineScaleSets/*",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ),
    ),
)


def role_of(role_id: str) -> Role | None:
    """Return the role of that GUID, or None."""
    return next((role for role in ROLES if role.id == role_id.lower()), None)


def _any(patterns: tuple[str, ...], action: str) -> bool:
    return any(_matches(pattern.lower(), action.lower()) for pattern in patterns)


def _matches(pattern: str, action: str) -> bool:
    # `userAssignedIdentities/*/read` covers `userAssignedIdentities/read`: `/*/` stands for nothing
    # too, or Managed Identity Operator could not read an identity.
    return fnmatchcase(action, pattern) or fnmatchcase(action, pattern.replace("/*/", "/"))

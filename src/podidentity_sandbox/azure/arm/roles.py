"""Azure's built-in roles that the sandbox knows, and whether a set of them allows an action.

Ids and actions: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role, built in unless it has scopes of its own."""

    id: str
    """GUID of its definition, the same in every subscription."""
    name: str
    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    """The data actions that it grants; actions do not include them."""
    scopes: tuple[str, ...] = ("/",)
    """Where it can be assigned: at these and below."""

    def assignable(self, scope: str) -> bool:
        inside = f"{scope.lower()}/"
        return any(inside.startswith(f"{each.lower().rstrip('/')}/") for each in self.scopes)

    def allows(self, action: str) -> bool:
        return _any(self.actions, action) and not _any(self.not_actions, action)

    def allows_data(self, action: str) -> bool:
        """Return whether the role grants an action on data, such as reading a blob."""
        return _any(self.data_actions, action)


_BLOB_SERVICE = "Microsoft.Storage/storageAccounts/blobServices"
_CONTAINERS = f"{_BLOB_SERVICE}/containers"
_DELEGATION = f"{_BLOB_SERVICE}/generateUserDelegationKey/action"
_IDENTITIES = "Microsoft.ManagedIdentity/userAssignedIdentities"
_KEY_VAULT = "Microsoft.KeyVault"
_SECRETS = f"{_KEY_VAULT}/vaults/secrets"
_USUAL = ("Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/resourceGroups/read")
"""What most roles grant beside their own."""
OWNER = Role(id="8e3af657-a8ff-443c-a75c-2fe8c4bcb635", name="Owner", actions=("*",))
CONTRIBUTOR = Role(
    id="b24988ac-6180-42a0-ab88-20f7382dd24c",
    name="Contributor",
    actions=("*",),
    not_actions=(
        "Microsoft.Authorization/*/Delete",
        "Microsoft.Authorization/*/Write",
        "Microsoft.Authorization/elevateAccess/Action",
    ),
)
BLOB_CONTRIBUTOR = Role(
    id="ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    name="Storage Blob Data Contributor",
    actions=(*(f"{_CONTAINERS}/{verb}" for verb in ("delete", "read", "write")), _DELEGATION),
    data_actions=tuple(
        f"{_CONTAINERS}/blobs/{verb}"
        for verb in ("delete", "read", "write", "move/action", "add/action")
    ),
)
ROLES = (
    OWNER,
    CONTRIBUTOR,
    Role(id="acdd72a7-3385-48ef-bd42-f606fba81ae7", name="Reader", actions=("*/read",)),
    Role(
        id="e40ec5ca-96e0-45a2-b4ff-59039f2c2b59",
        name="Managed Identity Contributor",
        actions=(
            *(f"{_IDENTITIES}/{verb}" for verb in ("read", "write", "delete")),
            f"{_IDENTITIES}/federatedIdentityCredentials/*",
            *_USUAL,
        ),
    ),
    Role(
        id="f1a07417-d97a-45cb-824c-7a7467783830",
        name="Managed Identity Operator",
        actions=(
            *(f"{_IDENTITIES}/*/{verb}" for verb in ("read", "assign/action")),
            *_USUAL,
        ),
    ),
    Role(
        id="9980e02c-c2be-4d73-94e8-173b1dc7cf3c",
        name="Virtual Machine Contributor",
        actions=(
            *_USUAL,
            "Microsoft.Compute/virtualMachines/*",
            "Microsoft.Compute/virtualMachineScaleSets/*",
        ),
    ),
    Role(
        id="4633458b-17de-408a-b874-0445c86b69e6",
        name="Key Vault Secrets User",
        actions=(),
        data_actions=(f"{_SECRETS}/getSecret/action", f"{_SECRETS}/readMetadata/action"),
    ),
    Role(
        id="b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
        name="Key Vault Secrets Officer",
        actions=(
            *_USUAL,
            *(f"{_KEY_VAULT}/{one}/read" for one in ("checkNameAvailability", "deletedVaults")),
            *(f"{_KEY_VAULT}/{one}/read" for one in ("locations/*", "vaults/*", "operations")),
        ),
        data_actions=(f"{_SECRETS}/*",),
    ),
    Role(
        id="2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
        name="Storage Blob Data Reader",
        actions=(f"{_CONTAINERS}/read", _DELEGATION),
        data_actions=(f"{_CONTAINERS}/blobs/read",),
    ),
    BLOB_CONTRIBUTOR,
)


def role_of(role_id: str) -> Role | None:
    return next((role for role in ROLES if role.id == role_id.lower()), None)


def _any(patterns: tuple[str, ...], action: str) -> bool:
    # `userAssignedIdentities/*/read` covers `userAssignedIdentities/read`: `/*/` stands for nothing
    # too, or Managed Identity Operator could not read an identity.
    lower = (pattern.lower() for pattern in patterns)
    forms = (form for pattern in lower for form in (pattern, pattern.replace("/*/", "/")))
    return any(fnmatchcase(action.lower(), form) for form in forms)

"""Key vaults as ARM has them: their place, and whether roles or access policies decide.

Which of both a new vault has where nobody says it depends on the api-version; one that exists keeps
what it has: https://learn.microsoft.com/azure/key-vault/general/access-control-default

https://learn.microsoft.com/rest/api/keyvault/keyvault/vaults
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, location_of, tags_of
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import DeletedVault, Vault

ROLES_BY_DEFAULT = "2026-02-01"
"""The api-version from which on a new vault has roles, unless the request says otherwise."""
_NAME = re.compile(r"(?!.*--)[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]")


def put_vault(call: ArmCall) -> Reply:
    """Make a vault, or replace all of one but its secrets."""
    group, body, name = call.group(), call.body(), call.params["name"]
    properties = _properties(call, body)
    old = call.find(Vault)
    if old is None:
        _free(call, name)
    by_roles = _by_roles(call, properties, old)
    new = Vault(
        id=old.id if old else f"{group.id}/providers/{Vault.TYPE}/{name}",
        name=old.name if old else name,
        location=location_of(body),
        tags=tags_of(body),
        sku=properties["sku"],
        policies=_policies(call, properties, by_roles=by_roles),
        by_roles=by_roles,
    )
    call.world.put(new)
    return Reply.json(shown(call, new), status=200 if old else 201)


def _properties(call: ArmCall, body: Mapping[str, Any]) -> dict[str, Any]:
    properties = body.get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("sku"), dict):
        raise _bad("The parameter sku is required.")
    if str(properties.get("tenantId", "")).lower() != call.world.plan.tenant_id:
        raise _bad("An invalid value was provided for 'tenantId'.")
    return properties


def _free(call: ArmCall, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ArmError(
            400,
            "VaultNameNotValid",
            f"The vault name '{name}' is invalid. A vault's name must be between 3-24 alphanumeric"
            " characters. The name must begin with a letter, end with a letter or digit, and not"
            " contain consecutive hyphens. Follow this link for more information:"
            " https://go.microsoft.com/fwlink/?linkid=2147742",
        )
    gone = {one.name.lower() for one in call.world.all(DeletedVault)}
    if call.world.vault(name) or name.lower() in gone:
        raise ArmError(
            409,
            "VaultAlreadyExists",
            f"The vault name '{name}' is already in use. Vault names are globally unique so it is"
            " possible that the name is already taken. If you are sure that the vault name was not"
            " taken then it is possible that a vault with the same name was recently deleted but"
            " not purged after being placed in a recoverable state.",
        )


def _by_roles(call: ArmCall, properties: Mapping[str, Any], old: Vault | None) -> bool:
    asked = properties.get("enableRbacAuthorization")
    if asked is not None and not isinstance(asked, bool):
        raise _bad("An invalid value was provided for 'enableRbacAuthorization'.")
    if old is None:
        default = call.request.parameter("api-version") >= ROLES_BY_DEFAULT
        return default if asked is None else asked
    if asked is not None and asked != old.by_roles:
        # https://learn.microsoft.com/azure/key-vault/general/rbac-guide
        call.require("Microsoft.Authorization/roleAssignments/write", old.id)
    return old.by_roles if asked is None else asked


def _policies(
    call: ArmCall, properties: Mapping[str, Any], *, by_roles: bool
) -> tuple[Mapping[str, Any], ...]:
    policies = properties.get("accessPolicies")
    if policies is None and by_roles:
        return ()
    if policies is None:
        raise _bad("The parameter accessPolicies is required.")
    try:
        return tuple(
            _policy(call, str(policy["objectId"]), dict(policy["permissions"]))
            for policy in policies
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _bad("An invalid value was provided for 'accessPolicies'.") from error


def _policy(call: ArmCall, object_id: str, permissions: dict[str, Any]) -> dict[str, Any]:
    granted = {kind: names or [] for kind, names in permissions.items()}
    if not all(isinstance(names, list) for names in granted.values()):
        raise _bad("An invalid value was provided for 'permissions'.")
    return {
        "tenantId": call.world.plan.tenant_id,
        "objectId": object_id,
        "permissions": granted,
    }


def _bad(message: str) -> ArmError:
    return ArmError(400, "BadRequest", message)


def shown(call: ArmCall, vault: Vault) -> dict[str, Any]:
    properties = {
        "sku": dict(vault.sku),
        "tenantId": call.world.plan.tenant_id,
        "accessPolicies": [dict(policy) for policy in vault.policies],
        "enabledForDeployment": False,
        "enableSoftDelete": True,
        "softDeleteRetentionInDays": 90,
        "enableRbacAuthorization": vault.by_roles,
        "vaultUri": f"https://{vault.name.lower()}.vault.azure.net/",
        "provisioningState": "Succeeded",
        "publicNetworkAccess": "Enabled",
    }
    return vault.shown(properties=properties)

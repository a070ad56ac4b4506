"""Key vaults as ARM has them: their place, and whether roles or access policies decide.

Which of both a new vault has where nobody says it depends on the api-version; one that exists keeps
what it has: https://learn.microsoft.com/azure/key-vault/general/access-control-default

https://learn.microsoft.com/rest/api/keyvault/keyvault/vaults
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from podidentity_sandbox.azure.arm import operations
from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, location_of, tags_of
from podidentity_sandbox.azure.keyvault.secrets import Secret
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import DeletedVault, Vault

DELETED_KIND = "Microsoft.KeyVault/deletedVaults"
RETENTION = timedelta(days=90)


def soft_delete(call: ArmCall, vault: Vault) -> None:
    """Delete a vault so that it can be brought back."""
    places = f"{call.subscription}/providers/Microsoft.KeyVault/locations"
    secrets = tuple(call.world.all(Secret, vault.id))
    call.world.remove(vault.id)
    call.world.put(
        DeletedVault(
            id=f"{places}/{vault.location}/deletedVaults/{vault.name}",
            name=vault.name,
            vault=vault,
            secrets=secrets,
            deleted=call.now,
        )
    )


def deleted_vault(call: ArmCall, name: str) -> DeletedVault | None:
    """Return the deleted vault of that name."""
    deleted = call.world.all(DeletedVault)
    return next((one for one in deleted if one.name.lower() == name.lower()), None)


def recovered_vault(call: ArmCall) -> Vault:
    """Bring back the vault of the path, with its secrets; raise ArmError."""
    deleted = deleted_vault(call, call.params["name"])
    if deleted is None or deleted.vault.id.lower() != call.id.lower():
        raise _missing(call.params["name"])
    call.world.remove(deleted.id)
    for each in (deleted.vault, *deleted.secrets):
        call.world.put(each)
    return deleted.vault


def list_deleted(call: ArmCall) -> Reply:
    """List the deleted vaults."""
    return Reply.json({"value": [_deleted_json(one) for one in call.world.all(DeletedVault)]})


def list_no_hsms(_: ArmCall) -> Reply:
    """List managed HSMs, deleted or not, as a subscription without any: `az` asks for them too."""
    return Reply.json({"value": []})


def get_deleted(call: ArmCall) -> Reply:
    """Return a deleted vault."""
    return Reply.json(_deleted_json(_existing_deleted(call)))


def purge_deleted(call: ArmCall) -> Reply:
    """Delete a vault for good."""
    deleted = _existing_deleted(call)
    call.world.remove(deleted.id)
    place = deleted.id.partition("/deletedVaults/")[0]
    return operations.accepted_at(
        call, operations.start(call, delay=0), f"{place}/operationResults"
    )


def _existing_deleted(call: ArmCall) -> DeletedVault:
    deleted = call.world.find(DeletedVault, call.id)
    if deleted is None:
        raise _missing(call.params["name"])
    return deleted


def _missing(name: str) -> ArmError:
    message = f"The specified deleted vault '{name}' does not exist."
    return ArmError(404, "DeletedVaultNotFound", message)


def _deleted_json(deleted: DeletedVault) -> dict[str, Any]:
    date = datetime.fromtimestamp(deleted.deleted, UTC)
    return {
        "id": deleted.id,
        "name": deleted.name,
        "type": DELETED_KIND,
        "properties": {
            "vaultId": deleted.vault.id,
            "location": deleted.vault.location,
            "tags": dict(deleted.vault.tags),
            "deletionDate": date.isoformat(),
            "scheduledPurgeDate": (date + RETENTION).isoformat(),
        },
    }


# ---- Vaults

KIND = "Microsoft.KeyVault/vaults"
ROLES_BY_DEFAULT = "2026-02-01"
"""The api-version from which on a new vault has roles, unless the request says otherwise."""
_NAME = re.compile(r"(?!.*--)[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]")


def get_vault(call: ArmCall) -> Reply:
    """Return a vault."""
    call.group()
    vault = call.world.find(Vault, call.id)
    if vault is None:
        raise call.missing(KIND)
    return Reply.json(_json(call, vault))


def list_vaults(call: ArmCall) -> Reply:
    """List the vaults of a resource group, or of the subscription."""
    return Reply.json({"value": [_json(call, vault) for vault in call.listed(Vault, KIND)]})


def put_vault(call: ArmCall) -> Reply:
    """Make a vault, or replace all of one but its secrets."""
    group, body, name = call.group(), call.body(), call.params["name"]
    if (body.get("properties") or {}).get("createMode") == "recover":
        return Reply.json(_json(call, recovered_vault(call)))
    properties = _properties(call, body)
    old = call.world.find(Vault, call.id)
    if old is None:
        _free(call, name)
    by_roles = _by_roles(call, properties, old)
    new = Vault(
        id=old.id if old else f"{group.id}/providers/{KIND}/{name}",
        name=old.name if old else name,
        location=location_of(body),
        tags=tags_of(body),
        sku=properties["sku"],
        policies=_policies(call, properties, by_roles=by_roles),
        by_roles=by_roles,
    )
    call.world.put(new)
    return Reply.json(_json(call, new), status=200 if old else 201)


def delete_vault(call: ArmCall) -> Reply:
    """Delete a vault; it can be brought back until it is purged."""
    call.group()
    vault = call.world.find(Vault, call.id)
    if vault is None:
        return Reply(status=204)
    soft_delete(call, vault)
    return Reply(status=200)


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
    if call.world.vault(name) or deleted_vault(call, name):
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


def _json(call: ArmCall, vault: Vault) -> dict[str, Any]:
    return {
        "id": vault.id,
        "name": vault.name,
        "type": KIND,
        "location": vault.location,
        "tags": dict(vault.tags),
        "properties": {
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
        },
    }

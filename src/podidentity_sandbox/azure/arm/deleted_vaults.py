"""Vaults that were deleted: they keep their name for 90 days, and come back unless purged.

https://learn.microsoft.com/azure/key-vault/general/soft-delete-overview
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from podidentity_sandbox.azure.arm import operations
from podidentity_sandbox.azure.arm.call import ArmError, Call
from podidentity_sandbox.azure.keyvault.store import Secret
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import DeletedVault, Vault

KIND = "Microsoft.KeyVault/deletedVaults"
RETENTION = timedelta(days=90)


def soft_delete(call: Call, vault: Vault) -> None:
    """Delete a vault so that it can be brought back."""
    places = f"{call.world.subscription}/providers/Microsoft.KeyVault/locations"
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


def named(call: Call, name: str) -> DeletedVault | None:
    """Return the deleted vault of that name."""
    deleted = call.world.all(DeletedVault)
    return next((one for one in deleted if one.name.lower() == name.lower()), None)


def recovered(call: Call) -> Vault:
    """Bring back the vault of the path, with its secrets; raise ArmError."""
    deleted = named(call, call.params["name"])
    if deleted is None or deleted.vault.id.lower() != call.id.lower():
        raise _missing(call.params["name"])
    call.world.remove(deleted.id)
    for each in (deleted.vault, *deleted.secrets):
        call.world.put(each)
    return deleted.vault


def list_deleted(call: Call) -> Reply:
    """List the deleted vaults."""
    return Reply.json({"value": [_json(one) for one in call.world.all(DeletedVault)]})


def list_no_hsms(_: Call) -> Reply:
    """List managed HSMs, deleted or not, as a subscription without any: `az` asks for them too."""
    return Reply.json({"value": []})


def get_deleted(call: Call) -> Reply:
    """Return a deleted vault."""
    return Reply.json(_json(_existing(call)))


def purge(call: Call) -> Reply:
    """Delete a vault for good."""
    deleted = _existing(call)
    call.world.remove(deleted.id)
    place = deleted.id.partition("/deletedVaults/")[0]
    return operations.accepted_at(
        call, operations.start(call, delay=0), f"{place}/operationResults"
    )


def _existing(call: Call) -> DeletedVault:
    deleted = call.world.find(DeletedVault, call.id)
    if deleted is None:
        raise _missing(call.params["name"])
    return deleted


def _missing(name: str) -> ArmError:
    message = f"The specified deleted vault '{name}' does not exist."
    return ArmError(404, "DeletedVaultNotFound", message)


def _json(deleted: DeletedVault) -> dict[str, Any]:
    date = datetime.fromtimestamp(deleted.deleted, UTC)
    return {
        "id": deleted.id,
        "name": deleted.name,
        "type": KIND,
        "properties": {
            "vaultId": deleted.vault.id,
            "location": deleted.vault.location,
            "tags": dict(deleted.vault.tags),
            "deletionDate": date.isoformat(),
            "scheduledPurgeDate": (date + RETENTION).isoformat(),
        },
    }

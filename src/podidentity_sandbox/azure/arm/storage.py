"""Storage accounts as ARM has them; what is in one belongs to the blob service.

https://learn.microsoft.com/rest/api/storagerp/storage-accounts. Words of refusals:
https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-storage-account-name,
https://learn.microsoft.com/rest/api/storagerp/srp_error_codes_common
"""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.azure.arm import operations
from podidentity_sandbox.azure.arm import storage_settings as settings
from podidentity_sandbox.azure.arm.call import ArmError, Call, location_of
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import Operation, StorageAccount

KIND = "Microsoft.Storage/storageAccounts"
_NAME = re.compile("[a-z0-9]{3,24}")


def get_account(call: Call) -> Reply:
    """Return a storage account, without its keys."""
    return Reply.json(_json(_existing(call)))


def list_accounts(call: Call) -> Reply:
    """List the accounts of a resource group, or of the subscription."""
    found = call.listed(StorageAccount, KIND)
    return Reply.json({"value": [_json(account) for account in found]})


def put_account(call: Call) -> Reply:
    """Make an account; one that exists is answered as it is, changed by what is sent."""
    group, body, name = call.group(), call.body(), call.params["name"]
    old = call.world.find(StorageAccount, call.id)
    if old is None:
        _free(call, name)
    sku, kind = settings.sku_of(body), settings.kind_of(body)
    location = location_of(body)
    if old:
        settings.check_same(old, location, kind)
        changed = settings.changed(old, body)
        call.world.put(changed)
        return Reply.json(_json(changed))
    account = StorageAccount(
        id=f"{group.id}/providers/{KIND}/{name}",
        name=name,
        location=location,
        tags={},
        kind=kind,
        sku=sku,
        access_tier=None if kind == "Storage" else "Hot",
        https_only=True,
        public_access=False,
        shared_key_access=True,
        keys=(_new_key(), _new_key()),
        created=call.now,
    )
    call.world.put(settings.changed(account, body))
    operation = operations.start(call, delay=call.world.arm_delay, subject=account.id)
    where = f"{call.world.subscription}/providers/Microsoft.Storage/locations/{location}"
    return operations.accepted_at(call, operation, f"{where}/asyncoperations")


def patch_account(call: Call) -> Reply:
    """Change tags and settings of an account."""
    changed = settings.changed(_existing(call), call.body())
    call.world.put(changed)
    return Reply.json(_json(changed))


def delete_account(call: Call) -> Reply:
    """Delete an account with all that is in it."""
    call.group()
    if call.world.find(StorageAccount, call.id) is None:
        return Reply(status=204)
    call.world.remove(call.id)
    return Reply(status=200)


def get_result(call: Call) -> Reply:
    """Return the account that an operation made, once it is there."""
    return operations.get_result(call, lambda operation: _made(call, operation))


def list_keys(call: Call) -> Reply:
    """Return the keys: whoever has one may do everything with the data."""
    return _keys(_existing(call))


def regenerate_key(call: Call) -> Reply:
    """Replace one of the keys."""
    account, name = _existing(call), call.body().get("keyName")
    if name not in ("key1", "key2"):
        raise settings.bad_value("keyName")
    first, second = account.keys
    keys = (_new_key(), second) if name == "key1" else (first, _new_key())
    renewed = replace(account, keys=keys)
    call.world.put(renewed)
    return _keys(renewed)


def check_name(call: Call) -> Reply:
    """Say whether a new account may have the name."""
    name = str(call.body().get("name", ""))
    refusal = _name_refusal(call, name)
    if refusal is None:
        return Reply.json({"nameAvailable": True})
    reason, message = refusal
    return Reply.json({"nameAvailable": False, "reason": reason, "message": message})


def _name_refusal(call: Call, name: str) -> tuple[str, str] | None:
    if not _NAME.fullmatch(name):
        return "AccountNameInvalid", (
            f"{name} is not a valid storage account name. Storage account name must be between 3"
            " and 24 characters in length and use numbers and lower-case letters only."
        )
    if call.world.account(name):
        return "AlreadyExists", f"The storage account named {name} is already taken."
    return None


def _free(call: Call, name: str) -> None:
    refusal = _name_refusal(call, name)
    if refusal is None:
        return
    reason, message = refusal
    if reason == "AccountNameInvalid":
        raise ArmError(400, reason, message)
    # Every other account here is of this subscription.
    message = f"The account {name} is already in another resource group in this subscription."
    raise ArmError(409, "StorageAccountInAnotherResourceGroup", message)


def _existing(call: Call) -> StorageAccount:
    call.group()
    account = call.world.find(StorageAccount, call.id)
    if account is None:
        raise call.missing(KIND)
    return account


def _made(call: Call, operation: Operation) -> object:
    account = call.world.find(StorageAccount, operation.subject)
    return _json(account) if account else None


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(64)).decode()


def _keys(account: StorageAccount) -> Reply:
    named = zip(("key1", "key2"), account.keys, strict=True)
    return Reply.json(
        {"keys": [{"keyName": name, "value": key, "permissions": "FULL"} for name, key in named]}
    )


def _json(account: StorageAccount) -> dict[str, Any]:
    created = datetime.fromtimestamp(account.created, UTC).isoformat()
    service = {"enabled": True, "keyType": "Account", "lastEnabledTime": created}
    properties = {
        "provisioningState": "Succeeded",
        "creationTime": created,
        "primaryEndpoints": {"blob": f"https://{account.name}.blob.core.windows.net/"},
        "primaryLocation": account.location,
        "statusOfPrimary": "available",
        "supportsHttpsTrafficOnly": account.https_only,
        "allowBlobPublicAccess": account.public_access,
        "allowSharedKeyAccess": account.shared_key_access,
        "minimumTlsVersion": "TLS1_2",
        "networkAcls": {"bypass": "AzureServices", "defaultAction": "Allow"},
        "encryption": {"services": {"blob": service}, "keySource": "Microsoft.Storage"},
    }
    if account.access_tier:
        properties["accessTier"] = account.access_tier
    return {
        "id": account.id,
        "name": account.name,
        "type": KIND,
        "kind": account.kind,
        "sku": {"name": account.sku, "tier": account.sku.partition("_")[0]},
        "location": account.location,
        "tags": dict(account.tags),
        "properties": properties,
    }

"""Storage accounts as ARM has them; what is in one belongs to the blob service.

https://learn.microsoft.com/rest/api/storagerp/storage-accounts. Words of refusals:
https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-storage-account-name,
https://learn.microsoft.com/rest/api/storagerp/srp_error_codes_common
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.azure.arm import operations
from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, location_of, tags_of
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import Operation, StorageAccount

_KINDS = ("Storage", "StorageV2", "BlobStorage", "FileStorage", "BlockBlobStorage")
_SKUS = ("Standard_LRS", "Standard_GRS", "Standard_RAGRS", "Standard_ZRS", "Premium_LRS")
_TIERS = ("Hot", "Cool", "Cold", "Premium")
_HTTPS_ONLY = "supportsHttpsTrafficOnly"


def kind_of(body: Mapping[str, Any]) -> str:
    """Return the kind that is asked for; raise ArmError."""
    return _enumerated(body.get("kind"), "kind", _KINDS)


def sku_of(body: Mapping[str, Any]) -> str:
    """Return the SKU that is asked for; raise ArmError."""
    return _named(body, "sku", _SKUS)


def bad_value(name: str) -> ArmError:
    """Return the refusal of a value."""
    message = f"Values for request parameters are invalid: {name}."
    return ArmError(400, "InvalidValuesForRequestParameters", message)


def check_same(old: StorageAccount, location: str, kind: str) -> None:
    """Raise ArmError where a PUT asks for another place or kind than the account has."""
    if old.location != location:
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"The resource '{old.name}' already exists in location '{old.location}' in resource"
            f" group '{old.id.split('/')[4]}'. A resource with the same name cannot be created in"
            f" location '{location}'. Please select a new resource name.",
        )
    if old.kind != kind and (old.kind, kind) != ("Storage", "StorageV2"):
        raise bad_value("kind")


def with_settings(account: StorageAccount, body: Mapping[str, Any]) -> StorageAccount:
    """Return the account with what `body` says of it; raise ArmError."""
    given = body.get("properties") or {}
    change: dict[str, Any] = {}
    if "tags" in body:
        change["tags"] = tags_of(body)
    if body.get("sku"):
        change["sku"] = _named(body, "sku", _SKUS)
    if given.get("accessTier"):
        change["access_tier"] = _enumerated(given["accessTier"], "accessTier", _TIERS)
    if given.get(_HTTPS_ONLY) is not None:
        change["https_only"] = given[_HTTPS_ONLY]
        if not isinstance(change["https_only"], bool):
            raise bad_value(_HTTPS_ONLY)
    return replace(account, **change)


def _named(body: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = body.get(key)
    return _enumerated(value.get("name") if isinstance(value, dict) else None, key, allowed)


def _enumerated(value: object, name: str, allowed: tuple[str, ...]) -> str:
    for known in allowed:
        if str(value).lower() == known.lower():
            return known
    raise bad_value(name)


# ---- Accounts

KIND = "Microsoft.Storage/storageAccounts"
_NAME = re.compile("[a-z0-9]{3,24}")


def get_account(call: ArmCall) -> Reply:
    """Return a storage account, without its keys."""
    return Reply.json(_json(call.existing(StorageAccount, KIND)))


def list_accounts(call: ArmCall) -> Reply:
    """List the accounts of a resource group, or of the subscription."""
    found = call.listed(StorageAccount, KIND)
    return Reply.json({"value": [_json(account) for account in found]})


def put_account(call: ArmCall) -> Reply:
    """Make an account; one that exists is changed by the request and returned."""
    group, body, name = call.group(), call.body(), call.params["name"]
    old = call.world.find(StorageAccount, call.id)
    if old is None:
        _free(call, name)
    sku, kind = sku_of(body), kind_of(body)
    location = location_of(body)
    if old:
        check_same(old, location, kind)
        changed = with_settings(old, body)
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
        keys=(_new_key(), _new_key()),
        created=call.now,
    )
    call.world.put(with_settings(account, body))
    delay = call.world.weather.seconds("operations")
    operation = operations.start(call, delay=delay, subject=account.id)
    where = f"{call.subscription}/providers/Microsoft.Storage/locations/{location}"
    return operations.accepted_at(call, operation, f"{where}/asyncoperations")


def delete_account(call: ArmCall) -> Reply:
    """Delete an account with all that is in it."""
    return call.removed(StorageAccount)


def get_result(call: ArmCall) -> Reply:
    """Return the account that an operation made, once it is there."""
    return operations.get_result(call, lambda operation: _made(call, operation))


def list_keys(call: ArmCall) -> Reply:
    """Return the keys; one is enough to do everything with the data."""
    named = zip(("key1", "key2"), call.existing(StorageAccount, KIND).keys, strict=True)
    return Reply.json(
        {"keys": [{"keyName": name, "value": key, "permissions": "FULL"} for name, key in named]}
    )


def check_name(call: ArmCall) -> Reply:
    """Say whether a new account may have the name."""
    name = str(call.body().get("name", ""))
    refusal = _name_refusal(call, name)
    if refusal is None:
        return Reply.json({"nameAvailable": True})
    reason, message = refusal
    return Reply.json({"nameAvailable": False, "reason": reason, "message": message})


def _name_refusal(call: ArmCall, name: str) -> tuple[str, str] | None:
    if not _NAME.fullmatch(name):
        return "AccountNameInvalid", (
            f"{name} is not a valid storage account name. Storage account name must be between 3"
            " and 24 characters in length and use numbers and lower-case letters only."
        )
    if call.world.account(name):
        return "AlreadyExists", f"The storage account named {name} is already taken."
    return None


def _free(call: ArmCall, name: str) -> None:
    refusal = _name_refusal(call, name)
    if refusal is None:
        return
    reason, message = refusal
    if reason == "AccountNameInvalid":
        raise ArmError(400, reason, message)
    # Every other account here is of this subscription.
    message = f"The account {name} is already in another resource group in this subscription."
    raise ArmError(409, "StorageAccountInAnotherResourceGroup", message)


def _made(call: ArmCall, operation: Operation) -> object:
    account = call.world.find(StorageAccount, operation.subject)
    return _json(account) if account else None


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(64)).decode()


def _json(account: StorageAccount) -> dict[str, Any]:
    created = datetime.fromtimestamp(account.created, UTC).isoformat()
    service = {"enabled": True, "keyType": "Account", "lastEnabledTime": created}
    properties = {
        "provisioningState": "Succeeded",
        "creationTime": created,
        "primaryEndpoints": {"blob": f"https://{account.name}.blob.core.windows.net/"},
        "primaryLocation": account.location,
        "statusOfPrimary": "available",
        _HTTPS_ONLY: account.https_only,
        "allowBlobPublicAccess": False,
        "allowSharedKeyAccess": True,
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

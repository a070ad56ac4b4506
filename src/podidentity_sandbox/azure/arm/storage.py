"""Storage accounts as ARM has them; what is in one belongs to the blob service.

All are general-purpose v2 accounts: another kind is refused.

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

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, location_of, tags_of
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import StorageAccount

_NAME = re.compile("[a-z0-9]{3,24}")
_KIND = "StorageV2"
_SKUS = ("Standard_LRS", "Standard_GRS", "Standard_RAGRS", "Standard_ZRS", "Premium_LRS")
_TIERS = ("Hot", "Cool", "Cold", "Premium")
_HTTPS_ONLY = "supportsHttpsTrafficOnly"


def put_account(call: ArmCall) -> Reply:
    """Make an account at once, or change what the request says of one."""
    group, body, name = call.group(), call.body(), call.params["name"]
    old = call.find(StorageAccount)
    if old is None and (refusal := _name_refusal(call, name)):
        reason, message = refusal
        if reason == "AccountNameInvalid":
            raise ArmError(400, reason, message)
        # Every other account here is of this subscription.
        message = f"The account {name} is already in another resource group in this subscription."
        raise ArmError(409, "StorageAccountInAnotherResourceGroup", message)
    sku = body.get("sku")
    sku = _one_of(_SKUS, "sku", sku.get("name") if isinstance(sku, dict) else None)
    _one_of((_KIND,), "kind", body.get("kind"))
    location = location_of(body)
    if old and old.location != location:
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"The resource '{name}' already exists in location '{old.location}' in resource group"
            f" '{group.name}'. A resource with the same name cannot be created in location"
            f" '{location}'. Please select a new resource name.",
        )
    account = old or StorageAccount(
        id=f"{group.id}/providers/{StorageAccount.TYPE}/{name}",
        name=name,
        location=location,
        sku=sku,
        access_tier="Hot",
        https_only=True,
        keys=(_new_key(), _new_key()),
        created=call.now,
    )
    changed = _with_settings(replace(account, sku=sku), body)
    call.world.put(changed)
    return Reply.json(shown(call, changed))


def list_keys(call: ArmCall) -> Reply:
    """Return the keys; one is enough to do everything with the data."""
    named = zip(("key1", "key2"), call.existing(StorageAccount).keys, strict=True)
    return Reply.json(
        {"keys": [{"keyName": name, "value": key, "permissions": "FULL"} for name, key in named]}
    )


def check_name(call: ArmCall) -> Reply:
    refusal = _name_refusal(call, str(call.body().get("name", "")))
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


def _with_settings(account: StorageAccount, body: Mapping[str, Any]) -> StorageAccount:
    """Return the account with what `body` says of it; raise ArmError."""
    given = body.get("properties") or {}
    tier, https_only = given.get("accessTier"), given.get(_HTTPS_ONLY)
    if https_only is not None and not isinstance(https_only, bool):
        raise _bad_value(_HTTPS_ONLY)
    return replace(
        account,
        tags=tags_of(body) if "tags" in body else account.tags,
        access_tier=_one_of(_TIERS, "accessTier", tier) if tier else account.access_tier,
        https_only=account.https_only if https_only is None else https_only,
    )


def _one_of(allowed: tuple[str, ...], name: str, value: object) -> str:
    for known in allowed:
        if str(value).lower() == known.lower():
            return known
    raise _bad_value(name)


def _bad_value(name: str) -> ArmError:
    message = f"Values for request parameters are invalid: {name}."
    return ArmError(400, "InvalidValuesForRequestParameters", message)


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(64)).decode()


def shown(_: ArmCall, account: StorageAccount) -> dict[str, Any]:
    """Return the document of an account, without its keys."""
    created = datetime.fromtimestamp(account.created, UTC).isoformat()
    service = {"enabled": True, "keyType": "Account", "lastEnabledTime": created}
    properties = {
        "provisioningState": "Succeeded",
        "creationTime": created,
        "primaryEndpoints": {"blob": f"https://{account.name}.blob.core.windows.net/"},
        "primaryLocation": account.location,
        "statusOfPrimary": "available",
        _HTTPS_ONLY: account.https_only,
        "accessTier": account.access_tier,
        "allowBlobPublicAccess": False,
        "allowSharedKeyAccess": True,
        "minimumTlsVersion": "TLS1_2",
        "networkAcls": {"bypass": "AzureServices", "defaultAction": "Allow"},
        "encryption": {"services": {"blob": service}, "keySource": "Microsoft.Storage"},
    }
    sku = {"name": account.sku, "tier": account.sku.partition("_")[0]}
    return account.shown(kind=_KIND, sku=sku, properties=properties)

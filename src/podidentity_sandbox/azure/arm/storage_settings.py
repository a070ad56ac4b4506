"""What a request may say of a storage account's settings: pure decisions.

https://learn.microsoft.com/rest/api/storagerp/storage-accounts/create, of which only what changes
how the blob service answers is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmError, tags_of
from podidentity_sandbox.azure.state import StorageAccount

_KINDS = ("Storage", "StorageV2", "BlobStorage", "FileStorage", "BlockBlobStorage")
_SKUS = ("Standard_LRS", "Standard_GRS", "Standard_RAGRS", "Standard_ZRS", "Premium_LRS")
_TIERS = ("Hot", "Cool", "Cold", "Premium")
_SWITCHES = {
    "https_only": "supportsHttpsTrafficOnly",
    "public_access": "allowBlobPublicAccess",
    "shared_key_access": "allowSharedKeyAccess",
}


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


def changed(account: StorageAccount, body: Mapping[str, Any]) -> StorageAccount:
    """Return the account with what `body` says of it; raise ArmError."""
    given = body.get("properties") or {}
    change: dict[str, Any] = {}
    if "tags" in body:
        change["tags"] = tags_of(body)
    if body.get("sku"):
        change["sku"] = _named(body, "sku", _SKUS)
    if given.get("accessTier"):
        change["access_tier"] = _enumerated(given["accessTier"], "accessTier", _TIERS)
    for field, name in _SWITCHES.items():
        if given.get(name) is not None:
            change[field] = _switch(given, name)
    return replace(account, **change)


def _switch(given: Mapping[str, Any], name: str) -> bool:
    value = given[name]
    if not isinstance(value, bool):
        raise bad_value(name)
    return value


def _named(body: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = body.get(key)
    return _enumerated(value.get("name") if isinstance(value, dict) else None, key, allowed)


def _enumerated(value: object, name: str, allowed: tuple[str, ...]) -> str:
    for known in allowed:
        if str(value).lower() == known.lower():
            return known
    raise bad_value(name)

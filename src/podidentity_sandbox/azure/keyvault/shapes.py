"""Secrets as JSON, and what a client says of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from podidentity_sandbox.azure.keyvault.errors import bad_parameter
from podidentity_sandbox.azure.keyvault.store import Secret, Version
from podidentity_sandbox.azure.state import Vault

T = TypeVar("T")

RETENTION = 90
"""Days that a deleted secret can be recovered."""
_DAY = 86_400


def item(vault: Vault, secret: Secret, one: Version, *, versioned: bool) -> dict[str, Any]:
    """Return what is said of a version without its value; `versioned` says whether by its id."""
    version = f"/{one.version}" if versioned else ""
    times = {"nbf": one.not_before, "exp": one.expires}
    attributes = {
        "enabled": one.enabled,
        **{name: value for name, value in times.items() if value is not None},
        "created": one.created,
        "updated": one.updated,
        "recoveryLevel": "Recoverable+Purgeable",
        "recoverableDays": RETENTION,
    }
    more = {"contentType": one.content_type, "tags": one.tags}
    return {
        "id": f"{uri(vault)}/secrets/{secret.name}{version}",
        "attributes": attributes,
        **{name: value for name, value in more.items() if value is not None},
    }


def deleted_item(vault: Vault, secret: Secret, deleted: int, *, versioned: bool) -> dict[str, Any]:
    """Return what is said of a deleted secret."""
    return {
        "recoveryId": f"{uri(vault)}/deletedsecrets/{secret.name}",
        "deletedDate": deleted,
        "scheduledPurgeDate": deleted + RETENTION * _DAY,
        **item(vault, secret, secret.versions[-1], versioned=versioned),
    }


def uri(vault: Vault) -> str:
    """Return the address of a vault."""
    return f"https://{vault.name.lower()}.vault.azure.net"


def settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Version that a request sets; raise VaultError."""
    attributes = body.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise bad_parameter("Property attributes has invalid value")
    sent = {
        "enabled": _typed(attributes, "enabled", bool),
        "not_before": _typed(attributes, "nbf", int),
        "expires": _typed(attributes, "exp", int),
        "content_type": _typed(body, "contentType", str),
        "tags": _typed(body, "tags", dict),
    }
    return {name: value for name, value in sent.items() if value is not None}


def _typed(values: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    value = values.get(name)
    if value is None or type(value) is kind:
        return value
    raise bad_parameter(f"Property {name} has invalid value")

"""Secrets of a vault: their versions, their JSON, how they are set and read, and the refusals."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from podidentity_sandbox.azure.messages import NO_HEADERS, BadBody, Reply, Request
from podidentity_sandbox.azure.state import Vault, World

# ---- Refusals, in the real service's words; beside each stands where it was seen


class VaultError(Exception):
    """A refusal of the vault."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        inner: str = "",
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"code": code, "message": message}
        if inner:
            self.error["innererror"] = {"code": inner}
        self.headers = headers


def bad_parameter(message: str) -> VaultError:
    """Return the error of a request that makes no sense."""
    return VaultError(400, "BadParameter", message)


def no_such_secret(name: str, version: str = "") -> VaultError:
    """Return the error of a secret, or a version of it, that is not there.

    https://github.com/Azure/azure-sdk-for-js/issues/25489
    """
    return VaultError(
        404,
        "SecretNotFound",
        f"A secret with (name/id) {name}{f'/{version}' if version else ''} was not found in this"
        " key vault. If you recently deleted this secret you may be able to recover it using the"
        " correct recovery command. For help resolving this issue, please see"
        " https://go.microsoft.com/fwlink/?linkid=2125182",
    )


def disabled_secret() -> VaultError:
    """Return the error of reading a disabled secret.

    https://github.com/Azure/azure-sdk-for-js/issues/24756
    """
    message = "Operation get is not allowed on a disabled secret."
    return VaultError(403, "Forbidden", message, inner="SecretDisabled")


# ---- The contents of a vault: secrets, which are resources of the world below their vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a secret."""

    version: str
    value: str = field(repr=False)
    created: int
    """Seconds since 1970, as all times here."""
    updated: int
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None
    content_type: str | None = None
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret with its versions, the newest last."""

    id: str
    name: str
    """As it was first written; found in any case."""
    versions: tuple[Version, ...]


def secret_id(vault: Vault, name: str) -> str:
    """Return the id of a secret in the world."""
    return f"{vault.id}/secrets/{name}"


def secret_of(world: World, vault: Vault, name: str) -> Secret | None:
    """Return the secret of that name, or None."""
    return world.find(Secret, secret_id(vault, name))


# ---- Secrets as JSON, and their settings in a request

T = TypeVar("T")

RETENTION = 90
"""Days that a deleted secret can be recovered."""


def rendered(vault: Vault, secret: Secret, one: Version) -> dict[str, Any]:
    """Return a version with its value."""
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
        "value": one.value,
        "id": f"https://{vault.name.lower()}.vault.azure.net/secrets/{secret.name}/{one.version}",
        "attributes": attributes,
        **{name: value for name, value in more.items() if value is not None},
    }


def settings_of(body: Mapping[str, Any]) -> dict[str, Any]:
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


# ---- Operations


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultCall:
    """One authorized request to a vault."""

    world: World
    vault: Vault
    request: Request
    name: str
    version: str
    """"" for the newest."""

    @property
    def now(self) -> int:
        """Seconds since 1970."""
        return int(self.world.clock())

    def body(self) -> dict[str, Any]:
        """Return the JSON object that was sent; raise VaultError."""
        try:
            return self.request.json_object()
        except BadBody as error:
            raise bad_parameter(str(error)) from error

    def secret(self) -> Secret:
        """Return the secret of the path; raise VaultError."""
        found = secret_of(self.world, self.vault, self.name)
        if found is None:
            raise no_such_secret(self.name, self.version)
        return found


def put(call: VaultCall) -> Reply:
    """Make a new version of a secret."""
    body, old = call.body(), secret_of(call.world, call.vault, call.name)
    if not isinstance(body.get("value"), str):
        raise bad_parameter("Property value is required")
    new = Version(
        version=uuid.uuid4().hex,
        value=body["value"],
        created=call.now,
        updated=call.now,
        **settings_of(body),
    )
    first = Secret(id=secret_id(call.vault, call.name), name=call.name, versions=())
    secret = replace(old or first, versions=(*(old or first).versions, new))
    call.world.put(secret)
    return Reply.json(rendered(call.vault, secret, new))


def get(call: VaultCall) -> Reply:
    """Return a version of a secret with its value: the newest where none is named.

    Its times say nothing here: https://github.com/Azure/AzureKeyVault/issues/19.
    """
    secret = call.secret()
    one = _version(call, secret)
    if not one.enabled:
        raise disabled_secret()
    return Reply.json(rendered(call.vault, secret, one))


def _version(call: VaultCall, secret: Secret) -> Version:
    found = [one for one in secret.versions if call.version in ("", one.version)]
    if not found:
        raise no_such_secret(call.name, call.version)
    return found[-1]

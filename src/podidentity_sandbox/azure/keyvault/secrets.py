"""What can be done with secrets.

Not found in any document, and therefore a guess: the versions of a secret that does not exist are
an empty list.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from podidentity_sandbox.azure.keyvault import shapes
from podidentity_sandbox.azure.keyvault.errors import (
    VaultError,
    bad_parameter,
    disabled_secret,
    name_of_deleted_secret,
    no_such_deleted_secret,
    no_such_secret,
)
from podidentity_sandbox.azure.keyvault.store import Secret, Version, secret_id, secret_of
from podidentity_sandbox.azure.messages import BadBody, Reply, Request
from podidentity_sandbox.azure.state import Vault, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authorized request to a vault."""

    world: World
    vault: Vault
    request: Request
    name: str
    """"" where the path names no secret."""
    version: str

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
        if found is None or found.deleted is not None:
            raise no_such_secret(self.name, self.version)
        return found

    def deleted(self) -> tuple[Secret, int]:
        """Return the deleted secret of the path, and when it was deleted; raise VaultError."""
        found = secret_of(self.world, self.vault, self.name)
        if found is None or found.deleted is None:
            raise no_such_deleted_secret(self.name)
        return found, found.deleted


def put(call: Call) -> Reply:
    """Make a new version of a secret."""
    body, old = call.body(), secret_of(call.world, call.vault, call.name)
    if not isinstance(body.get("value"), str):
        raise bad_parameter("Property value is required")
    if old is not None and old.deleted is not None:
        raise name_of_deleted_secret(old.name)
    new = Version(
        version=uuid.uuid4().hex,
        value=body["value"],
        created=call.now,
        updated=call.now,
        **shapes.settings(body),
    )
    first = Secret(id=secret_id(call.vault, call.name), name=call.name, versions=())
    secret = replace(old or first, versions=(*(old or first).versions, new))
    call.world.put(secret)
    return Reply.json(_bundle(call, secret, new))


def get(call: Call) -> Reply:
    """Return a version of a secret with its value: the newest where none is named.

    Its times say nothing here: https://github.com/Azure/AzureKeyVault/issues/19.
    """
    secret = call.secret()
    one = _version(call, secret)
    if not one.enabled:
        raise disabled_secret()
    return Reply.json(_bundle(call, secret, one))


def update(call: Call) -> Reply:
    """Change what is said of a version, but not its value."""
    secret, settings = call.secret(), shapes.settings(call.body())
    old = _version(call, secret)
    new = replace(old, updated=call.now, **settings)
    versions = tuple(new if one is old else one for one in secret.versions)
    call.world.put(replace(secret, versions=versions))
    return Reply.json(shapes.item(call.vault, secret, new, versioned=True))


def delete(call: Call) -> Reply:
    """Delete a secret so that it can be recovered."""
    secret = call.secret()
    call.world.put(replace(secret, deleted=call.now))
    return Reply.json(shapes.deleted_item(call.vault, secret, call.now, versioned=True))


def list_secrets(call: Call) -> Reply:
    """List the secrets, in one page."""
    alive = [each for each in _all(call) if each.deleted is None]
    items = [shapes.item(call.vault, each, each.versions[-1], versioned=False) for each in alive]
    return _list(items)


def list_versions(call: Call) -> Reply:
    """List the versions of a secret, in one page."""
    try:
        secret = call.secret()
    except VaultError:
        return _list([])
    versions = sorted(secret.versions, key=lambda one: one.version)
    return _list([shapes.item(call.vault, secret, one, versioned=True) for one in versions])


def list_deleted(call: Call) -> Reply:
    """List the deleted secrets, in one page."""
    gone = [(each, each.deleted) for each in _all(call) if each.deleted is not None]
    items = [shapes.deleted_item(call.vault, each, when, versioned=False) for each, when in gone]
    return _list(items)


def get_deleted(call: Call) -> Reply:
    """Return a deleted secret, without its value."""
    secret, when = call.deleted()
    return Reply.json(shapes.deleted_item(call.vault, secret, when, versioned=True))


def recover(call: Call) -> Reply:
    """Take the deletion of a secret back."""
    secret, _ = call.deleted()
    call.world.put(replace(secret, deleted=None))
    return Reply.json(shapes.item(call.vault, secret, secret.versions[-1], versioned=True))


def purge(call: Call) -> Reply:
    """Delete a deleted secret for good."""
    secret, _ = call.deleted()
    call.world.remove(secret.id)
    return Reply(status=204)


def _all(call: Call) -> list[Secret]:
    return sorted(call.world.all(Secret, call.vault.id), key=lambda each: each.name.lower())


def _version(call: Call, secret: Secret) -> Version:
    found = [one for one in secret.versions if call.version in ("", one.version)]
    if not found:
        raise no_such_secret(call.name, call.version)
    return found[-1]


def _bundle(call: Call, secret: Secret, one: Version) -> Mapping[str, Any]:
    return {"value": one.value, **shapes.item(call.vault, secret, one, versioned=True)}


def _list(items: list[dict[str, Any]]) -> Reply:
    return Reply.json({"value": items, "nextLink": None})

"""What a vault holds: secrets, which are resources of the world below their vault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from podidentity_sandbox.azure.state import Vault, World


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
    deleted: int | None = None
    """When it was; until it is purged it can be recovered."""


def secret_id(vault: Vault, name: str) -> str:
    """Return the id of a secret in the world."""
    return f"{vault.id}/secrets/{name}"


def secret_of(world: World, vault: Vault, name: str) -> Secret | None:
    """Return the secret of that name, deleted or not, or None."""
    return world.find(Secret, secret_id(vault, name))

"""The contents of a storage account: containers, which are resources of the world, and blobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from types import MappingProxyType

from podidentity_sandbox.azure.state import StorageAccount, World

_TICKS = 10_000_000
"""In a second."""
_EPOCH = 621_355_968_000_000_000
"""Ticks from the year 1 to 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When something was last changed, which its ETag says as well."""

    ticks: int
    """Tenths of microseconds since the year 1."""

    @property
    def etag(self) -> str:
        """The ETag, without its quotes."""
        return f"0x{self.ticks:X}"

    @property
    def seconds(self) -> int:
        """Seconds since 1970."""
        return (self.ticks - _EPOCH) // _TICKS

    @property
    def date(self) -> str:
        """The same as HTTP says it."""
        return http_date(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A block blob."""

    content: bytes = field(repr=False)
    md5: str
    """Of the content, in base64."""
    headers: Mapping[str, str]
    """Content-Type and the other headers that a client stored with it."""
    metadata: Mapping[str, str]
    """By names as they were sent."""
    tier: str
    """"" where it follows the account's."""
    created: Stamp
    changed: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobContainer:
    """A container; its id is what a role assignment names as its scope."""

    id: str
    name: str
    metadata: Mapping[str, str]
    changed: Stamp
    blobs: Mapping[str, Blob] = field(default_factory=lambda: MappingProxyType({}), repr=False)


class StampSource:
    """Stamps changes: never twice the same, even if the clock stands still or goes back."""

    def __init__(self) -> None:
        self._last = 0

    def stamp(self, now: float) -> Stamp:
        """Return a new stamp; `now` is seconds since 1970."""
        self._last = max(self._last + 1, int(now * _TICKS) + _EPOCH)
        return Stamp(ticks=self._last)


def container_id(account: StorageAccount, name: str) -> str:
    """Return the ARM id of a container."""
    return f"{account.id}/blobServices/default/containers/{name}"


def container_of(world: World, account: StorageAccount, name: str) -> BlobContainer | None:
    """Return the container of that name, or None."""
    return world.find(BlobContainer, container_id(account, name))


def http_date(seconds: int) -> str:
    """Return seconds since 1970 as HTTP says it."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)

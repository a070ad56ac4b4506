"""What a handler of the blob service gets: one request, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from podidentity_sandbox.azure.blob.errors import no_such_container
from podidentity_sandbox.azure.blob.store import Clerk, Container, Stamp, container_of
from podidentity_sandbox.azure.messages import Request
from podidentity_sandbox.azure.state import StorageAccount, World

ROOT = "$root"
"""The container of blobs whose address names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to an account."""

    world: World
    clerk: Clerk
    account: StorageAccount
    request: Request
    container: str
    """Name; "" where the request is for the account."""
    blob: str
    """Name; "" where the request is for the container or the account."""

    @classmethod
    def read(cls, request: Request, account: StorageAccount, world: World, clerk: Clerk) -> Self:
        """Take a request apart."""
        path = unquote(request.target.partition("?")[0]).lstrip("/")
        container, _, blob = path.partition("/")
        if container and not blob and request.parameter("restype") != "container":
            container, blob = ROOT, container
        return cls(
            world=world,
            clerk=clerk,
            account=account,
            request=request,
            container=container,
            blob=blob,
        )

    def find(self) -> Container | None:
        """Return the container that is addressed, or None."""
        return container_of(self.world, self.account, self.container)

    def found(self) -> Container:
        """Return the container that is addressed; raise BlobError."""
        found = self.find()
        if found is None:
            raise no_such_container()
        return found

    def stamp(self) -> Stamp:
        """Return the stamp of a change made now."""
        return self.clerk.stamp(self.world.clock())

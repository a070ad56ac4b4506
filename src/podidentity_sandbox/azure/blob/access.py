"""Who may do what in an account: its keys everything, a token what roles allow, anybody the public.

The action that each operation needs:
https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory#permissions-for-blob-service-operations
Those on containers are ordinary actions, which Owner, Contributor and Reader have too; those on
blobs are data actions, which only the Storage Blob Data roles have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from podidentity_sandbox.azure.arm.call import roles_at
from podidentity_sandbox.azure.blob import bearer, sharedkey
from podidentity_sandbox.azure.blob.call import Call
from podidentity_sandbox.azure.blob.errors import (
    BlobError,
    malformed_authorization,
    not_authenticated,
    permission_mismatch,
    public_access_not_permitted,
)
from podidentity_sandbox.azure.blob.store import container_id
from podidentity_sandbox.azure.state import World

_CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one operation needs; any of the actions is enough."""

    actions: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    public: frozenset[str] = frozenset()
    """The levels of public access that open it to everybody."""


LIST_CONTAINERS = Need(actions=(f"{_CONTAINERS}/read",))
READ_CONTAINER = Need(actions=(f"{_CONTAINERS}/read",), public=frozenset({"container"}))
CREATE_CONTAINER = Need(actions=(f"{_CONTAINERS}/write",))
DELETE_CONTAINER = Need(actions=(f"{_CONTAINERS}/delete",))
LIST_BLOBS = Need(data=(f"{_CONTAINERS}/blobs/read",), public=frozenset({"container"}))
READ_BLOB = Need(data=(f"{_CONTAINERS}/blobs/read",), public=frozenset({"container", "blob"}))
OVERWRITE_BLOB = Need(data=(f"{_CONTAINERS}/blobs/write",))
CREATE_BLOB = Need(data=(f"{_CONTAINERS}/blobs/write", f"{_CONTAINERS}/blobs/add/action"))
DELETE_BLOB = Need(data=(f"{_CONTAINERS}/blobs/delete",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Lets in, or raises BlobError."""

    world: World
    keys: Callable[[], dict[str, Any]]
    """Reads the published JSON Web Key Set."""

    def check(self, call: Call, need: Need) -> None:
        """Raise BlobError unless the sender of the request may do what needs `need`."""
        authorization = call.request.headers.get("authorization")
        if authorization is None:
            self._check_public(call, need)
            return
        scheme, _, credentials = authorization.partition(" ")
        if not credentials.strip():
            raise malformed_authorization()
        if scheme == sharedkey.SCHEME:
            sharedkey.check(call.request, call.account, self.world.clock())
        elif scheme.lower() == "bearer":
            self._check_roles(call, need)
        else:
            raise not_authenticated(f"Authentication scheme {scheme} is not supported.")

    def _check_public(self, call: Call, need: Need) -> None:
        if not call.account.public_access:
            raise public_access_not_permitted()
        found = call.find()
        if found and found.public in need.public:
            return
        if call.request.headers.get("x-ms-version", "") >= bearer.CHALLENGED_SINCE:
            raise bearer.challenge(self.world, "NoAuthenticationInformation")
        raise BlobError(404, "ResourceNotFound", "The specified resource does not exist.")

    def _check_roles(self, call: Call, need: Need) -> None:
        caller = bearer.caller_of(call.request, self.world, call.account, self.keys)
        account = call.account
        scope = container_id(account, call.container) if call.container else account.id
        for role in roles_at(self.world, caller.object_id, scope):
            if any(role.allows(action) for action in need.actions):
                return
            if any(role.allows_data(action) for action in need.data):
                return
        raise permission_mismatch()

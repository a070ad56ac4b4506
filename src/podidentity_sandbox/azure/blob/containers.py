"""Containers: make, look at, delete.

https://learn.microsoft.com/rest/api/storageservices/operations-on-containers
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from podidentity_sandbox.azure.blob import conditions
from podidentity_sandbox.azure.blob.call import Call
from podidentity_sandbox.azure.blob.errors import (
    BlobError,
    invalid_header,
    public_access_not_permitted,
)
from podidentity_sandbox.azure.blob.store import Container, container_id
from podidentity_sandbox.azure.messages import Reply, Request

_NAME = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_PUBLIC = "x-ms-blob-public-access"
_META = "x-ms-meta-"


def create(call: Call) -> Reply:
    """Make a container."""
    _check_name(call.container)
    public = call.request.headers.get(_PUBLIC, "")
    if public not in {"", "container", "blob"}:
        raise invalid_header(_PUBLIC, public)
    if public and not call.account.public_access:
        # Also where the container exists: https://github.com/Azure/azure-sdk-for-net/issues/30864
        raise public_access_not_permitted()
    if call.find():
        message = "The specified container already exists."
        raise BlobError(409, "ContainerAlreadyExists", message)
    made = Container(
        id=container_id(call.account, call.container),
        name=call.container,
        public=public,
        metadata=metadata_of(call.request),
        changed=call.stamp(),
    )
    call.world.put(made)
    return Reply(status=201, headers=_stamped(made))


def show(call: Call) -> Reply:
    """Return the properties of a container, in headers."""
    container = call.found()
    conditions.check_read(call.request, container.changed)
    public = {_PUBLIC: container.public} if container.public else {}
    headers = {
        **_stamped(container),
        **public,
        **metadata_headers(container.metadata),
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-has-immutability-policy": "false",
        "x-ms-has-legal-hold": "false",
        "x-ms-immutable-storage-with-versioning-enabled": "false",
        "x-ms-default-encryption-scope": "$account-encryption-key",
        "x-ms-deny-encryption-scope-override": "false",
    }
    return Reply(headers=headers)


def delete(call: Call) -> Reply:
    """Delete a container with its blobs."""
    container = call.found()
    conditions.check_write(call.request, container.changed)
    call.world.remove(container.id)
    return Reply(status=202)


def metadata_of(request: Request) -> Mapping[str, str]:
    """Return the metadata that a request sets."""
    headers = request.headers.items()
    found = {name.removeprefix(_META): value for name, value in headers if name.startswith(_META)}
    return MappingProxyType(found)


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as headers."""
    return {f"{_META}{name}": value for name, value in metadata.items()}


def _check_name(name: str) -> None:
    """Raise BlobError unless a container may have this name.

    https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
    """
    if not 3 <= len(name) <= 63:
        message = "The specified resource name length is not within the permissible limits."
        raise BlobError(400, "OutOfRangeInput", message)
    if not _NAME.fullmatch(name):
        message = "The specified resource name contains invalid characters."
        raise BlobError(400, "InvalidResourceName", message)


def _stamped(container: Container) -> dict[str, str]:
    return {"ETag": f'"{container.changed.etag}"', "Last-Modified": container.changed.date}

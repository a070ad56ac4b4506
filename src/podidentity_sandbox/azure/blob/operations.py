"""Every operation of the blob service on one page: what is addressed, method, permission, handler.

Not served: blocks, pages and appends, leases, snapshots, tags, copies, shared access signatures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from podidentity_sandbox.azure.blob import access, blobs, containers, listing
from podidentity_sandbox.azure.blob.access import Need
from podidentity_sandbox.azure.blob.call import Call
from podidentity_sandbox.azure.blob.errors import BlobError, invalid_query
from podidentity_sandbox.azure.messages import Reply


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table."""

    need: Need
    do: Callable[[Call], Reply]


_LIST_CONTAINERS = Operation(access.LIST_CONTAINERS, listing.list_containers)
_LIST_BLOBS = Operation(access.LIST_BLOBS, listing.list_blobs)
_SHOW_CONTAINER = Operation(access.READ_CONTAINER, containers.show)
_GET_BLOB = Operation(access.READ_BLOB, blobs.get)
_OPERATIONS = {
    ("account", "list"): {"GET": _LIST_CONTAINERS},
    ("container", "list"): {"GET": _LIST_BLOBS},
    ("container", ""): {
        "GET": _SHOW_CONTAINER,
        "HEAD": _SHOW_CONTAINER,
        "PUT": Operation(access.CREATE_CONTAINER, containers.create),
        "DELETE": Operation(access.DELETE_CONTAINER, containers.delete),
    },
    ("blob", ""): {
        "GET": _GET_BLOB,
        "HEAD": _GET_BLOB,
        "PUT": Operation(access.OVERWRITE_BLOB, blobs.put),
        "DELETE": Operation(access.DELETE_BLOB, blobs.delete),
    },
}
_CREATE_BLOB = Operation(access.CREATE_BLOB, blobs.put)


def operation_of(call: Call) -> Operation:
    """Return what is asked; raise BlobError."""
    level = "blob" if call.blob else "container" if call.container else "account"
    comp = call.request.parameter("comp")
    methods = _OPERATIONS.get((level, comp))
    if methods is None:
        raise invalid_query("comp", comp)
    found = methods.get(call.request.method)
    if found is None:
        # https://github.com/Xabaril/AspNetCore.Diagnostics.HealthChecks/issues/741
        raise BlobError(
            405,
            "UnsupportedHttpVerb",
            "The resource doesn't support specified Http Verb.",
            headers={"Allow": ", ".join(methods)},
        )
    return _CREATE_BLOB if found.do is blobs.put and not _exists(call) else found


def _exists(call: Call) -> bool:
    container = call.find()
    return container is not None and call.blob in container.blobs

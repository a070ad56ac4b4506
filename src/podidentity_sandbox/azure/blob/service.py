"""The front of the blob service: version, operation, permission, in that order; then what is asked.

The Host header names the account, as in Azure:
https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from podidentity_sandbox.azure.blob import authorization, operations
from podidentity_sandbox.azure.blob.call import (
    XML,
    BlobCall,
    BlobError,
    http_date,
    invalid_header,
    invalid_query,
)
from podidentity_sandbox.azure.messages import BODY_LIMIT, Reply, Request
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuer


class BlobOperation(NamedTuple):
    """One row of the table."""

    do: Callable[[BlobCall], Reply]
    needed: tuple[str, ...]
    """The actions below containers of which one is enough."""


_SHOW_CONTAINER = BlobOperation(operations.show_container, ("read",))
_GET_BLOB = BlobOperation(operations.get_blob, ("blobs/read",))
_OPERATIONS = {
    ("account", "list"): {"GET": BlobOperation(operations.list_containers, ("read",))},
    ("container", "list"): {"GET": BlobOperation(operations.list_blobs, ("blobs/read",))},
    ("container", ""): {
        "GET": _SHOW_CONTAINER,
        "HEAD": _SHOW_CONTAINER,
        "PUT": BlobOperation(operations.create_container, ("write",)),
        "DELETE": BlobOperation(operations.delete_container, ("delete",)),
    },
    ("blob", ""): {
        "GET": _GET_BLOB,
        "HEAD": _GET_BLOB,
        "PUT": BlobOperation(operations.put_blob, ("blobs/write",)),
        "DELETE": BlobOperation(operations.delete_blob, ("blobs/delete",)),
    },
}
_CREATE_BLOB = BlobOperation(operations.put_blob, ("blobs/write", "blobs/add/action"))


def operation_of(call: BlobCall) -> BlobOperation:
    level = "blob" if call.blob else "container" if call.container else "account"
    comp = call.request.parameter("comp")
    methods = _OPERATIONS.get((level, comp))
    if methods is None:
        raise invalid_query("comp", comp)
    found = methods.get(call.request.method)
    if found is None:
        raise BlobError("UnsupportedHttpVerb", headers={"Allow": ", ".join(methods)})
    container = call.find()
    exists = container is not None and call.blob in container.blobs
    return _CREATE_BLOB if found.do is operations.put_blob and not exists else found


# ---- The front

SUFFIX = ".blob.core.windows.net"
_REPEATED = ("x-ms-version", "x-ms-client-request-id")
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}")


class BlobService:
    """All accounts' blob service."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._keys = issuer.jwks

    def handle(self, request: Request) -> Reply:
        request_id, now = str(uuid.uuid4()), self._world.clock()
        try:
            reply = self._answer(request)
        except BlobError as error:
            when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
            body = b"" if error.status == 304 else error.body(request_id, when)
            told = {**error.headers, "x-ms-error-code": error.code}
            reply = Reply(status=error.status, body=body, headers=told, content_type=XML)
        headers = {
            "Server": "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0",
            "Date": http_date(int(now)),
            "x-ms-request-id": request_id,
            **{name: request.headers[name] for name in _REPEATED if name in request.headers},
        }
        return replace(reply, headers={**headers, **reply.headers})

    def _answer(self, request: Request) -> Reply:
        account = self._world.account(request.host.removesuffix(SUFFIX))
        if account is None:
            raise BlobError("ResourceNotFound")
        version = request.headers.get("x-ms-version")
        if version is not None and not _VERSION.fullmatch(version):
            raise invalid_header("x-ms-version", version)
        call = BlobCall.read(request, account, self._world)
        operation = operation_of(call)
        if request.too_large:
            raise BlobError("RequestBodyTooLarge", more={"MaxLimit": str(BODY_LIMIT)})
        authorization.check(call, operation.needed, self._keys)
        return operation.do(call)

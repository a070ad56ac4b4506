"""The front of the blob service: version, operation, permission, in that order; then what is asked.

The Host header names the account, as in Azure:
https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime

from podidentity_sandbox.azure.blob.access import Gate
from podidentity_sandbox.azure.blob.call import Call
from podidentity_sandbox.azure.blob.errors import XML, BlobError, invalid_header
from podidentity_sandbox.azure.blob.operations import operation_of
from podidentity_sandbox.azure.blob.store import Clerk, http_date
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuer

SUFFIX = ".blob.core.windows.net"
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}")


class BlobService:
    """All accounts' blob service."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._gate = Gate(world=world, keys=issuer.jwks)
        self._clerk = Clerk()

    def handle(self, request: Request) -> Reply:
        """Answer one request to ACCOUNT.blob.core.windows.net; the account must exist."""
        request_id, now = str(uuid.uuid4()), self._world.clock()
        try:
            reply = self._answer(request)
        except BlobError as error:
            when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
            reply = _refused(error, request_id, when)
        headers = {
            "Server": "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0",
            "Date": http_date(int(now)),
            "x-ms-request-id": request_id,
            **_echo(request),
        }
        return replace(reply, headers={**headers, **reply.headers})

    def _answer(self, request: Request) -> Reply:
        account = self._world.account(request.host.removesuffix(SUFFIX))
        if account is None:
            message = "The specified resource does not exist."
            raise BlobError(404, "ResourceNotFound", message)
        version = request.headers.get("x-ms-version")
        if version is not None and not _VERSION.fullmatch(version):
            raise invalid_header("x-ms-version", version)
        call = Call.read(request, account, self._world, self._clerk)
        operation = operation_of(call)
        self._gate.check(call, operation.need)
        return operation.do(call)


def _refused(error: BlobError, request_id: str, when: str) -> Reply:
    headers = {**error.headers, "x-ms-error-code": error.code}
    body = b"" if error.status == 304 else error.body(request_id, when)
    return Reply(status=error.status, body=body, headers=headers, content_type=XML)


def _echo(request: Request) -> dict[str, str]:
    names = ("x-ms-version", "x-ms-client-request-id")
    return {name: request.headers[name] for name in names if name in request.headers}

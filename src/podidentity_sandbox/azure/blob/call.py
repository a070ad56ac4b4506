"""A request to the blob service, taken apart for its handler, and the refusals: XML, code, words.

Codes and messages: https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
and https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes. Where those pages
do not say it, the comment names a report that shows the real answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote
from xml.sax.saxutils import escape

from podidentity_sandbox.azure.blob.store import BlobContainer, Stamp, StampSource, container_of
from podidentity_sandbox.azure.messages import BODY_LIMIT, NO_HEADERS, Request
from podidentity_sandbox.azure.state import StorageAccount, World

# ---- Refusals

XML = "application/xml"
BOM = "\ufeff"
"""The service's XML starts with one."""


class BlobError(Exception):
    """A refusal; `more` are the elements that follow code and message."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        more: Mapping[str, str] = NO_HEADERS,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.more = more
        self.headers = headers

    def body(self, request_id: str, when: str) -> bytes:
        """Return the XML that says so."""
        message = f"{self}\nRequestId:{request_id}\nTime:{when}"
        more = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in self.more.items())
        error = f"<Error><Code>{self.code}</Code><Message>{escape(message)}</Message>{more}</Error>"
        return f'{BOM}<?xml version="1.0" encoding="utf-8"?>{error}'.encode()


def not_authenticated(detail: str) -> BlobError:
    """Return the error of a signature, or of an old client's token, that is worth nothing.

    The detail: https://github.com/Azure/azure-sdk-for-java/issues/8667.
    """
    return BlobError(
        403,
        "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header is"
        " formed correctly including the signature.",
        more={"AuthenticationErrorDetail": detail},
    )


def malformed_authorization() -> BlobError:
    """Return the error of an Authorization header that is none."""
    return BlobError(
        400,
        "InvalidAuthenticationInfo",
        "Authentication information is not given in the correct format. Check the value of"
        " Authorization header.",
    )


def public_access_not_permitted() -> BlobError:
    """Return the error of an anonymous request to an account that allows none.

    https://github.com/blobfile/blobfile/issues/139
    """
    message = "Public access is not permitted on this storage account."
    return BlobError(409, "PublicAccessNotPermitted", message)


def permission_mismatch() -> BlobError:
    """Return the error of a caller who has no role for what he asks.

    https://github.com/Azure/azure-storage-blob-go/issues/183
    """
    return BlobError(
        403,
        "AuthorizationPermissionMismatch",
        "This request is not authorized to perform this operation using this permission.",
    )


def invalid_header(name: str, value: str) -> BlobError:
    """Return the error of a header whose value makes no sense.

    With name and value: https://github.com/Azure/azure-rest-api-specs/issues/8947.
    """
    return BlobError(
        400,
        "InvalidHeaderValue",
        "The value for one of the HTTP headers is not in the correct format.",
        more={"HeaderName": name, "HeaderValue": value},
    )


def invalid_query(name: str, value: str) -> BlobError:
    """Return the error of a query parameter whose value makes no sense, or is not served."""
    return BlobError(
        400,
        "InvalidQueryParameterValue",
        "Value for one of the query parameters specified in the request URI is invalid.",
        more={"QueryParameterName": name, "QueryParameterValue": value},
    )


def body_too_large() -> BlobError:
    """Return the error of a body that is larger than one request may have.

    https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
    """
    return BlobError(
        413,
        "RequestBodyTooLarge",
        "The request body is too large and exceeds the maximum permissible limit.",
        more={"MaxLimit": str(BODY_LIMIT)},
    )


def no_such_container() -> BlobError:
    """Return the error of a container that is not there."""
    return BlobError(404, "ContainerNotFound", "The specified container does not exist.")


def no_such_blob() -> BlobError:
    """Return the error of a blob that is not there."""
    return BlobError(404, "BlobNotFound", "The specified blob does not exist.")


def condition_not_met(status: int = 412) -> BlobError:
    """Return the error of a condition that does not hold."""
    message = "The condition specified using HTTP conditional header(s) is not met."
    return BlobError(status, "ConditionNotMet", message)


# ---- The request

ROOT = "$root"
"""The container of blobs whose address names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobCall:
    """One request to an account."""

    world: World
    clerk: StampSource
    account: StorageAccount
    request: Request
    container: str
    """Name; "" where the request is for the account."""
    blob: str
    """Name; "" where the request is for the container or the account."""

    @classmethod
    def read(
        cls, request: Request, account: StorageAccount, world: World, clerk: StampSource
    ) -> Self:
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

    def find(self) -> BlobContainer | None:
        """Return the container that is addressed, or None."""
        return container_of(self.world, self.account, self.container)

    def found(self) -> BlobContainer:
        """Return the container that is addressed; raise BlobError."""
        found = self.find()
        if found is None:
            raise no_such_container()
        return found

    def stamp(self) -> Stamp:
        """Return the stamp of a change made now."""
        return self.clerk.stamp(self.world.clock())

"""A request to the blob service and what it is about: containers, blobs, and the refusals.

Refusals are XML with a code and words: https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
and https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes. Where those pages
do not say it, the comment names a report that shows the real answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Self
from urllib.parse import unquote
from xml.sax.saxutils import escape

from podidentity_sandbox.azure.messages import NO_HEADERS, Request
from podidentity_sandbox.azure.state import StorageAccount, World

# ---- The contents of an account: containers, which are resources of the world, and blobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The last change of something: when it was, and the ETag that no other has."""

    seconds: int
    """Since 1970."""
    etag: str = field(default_factory=lambda: f"0x{secrets.token_hex(8).upper()}")
    """Without its quotes."""

    @property
    def date(self) -> str:
        return http_date(self.seconds)

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": f'"{self.etag}"', "Last-Modified": self.date}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A block blob."""

    content: bytes = field(repr=False)
    md5: str
    """Of the content, in base64."""
    headers: Mapping[str, str]
    """Content-Type and the other headers that a client stored with it."""
    created: Stamp
    changed: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobContainer:
    """A container; its id is what a role assignment names as its scope."""

    id: str
    name: str
    changed: Stamp
    blobs: Mapping[str, Blob] = field(default_factory=dict, repr=False)


def container_id(account: StorageAccount, name: str) -> str:
    return f"{account.id}/blobServices/default/containers/{name}"


def http_date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


# ---- Refusals

XML = "application/xml"
BOM = "\ufeff"
"""The service's XML starts with one."""


_WORDS: Mapping[int, Mapping[str, str]] = {
    400: {
        "InvalidAuthenticationInfo": "Authentication information is not given in the correct"
        " format. Check the value of Authorization header.",
        # With name and value: https://github.com/Azure/azure-rest-api-specs/issues/8947.
        "InvalidHeaderValue": "The value for one of the HTTP headers is not in the correct format.",
        "InvalidQueryParameterValue": "Value for one of the query parameters specified in the"
        " request URI is invalid.",
        "InvalidResourceName": "The specified resource name contains invalid characters.",
        "Md5Mismatch": "The MD5 value specified in the request did not match with the MD5 value"
        " calculated by the server.",
        "MissingRequiredHeader": "An HTTP header that's mandatory for this request is not"
        " specified.",
        "OutOfRangeInput": "The specified resource name length is not within the permissible"
        " limits.",
        "OutOfRangeQueryParameterValue": "One of the query parameters specified in the request URI"
        " is outside the permissible range.",
    },
    403: {
        # https://github.com/Azure/azure-sdk-for-java/issues/8667
        "AuthenticationFailed": "Server failed to authenticate the request. Make sure the value of"
        " Authorization header is formed correctly including the signature.",
        # https://github.com/Azure/azure-storage-blob-go/issues/183
        "AuthorizationPermissionMismatch": "This request is not authorized to perform this"
        " operation using this permission.",
    },
    404: {
        "BlobNotFound": "The specified blob does not exist.",
        "ContainerNotFound": "The specified container does not exist.",
        "ResourceNotFound": "The specified resource does not exist.",
    },
    # https://github.com/Xabaril/AspNetCore.Diagnostics.HealthChecks/issues/741
    405: {"UnsupportedHttpVerb": "The resource doesn't support specified Http Verb."},
    409: {
        "BlobAlreadyExists": "The specified blob already exists.",
        "ContainerAlreadyExists": "The specified container already exists.",
        # Also of an anonymous request: https://github.com/blobfile/blobfile/issues/139.
        "PublicAccessNotPermitted": "Public access is not permitted on this storage account.",
    },
    412: {
        "ConditionNotMet": "The condition specified using HTTP conditional header(s) is not met."
    },
    413: {
        "RequestBodyTooLarge": "The request body is too large and exceeds the maximum permissible"
        " limit."
    },
    416: {"InvalidRange": "The range specified is invalid for the current size of the resource."},
}
_STATUSES = {code: status for status, codes in _WORDS.items() for code in codes}


class BlobError(Exception):
    """A refusal by its code; `more` are the elements that follow code and message."""

    def __init__(
        self,
        code: str,
        *,
        more: Mapping[str, str] = NO_HEADERS,
        headers: Mapping[str, str] = NO_HEADERS,
        instead: tuple[int, str] | None = None,
    ) -> None:
        """`instead` is another status and message than those that the code has elsewhere."""
        status = _STATUSES[code]
        self.status, message = instead or (status, _WORDS[status][code])
        super().__init__(message)
        self.code = code
        self.more = more
        self.headers = headers

    def body(self, request_id: str, when: str) -> bytes:
        message = f"{self}\nRequestId:{request_id}\nTime:{when}"
        more = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in self.more.items())
        error = f"<Error><Code>{self.code}</Code><Message>{escape(message)}</Message>{more}</Error>"
        return f'{BOM}<?xml version="1.0" encoding="utf-8"?>{error}'.encode()


def not_authenticated(detail: str) -> BlobError:
    """Return the error of a signature, or of an old client's token, that is worth nothing."""
    return BlobError("AuthenticationFailed", more={"AuthenticationErrorDetail": detail})


def invalid_header(name: str, value: str) -> BlobError:
    """Return the error of a header whose value makes no sense."""
    return BlobError("InvalidHeaderValue", more={"HeaderName": name, "HeaderValue": value})


def invalid_query(name: str, value: str) -> BlobError:
    """Return the error of a query parameter whose value makes no sense, or is not served."""
    more = {"QueryParameterName": name, "QueryParameterValue": value}
    return BlobError("InvalidQueryParameterValue", more=more)


# ---- The request

ROOT = "$root"
"""The container of blobs whose address names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobCall:
    """One request to an account."""

    world: World
    account: StorageAccount
    request: Request
    container: str
    """Name; "" where the request is for the account."""
    blob: str
    """Name; "" where the request is for the container or the account."""

    @classmethod
    def read(cls, request: Request, account: StorageAccount, world: World) -> Self:
        path = unquote(request.target.partition("?")[0]).lstrip("/")
        container, _, blob = path.partition("/")
        if container and not blob and request.parameter("restype") != "container":
            container, blob = ROOT, container
        return cls(world=world, account=account, request=request, container=container, blob=blob)

    def find(self) -> BlobContainer | None:
        return self.world.find(BlobContainer, container_id(self.account, self.container))

    def found(self) -> BlobContainer:
        """Return the container that is addressed; raise BlobError."""
        found = self.find()
        if found is None:
            raise BlobError("ContainerNotFound")
        return found

    def stamp(self) -> Stamp:
        return Stamp(seconds=int(self.world.clock()))

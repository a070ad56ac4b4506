"""Block blobs that one request writes: put, get, look at, delete.

https://learn.microsoft.com/rest/api/storageservices/operations-on-blobs
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, replace
from types import MappingProxyType

from podidentity_sandbox.azure.blob import conditions
from podidentity_sandbox.azure.blob.call import BlobCall, BlobError, invalid_header
from podidentity_sandbox.azure.blob.containers import metadata_headers, metadata_of
from podidentity_sandbox.azure.blob.store import Blob
from podidentity_sandbox.azure.messages import Reply, Request

_RANGE = re.compile(r"bytes=(?P<first>\d+)-(?P<last>\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """The bytes from `first` to `last`, both included, of `size`."""

    first: int
    last: int
    size: int

    @property
    def content_range(self) -> str:
        """The header that says so."""
        return f"bytes {self.first}-{self.last}/{self.size}"

    def of(self, content: bytes) -> bytes:
        """Return these bytes."""
        return content[self.first : self.last + 1]


def part_of(request: Request, size: int) -> ByteRange | None:
    """Return the part that is asked for, None for all; raise BlobError."""
    name = "x-ms-range" if "x-ms-range" in request.headers else "range"
    sent = request.headers.get(name)
    if sent is None:
        return None
    match = _RANGE.fullmatch(sent.strip())
    if match is None or (match["last"] and int(match["last"]) < int(match["first"])):
        raise invalid_header(name.title() if name == "range" else name, sent)
    first = int(match["first"])
    if first >= size:
        raise BlobError("InvalidRange", headers={"Content-Range": f"bytes */{size}"})
    last = min(int(match["last"] or size - 1), size - 1)
    return ByteRange(first=first, last=last, size=size)


# ---- Operations

_TYPE = "x-ms-blob-type"
_TIER = "x-ms-access-tier"
_TIERS = {"Hot", "Cool", "Cold", "Archive"}
# What a client may store beside the content, and the plain header that does as well.
_STORED = {
    "Content-Type": ("x-ms-blob-content-type", "content-type"),
    "Content-Encoding": ("x-ms-blob-content-encoding", "content-encoding"),
    "Content-Language": ("x-ms-blob-content-language", "content-language"),
    "Cache-Control": ("x-ms-blob-cache-control", "cache-control"),
    "Content-Disposition": ("x-ms-blob-content-disposition",),
}
_DEFAULT_TYPE = {"Content-Type": "application/octet-stream"}


def put(call: BlobCall) -> Reply:
    """Write a whole blob."""
    container, request = call.found(), call.request
    _check_kind(request)
    old = container.blobs.get(call.blob)
    conditions.check_write(request, old.changed if old else None)
    digest = _checked_digest(request)
    stamp = call.stamp()
    new = Blob(
        content=request.body,
        md5=request.headers.get("x-ms-blob-content-md5", digest),
        headers=MappingProxyType({**_DEFAULT_TYPE, **_stored(request)}),
        metadata=metadata_of(request),
        tier=_tier(request),
        created=old.created if old else stamp,
        changed=stamp,
    )
    blobs = MappingProxyType({**container.blobs, call.blob: new})
    call.world.put(replace(container, blobs=blobs))
    headers = {"Content-MD5": digest, "x-ms-request-server-encrypted": "true"}
    return Reply(status=201, headers={**_stamped(new), **headers})


def get(call: BlobCall) -> Reply:
    """Return a blob, or the part of it that is asked for; to HEAD all but the bytes."""
    blob, request = _existing(call), call.request
    conditions.check_read(request, blob.changed)
    kind = blob.headers["Content-Type"]
    headers = _headers(blob)
    part = None if request.method == "HEAD" else part_of(request, len(blob.content))
    if part is None:
        whole = {"Content-MD5": blob.md5}
        return Reply(body=blob.content, headers={**headers, **whole}, content_type=kind)
    content = part.of(blob.content)
    some = {"Content-Range": part.content_range, "x-ms-blob-content-md5": blob.md5}
    if request.headers.get("x-ms-range-get-content-md5", "").lower() == "true":
        some["Content-MD5"] = _md5(content)
    return Reply(status=206, body=content, headers={**headers, **some}, content_type=kind)


def delete(call: BlobCall) -> Reply:
    """Delete a blob for good."""
    container = call.found()
    old = container.blobs.get(call.blob)
    conditions.check_delete(call.request, old.changed if old else None)
    rest = {name: blob for name, blob in container.blobs.items() if name != call.blob}
    call.world.put(replace(container, blobs=MappingProxyType(rest)))
    return Reply(status=202, headers={"x-ms-delete-type-permanent": "true"})


def _existing(call: BlobCall) -> Blob:
    found = call.found().blobs.get(call.blob)
    if found is None:
        raise BlobError("BlobNotFound")
    return found


def _check_kind(request: Request) -> None:
    kind = request.headers.get(_TYPE)
    if kind is None:
        raise BlobError("MissingRequiredHeader", more={"HeaderName": _TYPE})
    if kind != "BlockBlob":  # page and append blobs are not served
        raise invalid_header(_TYPE, kind)


def _tier(request: Request) -> str:
    tier = request.headers.get(_TIER, "")
    if tier and tier not in _TIERS:
        raise invalid_header(_TIER, tier)
    return tier


def _checked_digest(request: Request) -> str:
    digest = _md5(request.body)
    sent = request.headers.get("content-md5", digest)
    if sent != digest:
        more = {"UserSpecifiedMd5": sent, "ServerCalculatedMd5": digest}
        raise BlobError("Md5Mismatch", more=more)
    return digest


def _stored(request: Request) -> dict[str, str]:
    found = {
        header: next((request.headers[name] for name in names if request.headers.get(name)), "")
        for header, names in _STORED.items()
    }
    return {header: value for header, value in found.items() if value}


def _headers(blob: Blob) -> dict[str, str]:
    tier = {_TIER: blob.tier} if blob.tier else {_TIER: "Hot", "x-ms-access-tier-inferred": "true"}
    return {
        **_stamped(blob),
        **blob.headers,
        **metadata_headers(blob.metadata),
        **tier,
        "Accept-Ranges": "bytes",
        "x-ms-creation-time": blob.created.date,
        "x-ms-blob-type": "BlockBlob",
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-server-encrypted": "true",
    }


def _stamped(blob: Blob) -> dict[str, str]:
    return {"ETag": f'"{blob.changed.etag}"', "Last-Modified": blob.changed.date}


def _md5(content: bytes) -> str:
    # The service's checksum, not a secret's.
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()

"""What the blob service does with containers and with block blobs, and the lists of both.

A request writes a whole block blob. What is deleted is gone: there is no soft delete.

https://learn.microsoft.com/rest/api/storageservices/operations-on-containers,
https://learn.microsoft.com/rest/api/storageservices/operations-on-blobs
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import islice
from xml.sax.saxutils import escape, quoteattr

from podidentity_sandbox.azure.blob.call import (
    BOM,
    XML,
    Blob,
    BlobCall,
    BlobContainer,
    BlobError,
    Stamp,
    container_id,
    invalid_header,
    invalid_query,
)
from podidentity_sandbox.azure.messages import Reply, Request

# ---- Conditional headers
#
# https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations


def _check_read(request: Request, changed: Stamp) -> None:
    """Raise BlobError unless the conditions let a blob of that time be read."""
    if _tag(request, "if-none-match") == "*":
        raise invalid_header("If-None-Match", "*")
    if _is_known(request, changed):
        raise BlobError("ConditionNotMet", instead=(304, ""))


def _check_write(request: Request, changed: Stamp | None) -> None:
    """Raise BlobError unless a blob, None where there is none yet, may be written."""
    if changed is None:
        if _tag(request, "if-match"):
            raise BlobError("ConditionNotMet")
        return
    if _tag(request, "if-none-match") == "*":
        raise BlobError("BlobAlreadyExists")
    if _is_known(request, changed):
        raise BlobError("ConditionNotMet")


def _is_known(request: Request, changed: Stamp) -> bool:
    """Return whether the client has it as it is; raise BlobError where it wants another one."""
    wanted = _tag(request, "if-match")
    before = _seconds(request, "if-unmodified-since")
    if wanted not in {"", "*", changed.etag} or (before is not None and changed.seconds > before):
        raise BlobError("ConditionNotMet")
    since = _seconds(request, "if-modified-since")
    newest = since is not None and changed.seconds <= since
    return newest or _tag(request, "if-none-match") == changed.etag


def _tag(request: Request, name: str) -> str:
    return request.headers.get(name, "").strip().strip('"')


def _seconds(request: Request, name: str) -> float | None:
    sent = request.headers.get(name)
    if not sent:
        return None
    try:
        when = parsedate_to_datetime(sent)
    except ValueError as error:
        raise invalid_header(name.title(), sent) from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


# ---- Containers

_CAPITAL = re.compile("(?=[A-Z])")
_NAME = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_PUBLIC = "x-ms-blob-public-access"
_OF_CONTAINERS = {
    "LeaseStatus": "unlocked",
    "LeaseState": "available",
    "DefaultEncryptionScope": "$account-encryption-key",
    "DenyEncryptionScopeOverride": "false",
    "HasImmutabilityPolicy": "false",
    "HasLegalHold": "false",
    "ImmutableStorageWithVersioningEnabled": "false",
}
"""What a list says of each; a container's own answer says it in headers."""


def create_container(call: BlobCall) -> Reply:
    # https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
    if not 3 <= len(call.container) <= 63:
        raise BlobError("OutOfRangeInput")
    if not _NAME.fullmatch(call.container):
        raise BlobError("InvalidResourceName")
    _check_served(call.request)
    if _PUBLIC in call.request.headers:
        # Also where the container exists: https://github.com/Azure/azure-sdk-for-net/issues/30864
        raise BlobError("PublicAccessNotPermitted")
    if call.find():
        raise BlobError("ContainerAlreadyExists")
    name = call.container
    made = BlobContainer(id=container_id(call.account, name), name=name, changed=call.stamp())
    call.world.put(made)
    return Reply(status=201, headers=made.changed.headers)


def show_container(call: BlobCall) -> Reply:
    """Return the properties of a container, in headers."""
    container = call.found()
    _check_read(call.request, container.changed)
    return Reply(headers={**container.changed.headers, **_as_headers(_OF_CONTAINERS)})


def delete_container(call: BlobCall) -> Reply:
    container = call.found()
    _check_write(call.request, container.changed)
    call.world.remove(container.id)
    return Reply(status=202)


def _as_headers(properties: Mapping[str, str]) -> dict[str, str]:
    """Return properties of a list by their names as headers: `LeaseState`, `x-ms-lease-state`."""
    return {f"x-ms{_CAPITAL.sub('-', key).lower()}": value for key, value in properties.items()}


# ---- Blobs

_TYPE = "x-ms-blob-type"
_RANGE = re.compile(r"bytes=(?P<first>\d+)-(?P<last>\d*)")
# What a client may store beside the content, and the plain header that does as well.
_STORED = {
    "Content-Type": ("x-ms-blob-content-type", "content-type"),
    "Content-Encoding": ("x-ms-blob-content-encoding", "content-encoding"),
    "Content-Language": ("x-ms-blob-content-language", "content-language"),
    "Cache-Control": ("x-ms-blob-cache-control", "cache-control"),
    "Content-Disposition": ("x-ms-blob-content-disposition",),
}
_OF_BLOBS = {
    "BlobType": "BlockBlob",
    "AccessTier": "Hot",
    "AccessTierInferred": "true",
    "LeaseStatus": "unlocked",
    "LeaseState": "available",
    "ServerEncrypted": "true",
}
_NOT_STORED = ("x-ms-meta-", "x-ms-access-tier", "x-ms-tags")


def put_blob(call: BlobCall) -> Reply:
    container, request = call.found(), call.request
    kind = request.headers.get(_TYPE)
    if kind is None:
        raise BlobError("MissingRequiredHeader", more={"HeaderName": _TYPE})
    if kind != "BlockBlob":  # page and append blobs are not served
        raise invalid_header(_TYPE, kind)
    _check_served(request)
    old = container.blobs.get(call.blob)
    _check_write(request, old.changed if old else None)
    digest = _md5(request.body)
    sent = request.headers.get("content-md5", digest)
    if sent != digest:
        more = {"UserSpecifiedMd5": sent, "ServerCalculatedMd5": digest}
        raise BlobError("Md5Mismatch", more=more)
    stamp = call.stamp()
    new = Blob(
        content=request.body,
        md5=request.headers.get("x-ms-blob-content-md5", digest),
        headers=_stored(request),
        created=old.created if old else stamp,
        changed=stamp,
    )
    call.world.put(replace(container, blobs={**container.blobs, call.blob: new}))
    headers = {"Content-MD5": digest, "x-ms-request-server-encrypted": "true"}
    return Reply(status=201, headers={**stamp.headers, **headers})


def get_blob(call: BlobCall) -> Reply:
    """Return a blob, or the part of it that is asked for; to HEAD all but the bytes."""
    blob, request = call.found().blobs.get(call.blob), call.request
    if blob is None:
        raise BlobError("BlobNotFound")
    _check_read(request, blob.changed)
    headers = {
        **blob.changed.headers,
        **blob.headers,
        **_as_headers({**_OF_BLOBS, "CreationTime": blob.created.date}),
        "Accept-Ranges": "bytes",
    }
    kind, size = blob.headers["Content-Type"], len(blob.content)
    part = None if request.method == "HEAD" else _part_of(request, size)
    if part is None:
        headers["Content-MD5"] = blob.md5
        return Reply(body=blob.content, headers=headers, content_type=kind)
    first, last = part
    content = blob.content[first : last + 1]
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["x-ms-blob-content-md5"] = blob.md5
    if request.headers.get("x-ms-range-get-content-md5", "").lower() == "true":
        headers["Content-MD5"] = _md5(content)
    return Reply(status=206, body=content, headers=headers, content_type=kind)


def delete_blob(call: BlobCall) -> Reply:
    container = call.found()
    old = container.blobs.get(call.blob)
    if old is None:
        raise BlobError("BlobNotFound")
    _check_write(call.request, old.changed)
    rest = {name: blob for name, blob in container.blobs.items() if name != call.blob}
    call.world.put(replace(container, blobs=rest))
    return Reply(status=202, headers={"x-ms-delete-type-permanent": "true"})


def _part_of(request: Request, size: int) -> tuple[int, int] | None:
    """Return the first and the last byte that are asked for, None for all; raise BlobError."""
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
    return first, min(int(match["last"] or size - 1), size - 1)


def _check_served(request: Request) -> None:
    """Raise BlobError where a request would store what is not kept here."""
    for name, value in request.headers.items():
        if name.startswith(_NOT_STORED):
            raise invalid_header(name, value)


def _stored(request: Request) -> dict[str, str]:
    found = {"Content-Type": "application/octet-stream"}
    for header, names in _STORED.items():
        if sent := next(filter(None, map(request.headers.get, names)), None):
            found[header] = sent
    return found


def _md5(content: bytes) -> str:
    # The service's checksum, not a secret's.
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


# ---- Lists of containers and of blobs, page by page.
#
# https://learn.microsoft.com/rest/api/storageservices/list-blobs and .../list-containers2. A marker
# is opaque to clients; ours is the name at which the next page begins.

PAGE = 5000
"""The most that one page holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ListQuery:
    prefix: str
    marker: str
    most: int

    def echo(self) -> str:
        """Return the parameters of the request, as the answer repeats them."""
        asked = {"Prefix": self.prefix, "Marker": self.marker}
        return "".join(_element(name, value) for name, value in asked.items() if value)


def list_containers(call: BlobCall) -> Reply:
    ask = _asked(call.request)
    found = {each.name: each for each in call.world.all(BlobContainer, call.account.id)}
    page, following = _page(sorted(found), ask)
    entries = "".join(_container(found[name]) for name in page)
    return _answer(call, "", ask, f"<Containers>{entries}</Containers>", following)


def list_blobs(call: BlobCall) -> Reply:
    ask, container = _asked(call.request), call.found()
    page, following = _page(sorted(container.blobs), ask)
    entries = "".join(_blob(name, container.blobs[name]) for name in page)
    where = f" ContainerName={quoteattr(container.name)}"
    return _answer(call, where, ask, f"<Blobs>{entries}</Blobs>", following)


def _asked(request: Request) -> _ListQuery:
    sent, delimiter = request.parameter("maxresults"), request.parameter("delimiter")
    if delimiter:
        raise invalid_query("delimiter", delimiter)
    if sent and not sent.isdigit():
        raise invalid_query("maxresults", sent)
    if sent and int(sent) == 0:
        raise BlobError("OutOfRangeQueryParameterValue")
    return _ListQuery(
        prefix=request.parameter("prefix"),
        marker=request.parameter("marker"),
        most=min(int(sent or PAGE), PAGE),
    )


def _page(names: list[str], ask: _ListQuery) -> tuple[list[str], str]:
    wanted = (n for n in names if n.startswith(ask.prefix) and n >= ask.marker)
    found = list(islice(wanted, ask.most + 1))
    return found[: ask.most], found[ask.most] if len(found) > ask.most else ""


def _answer(call: BlobCall, where: str, ask: _ListQuery, entries: str, following: str) -> Reply:
    endpoint = quoteattr(f"https://{call.account.name}.blob.core.windows.net/")
    xml = (
        f'{BOM}<?xml version="1.0" encoding="utf-8"?>'
        f"<EnumerationResults ServiceEndpoint={endpoint}{where}>{ask.echo()}"
        f"{_element('MaxResults', str(ask.most))}{entries}{_element('NextMarker', following)}"
        "</EnumerationResults>"
    )
    return Reply(body=xml.encode(), content_type=XML)


def _container(container: BlobContainer) -> str:
    properties = {
        "Last-Modified": container.changed.date,
        "Etag": f'"{container.changed.etag}"',
        **_OF_CONTAINERS,
    }
    return _entry("Container", container.name, properties)


def _blob(name: str, blob: Blob) -> str:
    properties = {
        "Creation-Time": blob.created.date,
        "Last-Modified": blob.changed.date,
        "Etag": blob.changed.etag,
        "Content-Length": str(len(blob.content)),
        **{header: blob.headers.get(header, "") for header in _STORED},
        "Content-CRC64": "",
        "Content-MD5": blob.md5,
        **_OF_BLOBS,
    }
    return _entry("Blob", name, properties)


def _entry(kind: str, name: str, properties: Mapping[str, str]) -> str:
    inner = "".join(_element(key, value) for key, value in properties.items())
    return f"<{kind}>{_element('Name', name)}<Properties>{inner}</Properties></{kind}>"


def _element(name: str, value: str) -> str:
    return f"<{name}>{escape(value)}</{name}>" if value else f"<{name} />"

"""Containers: make, look at, delete.

https://learn.microsoft.com/rest/api/storageservices/operations-on-containers
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from xml.sax.saxutils import escape, quoteattr

from podidentity_sandbox.azure.blob import conditions
from podidentity_sandbox.azure.blob.call import (
    BOM,
    XML,
    BlobCall,
    BlobError,
    invalid_query,
)
from podidentity_sandbox.azure.blob.store import Blob, BlobContainer, container_id
from podidentity_sandbox.azure.messages import Reply, Request

_NAME = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_PUBLIC = "x-ms-blob-public-access"
_META = "x-ms-meta-"


def create(call: BlobCall) -> Reply:
    """Make a container."""
    _check_name(call.container)
    if _PUBLIC in call.request.headers:
        # Also where the container exists: https://github.com/Azure/azure-sdk-for-net/issues/30864
        raise BlobError("PublicAccessNotPermitted")
    if call.find():
        raise BlobError("ContainerAlreadyExists")
    made = BlobContainer(
        id=container_id(call.account, call.container),
        name=call.container,
        metadata=metadata_of(call.request),
        changed=call.stamp(),
    )
    call.world.put(made)
    return Reply(status=201, headers=_stamped(made))


def show(call: BlobCall) -> Reply:
    """Return the properties of a container, in headers."""
    container = call.found()
    conditions.check_read(call.request, container.changed)
    headers = {
        **_stamped(container),
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


def delete(call: BlobCall) -> Reply:
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
        raise BlobError("OutOfRangeInput")
    if not _NAME.fullmatch(name):
        raise BlobError("InvalidResourceName")


def _stamped(container: BlobContainer) -> dict[str, str]:
    return {"ETag": f'"{container.changed.etag}"', "Last-Modified": container.changed.date}


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
    delimiter: str
    most: int
    metadata: bool

    def echo(self) -> str:
        """Return the parameters of the request, as the answer repeats them."""
        asked = {"Prefix": self.prefix, "Marker": self.marker, "Delimiter": self.delimiter}
        return "".join(_element(name, value) for name, value in asked.items() if value)


def list_containers(call: BlobCall) -> Reply:
    """Return a page of the account's containers."""
    ask = _asked(call.request)
    found = {each.name: each for each in call.world.all(BlobContainer, call.account.id)}
    page, following = _page(sorted(found), ask)
    entries = "".join(_container(found[name], metadata=ask.metadata) for name in page)
    return _answer(call, "", ask, f"<Containers>{entries}</Containers>", following)


def list_blobs(call: BlobCall) -> Reply:
    """Return a page of a container's blobs; with a delimiter, of its folders as well."""
    ask, container = _asked(call.request), call.found()
    page, following = _page(sorted({_rolled_up(name, ask) for name in container.blobs}), ask)
    entries = "".join(
        _blob(name, container.blobs[name], metadata=ask.metadata)
        if name in container.blobs and _rolled_up(name, ask) == name
        else f"<BlobPrefix>{_element('Name', name)}</BlobPrefix>"
        for name in page
    )
    where = f" ContainerName={quoteattr(container.name)}"
    return _answer(call, where, ask, f"<Blobs>{entries}</Blobs>", following)


def _asked(request: Request) -> _ListQuery:
    sent = request.parameter("maxresults")
    if sent and not sent.isdigit():
        raise invalid_query("maxresults", sent)
    if sent and int(sent) == 0:
        raise BlobError("OutOfRangeQueryParameterValue")
    return _ListQuery(
        prefix=request.parameter("prefix"),
        marker=request.parameter("marker"),
        delimiter=request.parameter("delimiter"),
        most=min(int(sent or PAGE), PAGE),
        metadata="metadata" in request.parameter("include").split(","),
    )


def _rolled_up(name: str, ask: _ListQuery) -> str:
    """Return `name`, cut after the first delimiter behind the prefix where there is one."""
    if not ask.delimiter or not name.startswith(ask.prefix):
        return name
    head, delimiter, _ = name[len(ask.prefix) :].partition(ask.delimiter)
    return f"{ask.prefix}{head}{delimiter}" if delimiter else name


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


def _container(container: BlobContainer, *, metadata: bool) -> str:
    properties = {
        "Last-Modified": container.changed.date,
        "Etag": f'"{container.changed.etag}"',
        "LeaseStatus": "unlocked",
        "LeaseState": "available",
        "DefaultEncryptionScope": "$account-encryption-key",
        "DenyEncryptionScopeOverride": "false",
        "HasImmutabilityPolicy": "false",
        "HasLegalHold": "false",
        "ImmutableStorageWithVersioningEnabled": "false",
    }
    return _entry("Container", container.name, properties, container.metadata, metadata)


def _blob(name: str, blob: Blob, *, metadata: bool) -> str:
    inferred = {} if blob.tier else {"AccessTierInferred": "true"}
    properties = {
        "Creation-Time": blob.created.date,
        "Last-Modified": blob.changed.date,
        "Etag": blob.changed.etag,
        "Content-Length": str(len(blob.content)),
        **{header: blob.headers.get(header, "") for header in ("Content-Type", "Content-Encoding")},
        "Content-Language": blob.headers.get("Content-Language", ""),
        "Content-CRC64": "",
        "Content-MD5": blob.md5,
        "Cache-Control": blob.headers.get("Cache-Control", ""),
        "Content-Disposition": blob.headers.get("Content-Disposition", ""),
        "BlobType": "BlockBlob",
        "AccessTier": blob.tier or "Hot",
        **inferred,
        "LeaseStatus": "unlocked",
        "LeaseState": "available",
        "ServerEncrypted": "true",
    }
    return _entry("Blob", name, properties, blob.metadata, metadata)


def _entry(
    kind: str, name: str, properties: Mapping[str, str], metadata: Mapping[str, str], shown: bool
) -> str:
    more = f"<Metadata>{_elements(metadata)}</Metadata>" if shown and metadata else ""
    inner = f"{_element('Name', name)}<Properties>{_elements(properties)}</Properties>{more}"
    return f"<{kind}>{inner}</{kind}>"


def _elements(values: Mapping[str, str]) -> str:
    return "".join(_element(name, value) for name, value in values.items())


def _element(name: str, value: str) -> str:
    return f"<{name}>{escape(value)}</{name}>" if value else f"<{name} />"

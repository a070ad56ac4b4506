"""Lists: one consistent state of a type, in pages if the client wants it so.

https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
A continue token names the revision of the first page; later pages are made from the history, as
they were then.
"""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.selectors import Selection
from podidentity_sandbox.cluster.storage import Record, Storage, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """What part of a list, of which state."""

    limit: int = 0
    """0: no limit."""
    token: str = ""
    """`continue` of the page before."""
    revision: str = ""
    match: str = ""
    """resourceVersionMatch: NotOlderThan, Exact or ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list."""

    records: Sequence[Record]
    revision: int
    token: str = ""
    remaining: int = 0

    def metadata(self) -> Obj:
        """Return the list's metadata."""
        metadata: Obj = {"resourceVersion": str(self.revision)}
        if self.token:
            metadata |= {"continue": self.token, "remainingItemCount": self.remaining}
        return metadata

    def raw(self, kind: ResourceType) -> bytes:
        """Return the list as JSON."""
        head = {
            "kind": kind.list_kind or f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": self.metadata(),
        }
        items = b",".join(item(kind, record) for record in self.records)
        return encode(head)[:-1] + b',"items":[' + items + b"]}"


def item(kind: ResourceType, record: Record) -> bytes:
    """Return an object as it stands in a list: built-in types leave kind and apiVersion out."""
    if kind.custom:
        return record.raw
    prefix = encode({"kind": kind.kind, "apiVersion": kind.api_version})
    return b"{" + record.raw[len(prefix) :]


def page(storage: Storage, kind: ResourceType, selection: Selection, paging: Paging) -> Page:
    """Return a page; raise 400 for a bad token, 410 for one too old, 504 for a future state."""
    revision, start = _start(storage, paging)
    if revision == storage.revision:
        records = storage.shelf(kind.key).records
    else:
        records = storage.snapshot(kind.key, revision)
    places = sorted(records)
    rest = [records[at] for at in places[bisect_right(places, start) :]]
    chosen = [record for record in rest if selection.matches(record.object)]
    if not paging.limit or len(chosen) <= paging.limit:
        return Page(records=chosen, revision=revision)
    part = chosen[: paging.limit]
    token = {"v": "meta.k8s.io/v1", "rv": revision, "start": [part[-1].namespace, part[-1].name]}
    return Page(
        records=part,
        revision=revision,
        token=base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("="),
        remaining=len(chosen) - len(part),
    )


def _start(storage: Storage, paging: Paging) -> tuple[int, tuple[str, str]]:
    if paging.token:
        return _read_token(paging.token)
    wanted = parse_revision(paging.revision)
    if wanted > storage.revision:
        raise status.too_new(wanted, storage.revision)
    exact = paging.match == "Exact" and wanted
    return (wanted if exact else storage.revision), ("", "")


def _read_token(text: str) -> tuple[int, tuple[str, str]]:
    try:
        token = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        namespace, name = token["start"]
        return int(token["rv"]), (str(namespace), str(name))
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise status.bad_request("continue key is not valid") from error


def parse_revision(text: str) -> int:
    """Return a resourceVersion as a number, 0 for ""; raise 400."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise status.bad_request(f'invalid resource version "{text}"')
    return int(text)

"""Lists and watches: one consistent state of a type, and its changes from a revision on."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.selectors import Selection
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Change, Record, Storage, encode

# ---- Lists: one consistent state of a type, in pages if the client wants it so.
#
# https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
# A continue token names the revision of the first page; later pages are made from the history, as
# they were then.


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """The part of a list that is asked for, and of which state."""

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
        metadata: Obj = {"resourceVersion": str(self.revision)}
        if self.token:
            metadata |= {"continue": self.token, "remainingItemCount": self.remaining}
        return metadata

    def raw(self, kind: ResourceType) -> bytes:
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


# ---- Watches: the changes of a type from a revision on, as one JSON object a line.
#
# https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
# An object that a selector no longer matches is DELETED for this watcher, one that it newly matches
# is ADDED. A change that is no longer in the history ends the watch with an ERROR of code 410.

BOOKMARK_SECONDS = 60.0
DEFAULT_SECONDS = 1800
"""How long a watch lasts whose client does not say; the real one: half an hour to an hour."""
INITIAL_END = {"k8s.io/initial-events-end": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """The options of a watch."""

    kind: ResourceType
    selection: Selection
    revision: str = ""
    """"" or "0": first what is there, then the changes."""
    bookmarks: bool = False
    initial_events: bool = False
    """sendInitialEvents: what is there, then a bookmark that says so."""
    seconds: float = DEFAULT_SECONDS
    shown: Callable[[Record], bytes] = lambda record: record.raw
    """How the objects of the events are shown."""


def line(event: str, raw: bytes) -> bytes:
    return b'{"type":"' + event.encode() + b'","object":' + raw + b"}\n"


def bookmark(request: WatchRequest, revision: int, *, initial_end: bool = False) -> bytes:
    """Return a BOOKMARK: an object with nothing but the revision that the watch has reached."""
    kind = request.kind
    metadata: dict[str, object] = {"resourceVersion": str(revision)}
    if initial_end:
        metadata["annotations"] = INITIAL_END
    head = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return line("BOOKMARK", request.shown(Record(head, encode(head), revision)))


def event(change: Change, request: WatchRequest) -> bytes:
    """Return the event that a change is for a watcher with this selection; b"" for none."""
    matches = request.selection.matches
    before = change.previous is not None and matches(change.previous.object)
    after = change.event != "DELETED" and matches(change.record.object)
    if after:
        return line("MODIFIED" if before else "ADDED", request.shown(change.record))
    if not before or change.previous is None:
        return b""
    if change.event == "DELETED":
        return line("DELETED", request.shown(change.record))
    # It left the selection: its last state inside it, at the revision of the change.
    last = change.previous.thaw()
    last["metadata"]["resourceVersion"] = str(change.record.revision)
    return line("DELETED", request.shown(Record(last, encode(last), change.record.revision)))


def check(storage: Storage, request: WatchRequest) -> None:
    """Refuse a watch that cannot begin: raise 400 or 504 before the first byte is sent.

    A watch from a future version begins, unless it first asks for what is there.
    """
    revision = parse_revision(request.revision)
    if request.initial_events and revision > storage.revision:
        raise status.too_new(revision, storage.revision)


async def stream(storage: Storage, request: WatchRequest) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a watch until its time is over, its type gone or its place forgotten.

    From a future version on it is silent until that version has come.
    """
    kind, selection = request.kind, request.selection
    shelf = storage.shelf(kind.key)
    position = parse_revision(request.revision)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + request.seconds
    if not position or request.initial_events:
        records = storage.all(kind.key, selection.namespace)
        position = storage.revision
        yield b"".join(
            line("ADDED", request.shown(r)) for r in records if selection.matches(r.object)
        )
        if request.initial_events and request.bookmarks:
            yield bookmark(request, position, initial_end=True)
    while not shelf.closed and loop.time() < deadline:
        try:
            changes = shelf.since(position)
        except StatusError as error:
            yield line("ERROR", encode(error.body()))
            return
        position = max(position, storage.revision)
        lines = b"".join(event(change, request) for change in changes)
        if lines:
            yield lines
            continue
        quiet = not await shelf.moves(min(BOOKMARK_SECONDS, deadline - loop.time()))
        if quiet and request.bookmarks and position <= storage.revision:
            yield bookmark(request, position)

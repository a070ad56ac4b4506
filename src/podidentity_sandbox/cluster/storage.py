"""The objects of the cluster and their history: one counter, and for each type a map and changes.

Everything here is synchronous, so a verb that reads, decides and writes is never interrupted.
A watch reads the history by its own position in it. Nothing is queued for a slow watcher: one that
falls behind the bounded history is told so, as the real server does.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from podidentity_sandbox.cluster import Json, Obj
from podidentity_sandbox.cluster.status import StatusError, expired, too_old

HISTORY = 2048
"""Changes of one type that a watch can resume over, at least."""

OBJECT_LIMIT = 1_572_864
"""Bytes of one object, etcd's limit: https://etcd.io/docs/v3.6/dev-guide/limit/"""

Address = tuple[str, str]
"""Namespace ("" where there is none) and name: the order of lists."""

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An object as stored. `object` is shared by all who read it: never change it, `thaw` it."""

    object: Obj
    raw: bytes
    """The object as JSON, `kind` and `apiVersion` first."""
    revision: int

    @property
    def metadata(self) -> Obj:
        metadata: Obj = self.object["metadata"]
        return metadata

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        return str(self.metadata.get("namespace", ""))

    @property
    def uid(self) -> str:
        return str(self.metadata["uid"])

    @property
    def deleted(self) -> bool:
        return "deletionTimestamp" in self.metadata

    def thaw(self) -> Obj:
        """Return a copy of the object, free to change."""
        copy: Obj = msgspec.json.decode(self.raw)
        return copy


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One write."""

    event: Literal["ADDED", "MODIFIED", "DELETED"]
    key: str
    """The type's storage key."""
    record: Record
    """The object after it; for DELETED the last one, at the revision of its end."""
    previous: Record | None


@dataclass(slots=True, eq=False)
class TypeStore:
    """The objects of one type, and their latest changes."""

    records: dict[Address, Record] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    floor: int = 0
    """The revision of the latest change that is forgotten."""
    closed: bool = False
    """The type is served no longer."""
    _waiting: dict[asyncio.Future[bool], None] = field(default_factory=dict)

    def wake(self) -> None:
        """Let everybody look who waits for a change."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            _settle(each, moved=True)

    async def moves(self, seconds: float) -> bool:
        """Wait for a change; return False when the time is over first."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting[waiter] = None
        timer = loop.call_later(seconds, partial(_settle, waiter, moved=False))
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiting.pop(waiter, None)

    def since(self, revision: int) -> list[Change]:
        """Return the changes after `revision`; raise 410 when some of them are forgotten."""
        if revision < self.floor:
            raise too_old(revision, self.floor)
        start = len(self.changes)
        while start and self.changes[start - 1].record.revision > revision:
            start -= 1
        return self.changes[start:]


def _settle(waiter: asyncio.Future[bool], *, moved: bool) -> None:
    if not waiter.done():
        waiter.set_result(moved)


class Storage:
    """All shelves, under one revision counter."""

    def __init__(self, *, history: int = HISTORY) -> None:
        self.revision = 1
        self.journal: Callable[[Change], None] = lambda _: None
        """Called before each write takes place; refuses it by a StatusError."""
        self.observers: list[Callable[[Change], None]] = []
        """Called at each write, in its order: for the controllers' queue."""
        self.uids: set[str] = set()
        """Those of all objects that are there."""
        self._history = history
        self._shelves: dict[str, TypeStore] = {}

    def shelf(self, key: str) -> TypeStore:
        """Return the shelf of a type, new when the type is."""
        if key not in self._shelves:
            self._shelves[key] = TypeStore(floor=self.revision)
        return self._shelves[key]

    def close(self, key: str) -> None:
        """End all watches of a type and forget its objects."""
        shelf = self._shelves.pop(key, None)
        if shelf is not None:
            shelf.closed = True
            shelf.wake()

    def close_all(self) -> None:
        """End all watches: the server stops."""
        for key in list(self._shelves):
            self.close(key)

    def get(self, key: str, namespace: str, name: str) -> Record | None:
        return self.shelf(key).records.get((namespace, name))

    def all(self, key: str, namespace: str = "") -> list[Record]:
        """Return the objects of a type, of one namespace or of all, in the order of names."""
        records = self.shelf(key).records
        wanted = [at for at in records if at[0] == namespace] if namespace else records
        return [records[at] for at in sorted(wanted)]

    def snapshot(self, key: str, revision: int) -> dict[Address, Record]:
        """Return the objects of a type as they were at `revision`; raise 410 when forgotten."""
        shelf = self.shelf(key)
        try:
            undone = shelf.since(revision)
        except StatusError as error:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result."
                " You can start a new list without the continue parameter."
            ) from error
        records = dict(shelf.records)
        for change in reversed(undone):
            at = change.record.namespace, change.record.name
            if change.previous is None:
                records.pop(at, None)
            else:
                records[at] = change.previous
        return records

    def put(self, key: str, obj: Obj) -> Record:
        """Store `obj`, new or changed, under its own name; it must not be changed afterwards."""
        shelf = self.shelf(key)
        revision = self.revision + 1
        obj["metadata"]["resourceVersion"] = str(revision)
        record = Record(obj, encode(obj), revision)
        if len(record.raw) > OBJECT_LIMIT:
            raise StatusError(500, "", "etcdserver: request is too large")
        at = record.namespace, record.name
        previous = shelf.records.get(at)
        change = Change("MODIFIED" if previous else "ADDED", key, record, previous)
        self.journal(change)
        self.revision = revision
        shelf.records[at] = record
        self.uids.add(record.uid)
        self._log(shelf, change)
        return record

    def restore(self, key: str, record: Record) -> None:
        """Restore the objects of an earlier server; observers see them as new, watches do not."""
        self.journal(Change("ADDED", key, record, None))
        self.shelf(key).records[record.namespace, record.name] = record
        self.uids.add(record.uid)
        for observer in self.observers:
            observer(Change("ADDED", key, record, None))

    def remove(self, key: str, record: Record) -> Record:
        """Take an object away; returns its last state, at the revision of its end."""
        revision = self.revision + 1
        obj = record.thaw()
        obj["metadata"]["resourceVersion"] = str(revision)
        last = Record(obj, encode(obj), revision)
        change = Change("DELETED", key, last, record)
        self.journal(change)
        self.revision = revision
        shelf = self.shelf(key)
        del shelf.records[record.namespace, record.name]
        self.uids.discard(record.uid)
        self._log(shelf, change)
        return last

    def _log(self, shelf: TypeStore, change: Change) -> None:
        shelf.changes.append(change)
        if len(shelf.changes) >= 2 * self._history:
            shelf.floor = shelf.changes[self._history - 1].record.revision
            del shelf.changes[: self._history]
        shelf.wake()
        for observer in self.observers:
            observer(change)


def field_of(obj: Json, path: str) -> Json:
    """Return what stands at a dotted path of a JSON object, None where nothing does."""
    for step in path.split("."):
        if not isinstance(obj, dict):
            return None
        obj = obj.get(step)
    return obj


# ---- The journal: keeps the objects over a restart of the API server, as etcd does for a real one
#
# Every write is a line, and takes effect only once its line is written: on a full disk nothing
# changes. Nothing is synced to the disk, since a killed process loses nothing that it has written.
# The history of changes is not kept: a watch that resumes after a restart is told 410 and lists
# anew, as by a real server that was restarted.

FULL = (errno.ENOSPC, errno.EDQUOT)
"""No space left: on the disk, or for this person."""


class Journal:
    """The file that a storage is written to, line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._end = 0

    def restore(self, storage: Storage) -> None:
        """Restore the objects of the file, then go on in a new file that holds only these."""
        kept: dict[tuple[str, str, str], Record] = {}
        lines = self._lines()
        for event, key, record in lines:
            storage.revision = max(storage.revision, record.revision)
            kept.pop((key, record.namespace, record.name), None)
            if event != "DELETED":
                kept[key, record.namespace, record.name] = record
        fresh = self._path.with_suffix(".new")
        fresh.touch(mode=0o600)
        self._file = fresh.open("wb", buffering=0)
        storage.journal = self.write
        for (key, _, _), record in kept.items():
            storage.restore(key, record)
        if lines and lines[-1][0] == "DELETED":  # it has the latest revision
            self.write(Change("DELETED", lines[-1][1], lines[-1][2], None))
        fresh.replace(self._path)

    def _lines(self) -> list[tuple[str, str, Record]]:
        found: list[tuple[str, str, Record]] = []
        if not self._path.exists():
            return found
        for line in self._path.read_bytes().splitlines():
            try:
                event, key, obj = msgspec.json.decode(line)
            except msgspec.DecodeError:
                break  # the last line of a killed process, half written
            found.append((event, key, _record(obj)))
        return found

    def write(self, change: Change) -> None:
        """Add a line for a change; raise StatusError, and leave no part of it, for want of space.

        The words are etcd's for a quota that is used up:
        https://etcd.io/docs/v3.5/op-guide/maintenance/#space-quota
        """
        if self._file is None:
            return
        head = msgspec.json.encode([change.event, change.key])[:-1]
        line = head + b"," + change.record.raw + b"]\n"
        try:
            while line:  # the last bytes of a disk take a part of it
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.seek(self._file.truncate(self._end))
            if error.errno not in FULL:
                raise
            raise StatusError(500, "", "etcdserver: mvcc: database space exceeded") from error
        self._end = self._file.tell()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _record(obj: Obj) -> Record:
    revision = int(obj["metadata"]["resourceVersion"])
    return Record(obj, msgspec.json.encode(obj), revision)

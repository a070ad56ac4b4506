"""Keeps the cluster's objects over a restart of its API server, as etcd does for a real one.

Every write is a line, and takes place only once its line is there: on a full disk nothing changes.
Nothing is synced to the disk, since a process that is killed loses nothing of what it wrote. The
history of changes is not kept: a watch that resumes after a restart is told 410 and lists anew, as
by a real server that was restarted.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

import msgspec

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Change, Record, Storage

FULL = (errno.ENOSPC, errno.EDQUOT)
"""No space left: on the disk, or for this person."""


class Journal:
    """The file that a storage is written to, line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._end = 0

    def restore(self, storage: Storage) -> None:
        """Bring back what the file holds, then write on, from a file of what is left."""
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
        """Write no more."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _record(obj: Obj) -> Record:
    revision = int(obj["metadata"]["resourceVersion"])
    return Record(obj, msgspec.json.encode(obj), revision)

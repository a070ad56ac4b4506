"""Keeps Azure's state and signing keys over a restart of its process.

After each request that may have changed something, what differs is added to a file, and the answer
is given only then: on a full disk the change is undone and refused, and what was answered before
holds. Nothing is synced to the disk, since a killed process loses nothing that it has written.

What is kept is what Azure keeps: resources, principals, operations, features and keys. The logs of
requests, and what IMDS has cached, are not.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Key, KeyRing

FILE = "azure.state"
"""Name of the file in the sandbox's folder. It holds secrets, and is its owner's only."""
_KEYS = "keys"


class NotSaved(Exception):
    """A change could not be written, and was undone."""


class Journal:
    """The file of one world."""

    def __init__(self, path: Path, world: World) -> None:
        self._path = path
        self._world = world
        self._rings: Mapping[str, KeyRing] = {}
        self._saved: dict[str, dict[str, Any]] = {}
        self._end = 0
        self._file: io.FileIO | None = None

    def restore(self) -> dict[str, KeyRing]:
        """Bring the world of the file back; return its keys, none where there is no file.

        AKS goes on with the orders that it had not carried out.
        """
        found = self._read()
        keys = found.pop(_KEYS, {})
        self._world.restore(found)
        for name, operation in self._world.operations.items():
            if operation.due_at == math.inf:
                self._world.orders.put_nowait(name)
        return {name: KeyRing([Key(pem) for pem in pems]) for name, pems in keys.items()}

    def open(self, rings: Mapping[str, KeyRing]) -> None:
        """Begin the file anew with the world as it is, and with these keys; raise NotSaved."""
        self._rings = rings
        fresh = self._path.with_suffix(".new")
        fresh.touch(mode=0o600)
        self._file = fresh.open("wb", buffering=0)
        self.save()
        fresh.replace(self._path)
        for ring in rings.values():
            ring.keep = self.save

    def save(self) -> None:
        """Write what has changed since the last time; else undo it and raise NotSaved."""
        if self._file is None:
            return
        now = self._now()
        changes = [
            (section, key, values.get(key))
            for section, values in now.items()
            for key in (*values, *self._saved.get(section, {}))
            if values.get(key) is not self._saved.get(section, {}).get(key)
        ]
        if not changes:
            return
        frame = memoryview(pickle.dumps(changes))
        try:
            while frame:  # the last bytes of a disk take a part of it
                frame = frame[self._file.write(frame) or 0 :]
        except OSError as error:
            self._file.seek(self._file.truncate(self._end))
            self._world.restore(self._saved)
            message = f"The sandbox's Azure cannot keep the change: {error.strerror}."
            raise NotSaved(message) from error
        self._end = self._file.tell()
        self._saved = {section: dict(values) for section, values in now.items()}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _now(self) -> dict[str, dict[str, Any]]:
        saved = self._saved.get(_KEYS, {})
        keys: dict[str, Any] = {}
        for name, ring in self._rings.items():
            pems = ring.pems
            keys[name] = saved[name] if saved.get(name) == pems else pems
        return {**self._world.kept(), _KEYS: keys}

    def _read(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        if not self._path.exists():
            return found
        with self._path.open("rb") as file:
            while True:
                try:
                    changes = pickle.load(file)  # noqa: S301 - our own file, in our own folder
                except (EOFError, pickle.UnpicklingError):
                    return found  # the last frame of a killed process may be half written
                for section, key, value in changes:
                    values = found.setdefault(section, {})
                    values.pop(key, None)
                    if value is not None:
                        values[key] = value

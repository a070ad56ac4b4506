"""Lines on their way to a file or a stream, in batches, and in nobody's way.

A thread of its own writes, so that a slow disk, a full one, or a pipe that nobody reads delays no
request. Whoever writes a line appends it to a queue; the thread takes what has gathered in some
milliseconds at once. What cannot be written is kept while there is room and tried again; then the
newest lines are lost, and counted.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

TICK = 0.02
"""Seconds in which lines gather."""
RETRY = 1.0
"""Seconds between attempts where nothing can be written."""
ROOM = 16_384
"""Lines that wait at most; some 6 MB."""

_MODE = 0o600


class Destination(Protocol):
    """Where lines go."""

    def write(self, data: bytes) -> None:
        """Write all of `data`, or nothing as far as that can be; raise OSError."""

    def reopen(self) -> None:
        """Close what is open; the next write opens it again, where that means anything."""


class Stream:
    """An open descriptor, such as stderr; it stays open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Write all of `data`; raise OSError."""
        _write(self._descriptor, data)

    def reopen(self) -> None:
        """Go on: a stream has no name to be opened by."""


class File:
    """A file that others may rename or remove at any time, as logrotate does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def write(self, data: bytes) -> None:
        """Append `data` to the file that has the name now; what was half written is taken back."""
        if self._descriptor >= 0 and not self._is_current():
            self.reopen()
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            self._descriptor = os.open(self._path, flags, _MODE)
        before = os.fstat(self._descriptor)
        try:
            _write(self._descriptor, data)
        except OSError:
            if stat.S_ISREG(before.st_mode):
                os.ftruncate(self._descriptor, before.st_size)
            raise

    def reopen(self) -> None:
        """Open the file anew with the next write."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_current(self) -> bool:
        try:
            named = self._path.stat()
        except OSError:
            return False
        mine = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)


class Writer:
    """One destination and its thread. Close it when done.

    `lost` counts lines that were never written; `failure` says why the last attempt failed, ""
    where it did not.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        name: str,
        room: int = ROOM,
        retry: float = RETRY,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tell` gets each change of `failure`, in the thread that writes."""
        self._destination = destination
        self._room = room
        self._retry = retry
        self._tell = tell
        self._queue: deque[str] = deque()
        self._batch: list[str] = []
        self._idle = True
        self._some = threading.Event()
        self._hurry = threading.Event()
        self._served = threading.Condition()
        self._asked = self._answered = 0
        self._moved = self._closing = False
        self.lost = 0
        self.failure = ""
        self._thread = threading.Thread(target=self._run, name=f"{name}-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Write a line, its end included, in a moment; lose it where there is no room."""
        queue = self._queue
        if len(queue) >= self._room:
            self.lost += 1
            return
        queue.append(line)
        if self._idle:
            self._idle = False
            self._some.set()

    def flush(self, seconds: float = 1.0) -> None:
        """Return when all lines before this call have been written, or could not be."""
        with self._served:
            self._asked += 1
            mine = self._asked
            self._wake()
            self._served.wait_for(lambda: self._answered >= mine, seconds)

    def reopen(self) -> None:
        """Open the destination anew with the next line: somebody has moved it away."""
        self._moved = True

    def close(self, seconds: float = 1.0) -> None:
        """Write what is left, and end."""
        self._closing = True
        self._wake()
        self._thread.join(seconds)

    def _wake(self) -> None:
        self._hurry.set()
        self._some.set()

    def _run(self) -> None:
        # Whether it can be written at all is known before the first line comes.
        self._note(self._attempt())
        while not self._closing:
            self._some.wait()
            self._hurry.wait(TICK)
            self._some.clear()
            self._hurry.clear()
            asked, self._idle = self._asked, True
            self._write_all()
            with self._served:
                self._answered = asked
                self._served.notify_all()
            if self.failure and not self._closing:
                self._hurry.wait(self._retry)
                self._some.set()
        self._write_all()
        self._destination.reopen()

    def _write_all(self) -> None:
        """Write what waits; what could not be written before comes first."""
        while True:
            while not self.failure and self._queue and len(self._batch) < self._room:
                self._batch.append(self._queue.popleft())
            if not self._batch and not self.failure:
                return
            self._note(self._attempt())
            if self.failure:
                return
            self._batch.clear()

    def _note(self, failure: str) -> None:
        if failure != self.failure:
            self.failure = failure
            self._tell(failure)

    def _attempt(self) -> str:
        """Return why the batch could not be written; "" where it could."""
        try:
            if self._moved:
                self._moved = False
                self._destination.reopen()
            self._destination.write("".join(self._batch).encode(errors="backslashreplace"))
        except OSError as error:
            return error.strerror or type(error).__name__
        return ""


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]

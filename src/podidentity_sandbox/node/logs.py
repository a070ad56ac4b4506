"""The output of a container, kept in a file for each of its runs, and read again by line.

A line of a file is what a container runtime writes there, so that a reader can tell the time and
the stream of each: `2026-11-25T09:10:17.123456Z stdout F text`; P instead of F for a piece of a
line that was too long to wait for its end.
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from podidentity_sandbox.node.streams import STDERR, STDOUT

LONGEST_LINE = 16 * 1024
"""Bytes after which a piece is written: containerd's max_container_log_line_size."""
_LOOK = 0.05
_KEPT = 2
"""Runs whose files are kept: the present one, and the one that `--previous` shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Which part of a log a reader asks for."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: datetime | None = None
    limit: int | None = None
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line, or a piece of one."""

    stamp: str
    text: bytes
    """With its line feed, if this is the end of a line."""

    @property
    def whole(self) -> bool:
        return self.text.endswith(b"\n")


class LogRefused(Exception):
    """There is no such log; the text says why."""


class Log:
    """The log of one run of a container, which its container runtime writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = False
        """Whether nothing will come any more."""

    async def moved(self) -> None:
        """Return when there may be more in the file, or nothing will come any more."""
        await asyncio.sleep(_LOOK)


class RunLog(Log):
    """A log that is written here."""

    def __init__(self, folder: Path, run: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{run - _KEPT}.log").unlink(missing_ok=True)
        super().__init__(folder / f"{run}.log")
        self._file = self.path.open("ab", buffering=0)
        self._rest = {STDOUT: b"", STDERR: b""}
        self._moved = asyncio.Event()

    async def write(self, stream: int, data: bytes) -> None:
        """Take output of STDOUT or STDERR; on return its whole lines are in the file."""
        lines = (self._rest[stream] + data).split(b"\n")
        self._rest[stream] = lines.pop()
        out = [(line, "F") for line in lines]
        while len(self._rest[stream]) >= LONGEST_LINE:
            out.append((self._rest[stream][:LONGEST_LINE], "P"))
            self._rest[stream] = self._rest[stream][LONGEST_LINE:]
        self._append(stream, out)

    def close(self) -> None:
        """Write the rest that has no line end; no more output follows."""
        for stream, rest in self._rest.items():
            self._append(stream, [(rest, "F")] if rest else [])
        self._file.close()
        self.closed = True
        self._wake()

    async def moved(self) -> None:
        """Return when there is more in the file, or nothing will come any more."""
        if not self.closed:
            await self._moved.wait()

    def _append(self, stream: int, lines: list[tuple[bytes, str]]) -> None:
        if not lines:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        name = "stderr" if stream == STDERR else "stdout"
        self._file.write(
            b"".join(f"{now} {name} {tag} ".encode() + text + b"\n" for text, tag in lines)
        )
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def entries(file: BinaryIO) -> Iterator[Entry]:
    """Yield the contents of a file from its position on."""
    for raw in file:
        stamp, _, tag, text = raw.split(b" ", 3)
        yield Entry(stamp.decode(), text if tag == b"F" else text[:-1])


def chosen(found: Iterable[Entry], options: LogOptions) -> Iterable[Entry]:
    """Return those of them that the reader wants; pieces of a line count as the line."""
    if options.since is not None:
        least = options.since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        found = (entry for entry in found if entry.stamp >= least)
    if options.tail is None:
        return found
    last: deque[list[Entry]] = deque(maxlen=options.tail)
    line: list[Entry] = []
    for entry in found:
        line.append(entry)
        if entry.whole:
            last.append(line)
            line = []
    return (entry for line in last for entry in line)


def last_words(path: Path) -> str:
    """Return the end of a log, as a kubelet takes it for a termination message.

    https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
    """
    try:
        with path.open("rb") as file:
            lines = deque(entries(file), maxlen=80)
    except OSError:
        return ""
    return b"".join(each.text for each in lines)[-2048:].decode(errors="replace")


async def read(path: Path, run: Log | None, options: LogOptions) -> AsyncIterator[bytes]:
    """Yield a run's log; to follow it, `run` says when there is more."""
    left = options.limit
    with path.open("rb") as file:
        async for entry in _all(file, run, options):
            text = entry.text
            if options.timestamps:
                text = entry.stamp.encode() + b" " + text
            if left is not None:
                text, left = text[:left], left - len(text)
            if text:
                yield text
            if left is not None and left <= 0:
                return


async def _all(file: BinaryIO, run: Log | None, options: LogOptions) -> AsyncIterator[Entry]:
    for entry in chosen(entries(file), options):
        yield entry
    while options.follow and run is not None:
        closed = run.closed
        for entry in entries(file):
            yield entry
        if closed:
            return
        await run.moved()

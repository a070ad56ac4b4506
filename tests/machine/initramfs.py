"""Writes folders as the archive that a kernel unpacks into its first file system (cpio, newc).

All that the machine needs is in its memory from the start: no disk, no driver, no shared folder, so
each kernel is asked for nothing but what the tests are about.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

_END = "TRAILER!!!"


def write(archive: BinaryIO, members: Iterable[tuple[str, Path]]) -> None:
    """Append an archive of files: the name of each in the machine, and where it is here."""
    made: set[str] = set()
    for name, path in members:
        parents = [str(each) for each in reversed(Path(name).parents)][1:]
        for each in parents:
            if each not in made:
                made.add(each)
                _entry(archive, each, stat.S_IFDIR | 0o755, b"")
        if name in made:
            continue
        made.add(name)
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            _entry(archive, name, info.st_mode, str(path.readlink()).encode())
        elif stat.S_ISREG(info.st_mode):
            _entry(archive, name, info.st_mode, path.read_bytes())
        elif stat.S_ISDIR(info.st_mode):
            _entry(archive, name, info.st_mode, b"")
    _entry(archive, _END, 0, b"")


def tree(folder: Path) -> Iterable[tuple[str, Path]]:
    """Return what is in a folder, as `write` takes it."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        for each in sorted([*folders, *files]):
            path = here / each
            yield str(path.relative_to(folder)), path


def _entry(archive: BinaryIO, name: str, mode: int, data: bytes) -> None:
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % each for each in fields) + encoded
    archive.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

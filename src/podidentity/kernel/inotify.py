"""Notices of files that come and go in a folder (inotify(7)); Python's library has none."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_CREATE, _DELETE, _MOVED_FROM, _MOVED_TO, _DELETE_SELF = 0x100, 0x200, 0x40, 0x80, 0x400
_COMES_OR_GOES = _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO | _DELETE_SELF
_DATAGRAM = 1 << 14

_libc = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Watches one folder, from the first `renew` on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def renew(self) -> None:
        """Watch what the folder's path leads to now; raise OSError where that is nothing."""
        _checked(_libc.inotify_add_watch(self._fd, bytes(self._folder), _COMES_OR_GOES))

    def fileno(self) -> int:
        """Return what becomes readable when something has changed."""
        return self._fd

    def changed(self) -> bool:
        """Whether something came or went since the last call."""
        found = False
        try:
            while os.read(self._fd, _DATAGRAM):
                found = True
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        """End the watch."""
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result

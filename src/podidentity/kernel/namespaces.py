"""Network namespaces as files: folders of them watched, one opened, sockets made inside it.

A socket belongs for good to the namespace in which it was made: the thread enters, opens and comes
back, and later questions need no privilege. Python has os.setns from 3.12 on only, and no inotify,
hence ctypes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_EXIT_LOST = 70

# inotify(7): IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE_SELF
_CREATE, _DELETE, _MOVED_FROM, _MOVED_TO, _DELETE_SELF = 0x100, 0x200, 0x40, 0x80, 0x400
_COMES_OR_GOES = _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO | _DELETE_SELF
_DATAGRAM = 1 << 14

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceKey(NamedTuple):
    """Identifies a namespace while it is open or mounted."""

    device: int
    inode: int


_MOUNTINFO = Path("/proc/self/mountinfo")
UNMOUNTED_FOR = 5.0
"""Seconds that a file may be there before its namespace is mounted on it: it takes a moment."""


def is_propagated(mountinfo: str, folder: str) -> bool:
    """Whether mounts that are made at `folder` elsewhere appear here; see proc_pid_mountinfo(5)."""
    fields: list[str] = []
    for line in mountinfo.splitlines():
        candidate = line.split(" ")
        place = candidate[4].replace("\\040", " ")
        # Of several mounts of one place the last is on top.
        if f"{folder}/".startswith(place.rstrip("/") + "/") and (
            not fields or len(place) >= len(fields[4])
        ):
            fields = candidate
    optional = fields[6 : fields.index("-")] if "-" in fields else []
    return any(each.startswith(("shared:", "master:")) for each in optional)


def gets_mounts(folder: Path) -> bool:
    """Whether the folder shows mounts that the node makes there later; raise OSError."""
    return is_propagated(_MOUNTINFO.read_text(), os.path.realpath(folder))


def unpropagated(folder: Path, *, seconds: float = UNMOUNTED_FOR) -> str:
    """Return why namespaces of pods that start later are not seen; "" if nothing shows that.

    Shown by a file without a namespace on it, in a folder that gets no mounts of the node's.
    """
    try:
        if gets_mounts(folder):
            return ""
        device, before = folder.stat().st_dev, time.time() - seconds
        bare = [each.name for each in folder.iterdir() if _is_bare(each.lstat(), device, before)]
    except OSError:
        return ""  # the folder changes, or is not there: that is said elsewhere
    return without_namespace(folder, min(bare)) if bare else ""


def without_namespace(folder: Path, name: str) -> str:
    """Return the words for a file of the folder where no namespace will appear."""
    return (
        f"{folder} is mounted without propagation, and {name} there has no network "
        "namespace on it: mount the folder with propagation HostToContainer"
    )


def _is_bare(status: os.stat_result, device: int, before: float) -> bool:
    return status.st_dev == device and status.st_ctime < before


def key_of(status: os.stat_result) -> NamespaceKey:
    """Return the key of the namespace that has this status."""
    return NamespaceKey(status.st_dev, status.st_ino)


@contextmanager
def network_namespace(path: Path) -> Iterator[int | None]:
    """Open the namespace file at `path`; yield None where it is (not yet) a network namespace.

    The file is made first and the namespace mounted on it a moment later. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield fd if _is_network_namespace(fd) else None
    finally:
        os.close(fd)


@contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Be in the namespace of this file descriptor, with this thread only; needs CAP_SYS_ADMIN.

    No `await` may happen inside. Raises PermissionError where it may not be entered. A thread that
    cannot come back would answer, and set rules, in a pod's network: the process ends instead.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(namespace)
        try:
            yield
        finally:
            _return(home)
    finally:
        os.close(home)


class FolderWatch:
    """Watches folders for files that come and go, each from the first `renew` on."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def renew(self, folder: Path) -> None:
        """Watch what this path leads to now; raise OSError where that is nothing."""
        _checked(_libc.inotify_add_watch(self._fd, bytes(folder), _COMES_OR_GOES))

    def fileno(self) -> int:
        """Return the descriptor that is readable when something has changed."""
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


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        why = os.strerror(code)
        if code == errno.EPERM:
            why += ": give the process CAP_SYS_ADMIN"
        raise OSError(code, f"cannot enter a pod's network namespace: {why}")


def _return(home: int) -> None:
    if _libc.setns(home, _CLONE_NEWNET) != 0:
        sys.stderr.write("cannot come back from a pod's network namespace: ending\n")
        sys.stderr.flush()
        os._exit(_EXIT_LOST)


def _is_network_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError as error:
        if error.errno in {errno.ENOTTY, errno.EINVAL}:  # a file of another kind
            return False
        raise


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result

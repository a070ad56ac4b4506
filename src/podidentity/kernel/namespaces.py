"""Network namespaces as files: watch folders of them, open one, enter it.

A socket belongs to the namespace in which it was created, for good. So a thread enters a namespace,
creates its sockets and returns, and using them needs no privilege. Python has os.setns only from
3.12 on, and no inotify, so this uses ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
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
_TICK = 100_000_000
"""Nanoseconds, of which the kernel's time of a change is some multiple at most."""
_UNWATCHED = (
    "the kernel does not watch a folder of network namespaces for us (a pod that runs as root can"
    " use up fs.inotify.max_user_instances and max_user_watches), so NMI looks at it each second"
)

_log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceKey(NamedTuple):
    """Identifies a namespace while it is open or mounted."""

    device: int
    inode: int


_MOUNTINFO = Path("/proc/self/mountinfo")
UNMOUNTED_FOR = 5.0
"""Seconds that a runtime may need between creating a file and mounting a namespace on it."""


def is_propagated(mountinfo: str, folder: str) -> bool:
    """Whether this process sees the node's new mounts in `folder`; see proc_pid_mountinfo(5)."""
    fields: list[str] = []
    for line in mountinfo.splitlines():
        candidate = line.split(" ")
        place = candidate[4].replace("\\040", " ")
        # The last of several mounts at one place is on top.
        if f"{folder}/".startswith(place.rstrip("/") + "/") and (
            not fields or len(place) >= len(fields[4])
        ):
            fields = candidate
    optional = fields[6 : fields.index("-")] if "-" in fields else []
    return any(each.startswith(("shared:", "master:")) for each in optional)


def gets_mounts(folder: Path) -> bool:
    """Whether the folder receives later mounts of the node; raise OSError."""
    return is_propagated(_MOUNTINFO.read_text(), os.path.realpath(folder))


def unpropagated(folder: Path, *, seconds: float = UNMOUNTED_FOR) -> str:
    """Return why we cannot see the namespaces of pods that start later; "" if there is no sign.

    The sign is a file without a namespace, in a folder that does not receive the node's mounts.
    """
    try:
        if gets_mounts(folder):
            return ""
        device, before = folder.stat().st_dev, time.time() - seconds
        bare = [each.name for each in folder.iterdir() if _is_bare(each.lstat(), device, before)]
    except OSError:
        return ""  # `PodNetworks` reports a folder that cannot be read.
    return without_namespace(folder, min(bare)) if bare else ""


def without_namespace(folder: Path, name: str) -> str:
    return (
        f"{folder} is mounted without propagation, and {name} there has no network "
        "namespace on it: mount the folder with propagation HostToContainer"
    )


def _is_bare(status: os.stat_result, device: int, before: float) -> bool:
    return status.st_dev == device and status.st_ctime < before


def key_of(status: os.stat_result) -> NamespaceKey:
    return NamespaceKey(status.st_dev, status.st_ino)


@contextmanager
def network_namespace(path: Path) -> Iterator[int | None]:
    """Open the namespace file at `path`; yield None if it is no network namespace yet.

    A runtime creates the file first, and mounts the namespace on it a moment later. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield fd if _is_network_namespace(fd) else None
    finally:
        os.close(fd)


@contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Put this thread into the namespace of a file descriptor; needs CAP_SYS_ADMIN.

    Do not `await` inside. Raises PermissionError if entering is not permitted. If the thread cannot
    return, the process ends, or else it would set rules in a pod's network.
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
    """Watches folders for new and deleted files, each from its first `renew` on.

    The kernel has so many watches for one user (inotify(7), /proc/sys/fs/inotify), and a pod that
    runs as root can take all of root's. Then this looks at the folders' times itself.
    """

    def __init__(self) -> None:
        self._times: dict[Path, int | None] = {}
        """When each folder that the kernel does not watch had changed last; None: just now."""
        try:
            self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            self._fd = -1
            _log.warning("%s: %s", _UNWATCHED, error.strerror)

    def renew(self, folder: Path) -> None:
        """Watch the folder that this path leads to now; raise OSError if there is none."""
        if self._fd >= 0 and folder not in self._times:
            try:
                _checked(_libc.inotify_add_watch(self._fd, bytes(folder), _COMES_OR_GOES))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                _log.warning("%s: %s", _UNWATCHED, error.strerror)
            else:
                return
        folder.stat()
        self._times[folder] = _changed_at(folder)

    @property
    def looks(self) -> bool:
        """Whether no descriptor tells of a change, and `changed` must be asked."""
        return bool(self._times)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable after a change; -1: there is none."""
        return self._fd

    def changed(self) -> bool:
        """Whether a file was created or deleted since the last call, or may have been."""
        found = False
        if self._fd >= 0:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._fd, _DATAGRAM):
                    found = True
        for folder, before in self._times.items():
            now = _changed_at(folder)
            found = found or now is None or now != before
            self._times[folder] = now
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _changed_at(folder: Path) -> int | None:
    """Return when the folder changed last, in nanoseconds; 0 if there is none.

    None if it was just now: a file that comes next may leave the time as it is.
    """
    try:
        found = folder.stat()
    except OSError:
        return 0
    return found.st_ctime_ns if time.time_ns() - found.st_ctime_ns > _TICK else None


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

"""Opening sockets inside another network namespace.

A socket belongs for good to the namespace in which it was made: the thread enters, opens and comes
back, and later questions need no privilege. Python has os.setns from 3.12 on only, hence ctypes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_EXIT_LOST = 70

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceKey(NamedTuple):
    """What tells namespaces apart, as long as one is open."""

    device: int
    inode: int


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


def key_of(status: os.stat_result) -> NamespaceKey:
    """Return the key of the namespace that has this status."""
    return NamespaceKey(status.st_dev, status.st_ino)


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

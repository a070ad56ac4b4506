"""What a stranger who has taken a worker of `serve` tries; each returns what came of it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_ATTACH_FILTER = 26
_PTRACE_ATTACH, _PIDFD_OPEN, _PIDFD_GETFD = 16, 434, 438
_libc = ctypes.CDLL(None, use_errno=True)
_held: list[socket.socket] = []


def look_into_supervisor() -> list[str]:
    """Attach to the supervisor, read its memory, copy a descriptor; return what succeeded."""
    supervisor = os.getppid()
    done = []
    if _libc.ptrace(_PTRACE_ATTACH, supervisor, None, None) == 0:
        done.append("ptrace")
    for name in ("mem", "environ", "fd/0"):
        with suppress(OSError):
            with Path(f"/proc/{supervisor}/{name}").open("rb") as opened:
                opened.fileno()
            done.append(name)
    pidfd = _libc.syscall(_PIDFD_OPEN, supervisor, 0)
    if _libc.syscall(_PIDFD_GETFD, pidfd, 0, 0) >= 0:
        done.append("pidfd_getfd")
    return done


def signal_supervisor() -> bool:
    """Return whether the supervisor could be killed."""
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return False
    return True


def listen_at(path: str) -> bool:
    """Return whether a socket could be put in the place of the supervisor's."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        made.bind(f"{path}.mine")
    except OSError:
        return False
    os.replace(f"{path}.mine", path)  # noqa: PTH105 - an attacker's hand
    return True


def spoil_listeners(how: str) -> None:
    """Leave the listening sockets, which the supervisor has as well, so that none hears anything.

    By ending them, by a backlog of one, or by a filter that drops each packet.
    """
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(each.name))) as found:
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if found.family is not socket.AF_INET or not listens:
                continue
            if how == "end":
                found.shutdown(socket.SHUT_RDWR)
            elif how == "narrow":
                found.listen(0)
            else:
                code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))  # BPF_RET 0
                program = struct.pack("@HP", 1, ctypes.addressof(code))
                found.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)


def hold_probes(path: str) -> int:
    """Ask as many probes as there are places, and hold them; return how many were let in."""
    for _ in range(40):
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asking.connect(path)
        _held.append(asking)
    return len(_held)


def take_over(path: str) -> int:
    """Ask for the listeners as a new agent does; return how many sockets came."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(60)
        asking.connect(path)
        try:
            asking.send(b"take 1 9.9")
            _, descriptors, _, _ = socket.recv_fds(asking, 512, 16)
        except ConnectionError:
            return 0
    return len(descriptors)


def take_over_as_orphan(path: str, locked: str) -> None:
    """Do so from a process whose parents have ended."""
    _orphan(lambda: time.sleep(1000 * bool(take_over(path))), locked)


def leave_behind(locked: str, generations: str) -> None:
    """Leave a process that outlives this one."""
    _orphan(lambda: time.sleep(1000), locked, int(generations))


def _orphan(act: Callable[[], object], locked: str, generations: int = 1) -> None:
    """Run it in a process of its own session whose parent has ended.

    A file is locked for as long as the process lives.
    """
    with Path(locked).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fork():
            return
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _ in range(generations):
            if os.fork():
                os._exit(0)
        with suppress(OSError):
            act()
        os._exit(0)

"""Rights that a process gives up before it serves strangers.

The command that starts both `net` and `serve` gives up its user and its capabilities here; with
the manifest the container runtime does that. Supervisor and worker of `serve` run as one user, so
they are also kept apart here: a worker that a stranger has taken must not become the supervisor.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Sequence
from pathlib import Path

_SETGID, _SETUID = 6, 7
"""Numbers of CAP_SETGID and CAP_SETUID, linux/capability.h."""
_VERSION_3 = 0x20080522
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38

# linux/landlock.h; the numbers of the system calls are those of every architecture.
_CREATE_RULESET, _RESTRICT_SELF, _CREATE_RULESET_VERSION = 444, 446, 1
_RULESET = struct.Struct("=QQQ")
"""Accesses to files that are handled, accesses to the network, scopes."""
_MAKE_SOCK = 1 << 9
_SCOPE_SIGNAL = 1 << 1
SIGNALS_ARE_SCOPED = 6
"""Version of Landlock that knows this scope (Linux 6.12)."""

_libc = ctypes.CDLL(None, use_errno=True)


def capabilities() -> int:
    """Return this process's effective capabilities as bits, proc(5)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0


def may_become(uid: int, *, reading: Sequence[Path]) -> bool:
    """Return whether this process can become user `uid`, and can then read these files."""
    held = capabilities()
    if not (held >> _SETUID & 1 and held >> _SETGID & 1):
        return False
    # Let a child try it, because modes, ACLs and the folders above count as well.
    pid = os.fork()
    if not pid:
        code = 1
        try:
            _become(uid)
            for path in reading:
                path.open("rb").close()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def give_up(uid: int | None) -> None:
    """Become user and group `uid`, if one is given, and drop all capabilities for good.

    Raises OSError.
    """
    if uid is not None:
        _become(uid)
    header = struct.pack("=Ii", _VERSION_3, 0)
    if _libc.capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def end_with_parent() -> None:
    """Have this process killed when its parent ends; raise OSError."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def hide_from_user() -> None:
    """Deny ptrace, memory and descriptors to other processes of the same user; raise OSError.

    The files of this process in /proc belong to root from now on; public ones stay readable.
    """
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def adopt_orphans() -> None:
    """Become the parent of each descendant whose own parent ends; raise OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def landlock_version() -> int:
    """Return the version of Landlock of this kernel; 0 where there is none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)))


def confine() -> None:
    """Restrict this process and its children by Landlock; raise OSError.

    They can no longer create a named Unix socket, or trace a process outside; from Linux 6.12 on
    they cannot send it a signal either. Does nothing if the kernel has no Landlock.
    """
    version = landlock_version()
    if not version:
        return
    scopes = _SCOPE_SIGNAL if version >= SIGNALS_ARE_SCOPED else 0
    rules = _RULESET.pack(_MAKE_SOCK, 0, scopes)
    # Earlier kernels know the first field alone.
    size = len(rules) if scopes else 8
    ruleset = _libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock gives no ruleset")
    try:
        if _libc.syscall(_RESTRICT_SELF, ruleset, 0):
            raise OSError(ctypes.get_errno(), "Landlock cannot restrict this process")
    finally:
        os.close(ruleset)


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")

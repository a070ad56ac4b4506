"""What a process gives up before it serves strangers: its user, its capabilities, gaining any.

For the command that starts `net` and `serve` both. In the manifest the container runtime does it.
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
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)


def capabilities(kind: str = "CapEff", pid: str = "self") -> int:
    """Return a set of capabilities of a process as bits; see proc(5) for the kinds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == kind:
            return int(value, 16)
    return 0


def may_become(uid: int, *, reading: Sequence[Path]) -> bool:
    """Return whether this process can be user and group `uid`, who can then read these files."""
    held = capabilities()
    if not (held >> _SETUID & 1 and held >> _SETGID & 1):
        return False
    # Asked of the kernel by a child: modes, ACLs and the folders above count, too.
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
    """Become user and group `uid`, if one is given; drop all capabilities, for good.

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


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")

"""The system calls that Python lacks, or has only from 3.12 on: namespaces, mounts, capabilities.

Each raises OSError with the call's errno. Flags are those of <linux/sched.h>, <linux/mount.h> and
<linux/prctl.h>: https://github.com/torvalds/linux/tree/master/include/uapi/linux
"""

from __future__ import annotations

import ctypes
import os

NEW_MOUNTS = 0x00020000
NEW_CGROUPS = 0x02000000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_PIDS = 0x20000000
NEW_NET = 0x40000000

READ_ONLY = 0x1
NO_SUID = 0x2
NO_DEVICES = 0x4
NO_EXEC = 0x8
BIND = 0x1000
RECURSIVE = 0x4000
PRIVATE = 1 << 18
SLAVE = 1 << 19
SHARED = 1 << 20

_DETACH = 2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_SETATTR = 442  # the same on every architecture but alpha
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_ZEROS = (ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process, or for NEW_PIDS its next children, into new namespaces."""
    _call("unshare", ctypes.c_int(flags))


def enter(fd: int, kinds: int) -> None:
    """Enter the namespaces of these kinds that `fd` names: a namespace file or a pidfd (5.8)."""
    _call("setns", ctypes.c_int(fd), ctypes.c_int(kinds))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount `source`, or a new file system of that `kind`, at `target`."""
    try:
        _call(
            "mount",
            source.encode(),
            target.encode(),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        )
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({kind or source} at {target})") from None


class _MountAttributes(ctypes.Structure):
    _fields_ = [
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    ]


def restrict(target: str, flags: int, *, below: bool = True) -> None:
    """Set READ_ONLY or NO_DEVICES on the mount at `target` and those `below` it (kernel 5.12).

    Not by a remount: that would have to repeat flags which a user namespace may not clear.
    """
    attributes = _MountAttributes(flags, 0, 0, 0)
    _call(
        "syscall",
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        target.encode(),
        ctypes.c_uint(_AT_RECURSIVE if below else 0),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def change_root(root: str) -> None:
    """Make the mount `root` this mount namespace's root, and let go of the old one."""
    os.chdir(root)
    # Both arguments ".": the old root is stacked on the new and comes off with one unmount.
    # https://man7.org/linux/man-pages/man2/pivot_root.2.html, "pivot_root(".", ".")"
    _call("pivot_root", b".", b".")
    _call("umount2", b".", ctypes.c_int(_DETACH))
    os.chdir("/")


def unmount(target: str) -> None:
    """Detach the mount at `target`; it ends when its last user does."""
    _call("umount2", target.encode(), ctypes.c_int(_DETACH))


def die_with_parent(signal: int) -> None:
    """Have the kernel send `signal` to this process when its parent ends.

    A change of user or group clears it: call it last.
    """
    _call("prctl", ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal), *_ZEROS)


def forbid_new_privileges() -> None:
    """Let no program that this process starts gain what it has not (setuid, file capabilities)."""
    _call("prctl", ctypes.c_int(_PR_SET_NO_NEW_PRIVS), ctypes.c_ulong(1), *_ZEROS)


def bound_capabilities(mask: int) -> None:
    """Limit what any later program can hold to the capabilities in `mask`, bit n for number n.

    The inheritable set is emptied too: a root program's capabilities are bounding or inheritable.
    """
    for number in range(64):
        if mask >> number & 1:
            continue
        try:
            _call("prctl", ctypes.c_int(_PR_CAPBSET_DROP), ctypes.c_ulong(number), *_ZEROS)
        except OSError:  # past the last one that this kernel knows
            break
    words = (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _call("capget", header, words)
    words[2] = words[5] = 0
    _call("capset", header, words)

"""`down`: ends a sandbox, living, hanging or dead, and removes what the kernel does not.

The kernel ends processes, mounts, interfaces and rules with the namespaces. What it leaves is the
folder and, as root, the folder in cgroup v2.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from podidentity_sandbox.world import SandboxError, cgroups
from podidentity_sandbox.world.control import ask
from podidentity_sandbox.world.folder import Claim, Folder

_POLITE = 10.0
"""Seconds for a clean end; the supervisor's own time-outs are shorter."""
_FORCED = 5.0


class Found(StrEnum):
    """What there was to take down."""

    RUNNING = "running"
    REMAINS = "remains"
    """Of one that had crashed."""
    NOTHING = "nothing"


def down(folder: Folder) -> Found:
    """End the sandbox, remove all of it and return what it was; raise SandboxError."""
    found = Found.REMAINS
    try:
        claim = folder.claim(make=False)
        if claim is None:
            found = Found.RUNNING
            _end_running(folder)
            claim = folder.claim(make=False)
    except FileNotFoundError:
        cgroups.remove(folder.path)
        return Found.NOTHING
    if claim is None:
        raise SandboxError(f"{folder.path} is still locked. Another `up` or `down` is at work")
    try:
        remove(claim)
    finally:
        claim.release()
    return found


def end(claim: Claim, daemon: subprocess.Popen[bytes] | None) -> None:
    """Undo an `up` that failed half way: its process, if it has one, and the folder."""
    if daemon is not None:
        _kill(daemon.pid)
        daemon.wait()
    remove(claim)
    claim.release()


def remove(claim: Claim) -> None:
    """Remove what a sandbox without processes left."""
    cgroups.remove(claim.folder.path)
    claim.remove()


def names(base: Path) -> list[str]:
    """Return the names of all sandboxes of a person, living or not."""
    if not base.is_dir():
        return []
    return sorted(entry.name for entry in base.iterdir() if entry.is_dir())


def _end_running(folder: Folder) -> None:
    """End a living sandbox: by order, and by force when it does not obey."""
    pid = folder.holder()
    if pid is None:
        raise SandboxError(f"the sandbox {folder.name!r} is just starting. Try again")
    try:
        outer = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with suppress(OSError, ValueError):
            ask(folder.control, {"op": "down"}, seconds=_POLITE / 2)
            if _ended(outer, _POLITE):
                return
        _kill(pid)
        if not _ended(outer, _FORCED):
            raise SandboxError(f"process {pid} cannot be ended. See /proc/{pid}/status")
    finally:
        os.close(outer)


def _kill(outer: int) -> None:
    """Kill process 1 of the namespace, the child of `unshare`, which then ends by itself.

    In this order `unshare` outlives every process of the namespace, so that its end says that all
    are gone: the kernel lets process 1 end last.
    """
    for child in children(outer) or [outer]:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def children(parent: int) -> list[int]:
    """Return the processes whose parent is `parent` (proc_pid_stat(5), fields 1 and 4)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            stat = (entry / "stat").read_text()
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def _ended(pidfd: int, seconds: float) -> bool:
    """Wait until a process ended; its descriptor is readable then (pidfd_open(2))."""
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))

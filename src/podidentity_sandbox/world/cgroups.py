"""The sandbox's folder in cgroup v2, where the kernel notes which pod a socket belongs to.

Made by root only; a person without root has no folder there to call their own, and callers are then
proved by network namespace alone.
"""

from __future__ import annotations

import hashlib
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from podidentity_sandbox.world import SandboxError

_PATIENCE_MS = 5000
_MOUNTS = Path("/proc/self/mounts")


def mount_point(mounts: str) -> Path | None:
    """Return where cgroup v2 is mounted, by the text of /proc/self/mounts (proc_mounts(5)).

    /sys/fs/cgroup where it stands alone, a folder below it where v1 is used beside it.
    """
    for line in mounts.splitlines():
        _, place, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(place.replace("\\040", " "))
    return None


def root_of(folder: Path) -> Path | None:
    """Return the cgroup of the sandbox in `folder`, made or not; None without cgroup v2.

    Named by the whole path: sandboxes of one name in two places must not end each other.
    """
    mounted = mount_point(_MOUNTS.read_text())
    place = hashlib.sha256(bytes(folder)).hexdigest()[:8]
    return None if mounted is None else mounted / f"podidentity-sandbox-{folder.name}-{place}"


def make(folder: Path) -> str:
    """Make the folder and return its path; "" where there is no cgroup v2 to write to."""
    root = root_of(folder)
    if root is None:
        return ""
    remove(folder)
    try:
        root.mkdir()
    except OSError:
        return ""
    return str(root)


def remove(folder: Path) -> None:
    """Remove the folder with all below it, and end what may still live in it."""
    root = root_of(folder)
    if root is None or not root.is_dir():
        return
    _end_processes(root)
    for each in _deepest_first(root):
        with suppress(FileNotFoundError):
            each.rmdir()


def _end_processes(root: Path) -> None:
    """Kill all in a cgroup and wait until it is empty.

    The kernel tells a change of `cgroup.events` as POLLPRI:
    https://docs.kernel.org/admin-guide/cgroup-v2.html#un-populated-notification
    """
    with (root / "cgroup.events").open() as events:
        changes = select.poll()
        changes.register(events, select.POLLPRI)
        (root / "cgroup.kill").write_text("1")
        while "populated 1" in events.read():
            if not changes.poll(_PATIENCE_MS):
                raise SandboxError(f"processes in {root} do not end; look at its cgroup.procs")
            events.seek(0)


def _deepest_first(folder: Path) -> Iterator[Path]:
    for child in folder.iterdir():
        if child.is_dir():
            yield from _deepest_first(child)
    yield folder

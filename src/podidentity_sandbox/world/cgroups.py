"""The sandbox's cgroups, which outlive its processes: made at `up`, removed at `down`.

In cgroup v2 the kernel notes which pod a socket belongs to. The memory controller, which enforces
the limits of containers, is in v2 as well, or in v1 on machines that have both. Made by root only:
a person without root has no folder there to call their own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from podidentity_sandbox.node.cgroups import allow_memory, end_processes, mounted, remove_tree
from podidentity_sandbox.world import SandboxError

_MOUNTS = Path("/proc/self/mounts")


def hierarchies(mounts: str) -> tuple[Path | None, Path | None]:
    """Return where cgroup v2 is, and the hierarchy of v1 with the memory controller.

    `mounts` is the text of /proc/self/mounts (proc_mounts(5)).

    cgroup v2 is at /sys/fs/cgroup where it stands alone, in a folder below it beside v1.
    """
    v2 = memory = None
    for each in mounted(mounts):
        if each.kind == "cgroup2":
            v2 = v2 or each.place
        elif "memory" in each.controllers.split(","):
            memory = memory or each.place
    return v2, memory


def roots_of(folder: Path) -> list[Path]:
    """Return the cgroups of the sandbox in `folder`, made or not, in each hierarchy.

    Named by the whole path: sandboxes of one name in two places must not end each other.
    """
    place = hashlib.sha256(bytes(folder)).hexdigest()[:8]
    name = f"podidentity-sandbox-{folder.name}-{place}"
    return [each.place / name for each in mounted(_MOUNTS.read_text())]


def make(folder: Path) -> tuple[str, str]:
    """Make the sandbox's cgroups; return their folders, "" for one that cannot be had.

    The first is in v2, which names whose a socket is; the second where the memory controller is.
    """
    remove(folder)
    wanted = hierarchies(_MOUNTS.read_text())
    made = [root for root in roots_of(folder) if root.parent in wanted and _made(root)]
    v2 = next((root for root in made if (root / "cgroup.controllers").exists()), None)
    if v2 is not None and _has_memory(v2):
        return str(v2), str(v2)
    v1 = next((root for root in made if root != v2), None)
    return str(v2 or ""), str(v1 or "")


def _made(root: Path) -> bool:
    try:
        root.mkdir()
    except OSError:
        return False
    return True


def _has_memory(root: Path) -> bool:
    """Hand the memory controller of v2 down to the sandbox; say whether that could be done."""
    try:
        if "memory" not in (root.parent / "cgroup.controllers").read_text().split():
            return False
        allow_memory(root.parent)
        allow_memory(root)
    except OSError:
        return False
    return True


def remove(folder: Path) -> None:
    for root in roots_of(folder):
        if root.is_dir():
            end_processes(root)
            try:
                remove_tree(root)
            except OSError as error:
                why = f"processes in {root} do not end; look at its cgroup.procs"
                raise SandboxError(why) from error

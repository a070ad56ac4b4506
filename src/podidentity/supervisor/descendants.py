"""Finds the processes that a worker has started, and that may pass for others or outlive it.

An attacker in a worker can start processes of the supervisor's user. The supervisor adopts those
whose parents end (`privileges.adopt_orphans`), so it is an ancestor of each. It is no ancestor of a
new agent or of a kubelet's probe, which are started from outside. Processes of other containers are
not visible here at all: the kernel reports their pid as 0.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from podidentity.local_sockets import Untrusted


def check_outsider(pid: int, what: str) -> None:
    """Raise Untrusted if a process is a descendant of this one, or has ended."""
    own, each = os.getpid(), pid
    while each:
        if each == own:
            raise Untrusted(f"{what} is process {pid}, which a worker has started")
        try:
            each = _parent_of(each)
        except (OSError, ValueError, IndexError) as error:
            raise Untrusted(f"{what} is process {pid}, which has ended") from error


def children() -> set[int]:
    """Return the children of this process, which has one thread; none if the kernel hides them.

    Needs CONFIG_PROC_CHILDREN, as all distributions have it.
    """
    with suppress(OSError):
        own = os.getpid()
        return {int(pid) for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split()}
    return set()


def _parent_of(pid: int) -> int:
    # The name of the program stands in brackets, and may hold any character: proc_pid_stat(5).
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

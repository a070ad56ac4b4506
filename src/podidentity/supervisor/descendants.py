"""The processes that come from a worker: they may not pass for anybody else, nor outlive it.

Whoever has taken a worker can make processes of the same user as the supervisor. The supervisor
adopts those whose parents end (`privileges.adopt_orphans`), so each of them has this process among
its ancestors, whatever it does. A new agent and a probe of the kubelet have not: they are started
from outside, and those of another container are not even visible here (pid 0).
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

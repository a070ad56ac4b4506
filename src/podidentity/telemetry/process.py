"""What this process takes of its machine, as Linux tells it.

https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import os
from pathlib import Path

_SELF = Path("/proc/self")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_START = 19
"""Field 22 of stat, counted from behind the name: ticks from boot to start."""


def cpu_seconds() -> float:
    """Return the CPU time used, in seconds."""
    return sum(os.times()[:2])


def memory_bytes() -> float:
    """Return the resident memory."""
    return int((_SELF / "statm").read_text().split()[1]) * _PAGE


def open_descriptors() -> float:
    """Return how many files and sockets are open."""
    return len(os.listdir(_SELF / "fd"))  # noqa: PTH208 - names are not needed, only how many


def started() -> float:
    """Return when it was started, in seconds since 1970."""
    behind_name = (_SELF / "stat").read_text().rpartition(")")[2].split()
    boot = next(
        line.split()[1]
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith("btime")
    )
    return int(boot) + int(behind_name[_START]) / _TICKS

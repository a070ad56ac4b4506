"""What this process takes of its machine, as Linux tells it, and what it gives back.

The C library keeps what is freed between what is in use, for what comes next. After its rules are
set that is a sixth of what `net` holds, because libnftables reads and writes them as text.

https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from podidentity.core.ports import Clock
    from podidentity.telemetry.metrics import Registry, Samples


SETTLED_SECONDS = 1.0
"""After the start, when the first lists and rules are there."""
EVERY_SECONDS = 10.0
"""Between two times that free memory is given back."""

_SELF = Path("/proc/self")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_START = 19
"""Field 22 of stat, counted from behind the name: ticks from boot to start."""

# Only glibc has it; others, as musl, keep less.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def cpu_seconds() -> float:
    return sum(os.times()[:2])


def memory_bytes() -> float:
    return int((_SELF / "statm").read_text().split()[1]) * _PAGE


def open_descriptors() -> float:
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


def add_process(registry: Registry) -> None:
    """Show what the process takes, by the names that every Prometheus client uses."""

    def one(read: Callable[[], float]) -> Callable[[], Samples]:
        return lambda: [((), read())]

    registry.counter_callback(
        "process_cpu_seconds_total", "CPU time used, in seconds", one(cpu_seconds)
    )
    gauge = registry.gauge
    gauge("process_resident_memory_bytes", "Resident memory", one(memory_bytes))
    gauge("process_open_fds", "Files and sockets that are open", one(open_descriptors))
    gauge("process_start_time_seconds", "When it was started, in seconds since 1970", one(started))


async def keep_small(clock: Clock) -> None:
    """Give free memory back soon after the start and again and again, until cancelled."""
    await clock.sleep(SETTLED_SECONDS)
    while True:
        give_back()
        await clock.sleep(EVERY_SECONDS)


def give_back() -> None:
    """Give free memory back to the machine; it takes 0.1 to 0.6 ms."""
    if _trim is not None:
        _trim(0)

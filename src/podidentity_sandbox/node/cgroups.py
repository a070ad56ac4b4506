"""The cgroups of a node's pods: whose a socket is, and how much memory a container may take.

Two trees, which are one where cgroup v2 has the memory controller: in v2 the product finds whose
a socket is; in the tree with the memory controller, v2's or v1's, limits are enforced. A tree that
may not be written, as without root, is none of a node's, and then nothing here does anything in it.

Limits are set as a kubelet sets them: the container's own, and for the pod their sum if each of its
containers has one (ResourceConfigForPod in pkg/kubelet/cm/helpers_linux.go). At a limit the kernel
ends all of a container in v2 (memory.oom.group, since Kubernetes 1.28), one process of it in v1.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_LONGEST_DEATH = 60.0
"""Seconds that the kernel may take to end a process it has killed; a busy machine needs many."""
_V1 = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"}
_V1 |= {"net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc"}
_GONE = (errno.ENOENT, errno.ENODEV)
"""Of a cgroup that a container runtime has removed: before its file was opened, or after."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A hierarchy of cgroups: where it is mounted, and how it can be mounted once more."""

    place: Path
    kind: str
    """`cgroup2`, or `cgroup` of v1."""
    controllers: str
    """Of v1, as options of mount(8): `cpu,cpuacct`, or `none,name=systemd`."""


def mounted(mounts: str) -> Iterator[Hierarchy]:
    """Yield each hierarchy in the text of /proc/self/mounts (proc_mounts(5))."""
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split(" ")
        if kind in {"cgroup", "cgroup2"}:
            named = [each for each in options.split(",") if each.startswith("name=")]
            found = ["none", *named] if named else _V1.intersection(options.split(","))
            yield Hierarchy(Path(place.replace("\\040", " ")), kind, ",".join(found))


class PodCgroups:
    """The cgroups of one node's pods; a group is named by its path below the top of each tree."""

    def __init__(self, trees: Sequence[Path], memory: Path | None) -> None:
        """`memory` is the one of the trees that has the memory controller."""
        self._trees = trees
        self._memory = memory

    def open(self) -> None:
        """Make the tops of the trees anew; what an earlier kubelet left there goes."""
        self.close()
        for tree in self._trees:
            tree.mkdir(parents=True)

    def make_pod(self, group: str, limits: Collection[int]) -> None:
        """Make a pod's. `limits`: bytes of each container, 0 for one that has no limit."""
        for tree in self._trees:
            (tree / group).mkdir(parents=True, exist_ok=True)
        if self._memory is None:
            return
        own = self._memory / group
        if is_v2(own):
            for each in (*reversed(own.parents), own):
                if each.is_relative_to(self._memory):
                    allow_memory(each)
        if limits and all(limits):
            _limit(own, sum(limits))

    def make_container(self, group: str, limit: int) -> tuple[str, ...]:
        """Make those of a container of at most `limit` bytes (0: no limit); return its folders."""
        folders = [tree / group for tree in self._trees]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        if self._memory is not None and limit:
            own = self._memory / group
            _limit(own, limit)
            if is_v2(own):
                (own / "memory.oom.group").write_text("1")
        return tuple(map(str, folders))

    def out_of_memory(self, group: str) -> int:
        """Return how many processes of a container the kernel has ended for want of memory.

        `group` may be a pattern.
        """
        for own in self._memory.glob(group) if self._memory is not None else ():
            events = own / ("memory.events" if is_v2(own) else "memory.oom_control")
            with suppress(FileNotFoundError):
                for line in events.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def remove(self, group: str) -> None:
        """Remove a group and all below it, whose processes have all ended; raise OSError."""
        for tree in self._trees:
            remove_tree(tree / group)

    def close(self) -> None:
        self.remove("")


def allow_memory(folder: Path) -> None:
    """Let the cgroups below `folder` have the memory controller (v2)."""
    (folder / "cgroup.subtree_control").write_text("+memory")


def remove_tree(folder: Path) -> None:
    """Remove a cgroup and all below it; processes that are being ended there are waited for.

    Raises OSError (EBUSY) if one does not end.
    """
    for each in _deepest_first(folder):
        _remove(each)


def end_processes(folder: Path) -> None:
    if is_v2(folder):
        (folder / "cgroup.kill").write_text("1")
        return
    for each in _deepest_first(folder):
        with _may_be_gone():
            for pid in (each / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def is_v2(folder: Path) -> bool:
    return (folder / "cgroup.controllers").exists()


def _limit(folder: Path, size: int) -> None:
    if is_v2(folder):
        (folder / "memory.max").write_text(str(size))
        with suppress(FileNotFoundError):  # a kernel without swap
            (folder / "memory.swap.max").write_text("0")
        return
    (folder / "memory.limit_in_bytes").write_text(str(size))


def _remove(folder: Path) -> None:
    """Remove one cgroup once it is empty.

    The kernel tells the end of the last process in v2, by POLLPRI of `cgroup.events`; v1 tells
    nobody, so there it is tried until it is so.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#un-populated-notification
    """
    until = time.monotonic() + _LONGEST_DEATH
    with _may_be_gone():
        if is_v2(folder):
            with (folder / "cgroup.events").open() as events:
                changes = select.poll()
                changes.register(events, select.POLLPRI)
                while "populated 1" in events.read() and changes.poll(_LONGEST_DEATH * 1000):
                    events.seek(0)
        while True:
            try:
                folder.rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY or is_v2(folder) or time.monotonic() > until:
                    raise
                time.sleep(0.001)
            else:
                return


def _deepest_first(folder: Path) -> Iterator[Path]:
    below: list[Path] = []
    with _may_be_gone():
        below = [child for child in folder.iterdir() if child.is_dir()]
    for each in below:
        yield from _deepest_first(each)
    yield folder


@contextmanager
def _may_be_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise

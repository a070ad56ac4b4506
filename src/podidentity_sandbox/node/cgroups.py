"""The cgroups of a node's pods: whose a socket is, and how much memory a container may take.

    NODE/kubepods/burstable/podUID/CONTAINER      named as a kubelet names them (cgroupfs driver)

Two trees, which are one where cgroup v2 has the memory controller: in v2 the product finds whose
a socket is; in the tree with the memory controller, v2's or v1's, limits are enforced. A tree that
may not be written, as without root, is "" in the plan, and then nothing here does anything in it.

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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_LONGEST_DEATH = 5.0
"""Seconds that the kernel may take to end a process it has killed."""


class PodCgroups:
    """The cgroups of one node."""

    def __init__(self, sockets: str, memory: str, node: str) -> None:
        """Take the sandbox's folders in cgroup v2 and in the tree with the memory controller."""
        self._trees = [Path(root, node) for root in dict.fromkeys((sockets, memory)) if root]
        self._memory = Path(memory, node) if memory else None

    def open(self) -> None:
        """Remove the remains of an earlier kubelet, and make the folder of the node's pods."""
        for tree in self._trees:
            remove_tree(tree)
            self._make(tree, _pods(tree))

    def pod(self, uid: str, limits: Mapping[str, int]) -> None:
        """Make the cgroups of a pod. `limits`: bytes by container, those that have a limit none."""
        for tree in self._trees:
            self._make(tree, _pods(tree) / f"pod{uid}")
        if self._memory is not None and limits and all(limits.values()):
            _limit(_pods(self._memory) / f"pod{uid}", sum(limits.values()))

    def container(self, uid: str, container: str, limit: int) -> tuple[str, ...]:
        """Make the cgroups of a container of at most `limit` bytes (0: no limit); return them."""
        folders = [_pods(tree) / f"pod{uid}" / container for tree in self._trees]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        if self._memory is not None and limit:
            own = _pods(self._memory) / f"pod{uid}" / container
            _limit(own, limit)
            if _is_v2(own):
                (own / "memory.oom.group").write_text("1")
        return tuple(map(str, folders))

    def out_of_memory(self, uid: str, container: str) -> int:
        """Return how many processes of a container the kernel has ended for want of memory."""
        if self._memory is None:
            return 0
        own = _pods(self._memory) / f"pod{uid}" / container
        events = own / ("memory.events" if _is_v2(own) else "memory.oom_control")
        try:
            lines = events.read_text().splitlines()
        except FileNotFoundError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def remove(self, uid: str) -> None:
        """Remove the cgroups of a pod, whose processes have all ended."""
        for tree in self._trees:
            remove_tree(_pods(tree) / f"pod{uid}")

    def close(self) -> None:
        """Remove the node's; its processes have all ended."""
        for tree in self._trees:
            remove_tree(tree)

    def _make(self, tree: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if tree == self._memory and _is_v2(tree):
            for each in (*reversed(folder.parents), folder):
                if each.is_relative_to(tree):
                    allow_memory(each)


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
    """Kill every process of a cgroup and of those below it."""
    if _is_v2(folder):
        (folder / "cgroup.kill").write_text("1")
        return
    for each in _deepest_first(folder):
        for pid in (each / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _pods(tree: Path) -> Path:
    return tree / "kubepods" / "burstable"


def _is_v2(folder: Path) -> bool:
    return (folder / "cgroup.controllers").exists()


def _limit(folder: Path, size: int) -> None:
    if _is_v2(folder):
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
    if _is_v2(folder):
        _await_empty(folder)
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or _is_v2(folder) or time.monotonic() > until:
                raise
            time.sleep(0.001)
        else:
            return


def _await_empty(folder: Path) -> None:
    with (folder / "cgroup.events").open() as events:
        changes = select.poll()
        changes.register(events, select.POLLPRI)
        while "populated 1" in events.read() and changes.poll(_LONGEST_DEATH * 1000):
            events.seek(0)


def _deepest_first(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for child in list(folder.iterdir()):
        if child.is_dir():
            yield from _deepest_first(child)
    yield folder

"""The cgroups of a node's pods, named as a kubelet names them (cgroupfs driver).

The product finds in such a name whose a socket is. `plan.cgroup_root` is "" where there is no
cgroup v2 that may be written, as without root; then nothing here does anything.
"""

from __future__ import annotations

import select
from contextlib import suppress
from pathlib import Path

_LONGEST_DEATH = 2000  # milliseconds


class PodCgroups:
    """The cgroups of one node."""

    def __init__(self, root: str, node: str) -> None:
        self._node = Path(root, node) if root else None

    def open(self) -> None:
        """Remove what an earlier kubelet left, and make the folder of the node's pods."""
        if self._node is not None:
            _remove(self._node)
            self._pods.mkdir(parents=True)

    def container(self, uid: str, container: str) -> str:
        """Make the cgroup of a container of the pod `uid`; return its folder, or ""."""
        if self._node is None:
            return ""
        folder = self._pods / f"pod{uid}" / container
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def remove(self, uid: str) -> None:
        """Remove the cgroups of a pod, whose processes have all ended."""
        if self._node is not None:
            _remove(self._pods / f"pod{uid}")

    def close(self) -> None:
        """Remove the node's; its processes have all ended."""
        if self._node is not None:
            _remove(self._node)

    @property
    def _pods(self) -> Path:
        assert self._node is not None  # noqa: S101 - asked only where there are cgroups
        return self._node / "kubepods" / "burstable"


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        for child in folder.iterdir():
            if child.is_dir():
                _remove(child)
        _await_empty(folder)
        folder.rmdir()


def _await_empty(folder: Path) -> None:
    """Wait for processes that an earlier kubelet's death has killed, and not yet ended."""
    with (folder / "cgroup.events").open() as events:
        changes = select.poll()
        changes.register(events, select.POLLPRI)
        while "populated 1" in events.read() and changes.poll(_LONGEST_DEATH):
            events.seek(0)

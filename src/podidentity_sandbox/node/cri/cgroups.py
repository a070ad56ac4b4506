"""The cgroups of a node's pods, named and limited as a kubelet does it with each of its drivers.

    cgroupfs   /kubepods/burstable/podUID/CONTAINER
    systemd    /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/….scope

The kubelet makes the pod's, the container runtime those of containers below it. With the systemd
driver systemd makes both; there is none here, and `runtime.sh` beside this page lays them out.
Source: pkg/kubelet/cm/cgroup_manager_linux.go and qos_container_manager_linux.go of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podidentity_sandbox.node.cgroups import allow_memory, remove_tree
from podidentity_sandbox.node.spec import memory_limit

TREE = Path("/sys/fs/cgroup")
"""cgroup v2 as the node sees it: its own cgroup is the top."""
MEMORY_V1 = Path("/run/cgroup-memory")
"""The memory controller, on a machine that has it in v1."""


def quality_of(spec: Mapping[str, Any]) -> str:
    """Return a pod's class of service; the same as GetPodQOS of pkg/apis/core/v1/helper/qos."""
    given = [
        each.get("resources") or {}
        for each in (*(spec.get("initContainers") or ()), *spec["containers"])
    ]
    if not any(each.get("requests") or each.get("limits") for each in given):
        return "besteffort"
    guaranteed = all(
        {"cpu", "memory"} <= set(limits := each.get("limits") or {})
        and {**limits, **(each.get("requests") or {})} == limits
        for each in given
    )
    return "guaranteed" if guaranteed else "burstable"


def cgroup_of(uid: str, quality: str, driver: str) -> str:
    """Return the path of a pod's cgroup; `uid` of a static pod is its config's hash."""
    below = "" if quality == "guaranteed" else quality
    if driver == "cgroupfs":
        return "/".join(filter(None, ("/kubepods", below, f"pod{uid}")))
    names = ["kubepods", *filter(None, [below]), f"pod{uid.replace('-', '_')}"]
    return "".join(f"/{'-'.join(names[: n + 1])}.slice" for n in range(len(names)))


class NodeCgroups:
    """Makes and removes the cgroups of pods."""

    def __init__(self) -> None:
        self._trees = [TREE, *([MEMORY_V1] if MEMORY_V1.is_mount() else [])]
        self._limits = MEMORY_V1 if MEMORY_V1.is_mount() else TREE

    def make(self, path: str, containers: list[Mapping[str, Any]]) -> None:
        """Make a pod's; its limit of memory is that of its containers, if each has one."""
        for tree in self._trees:
            (tree / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        limits = [memory_limit(each) for each in containers]
        if not all(limits):
            return
        folder = self._limits / path.lstrip("/")
        if self._limits is MEMORY_V1:
            (folder / "memory.limit_in_bytes").write_text(str(sum(limits)))
            return
        for each in (*reversed(folder.parents), folder):
            if each.is_relative_to(TREE) and each != folder:
                allow_memory(each)
        (folder / "memory.max").write_text(str(sum(limits)))

    def out_of_memory(self, path: str, container: str) -> bool:
        """Whether the kernel has ended a process of a container for want of memory, in v1.

        In v2 the container runtime is told, and tells the kubelet.
        """
        if self._limits is not MEMORY_V1:
            return False
        for own in (self._limits / path.lstrip("/")).glob(f"*{container}*/memory.oom_control"):
            return any(
                line.startswith("oom_kill ") and line != "oom_kill 0"
                for line in own.read_text().splitlines()
            )
        return False

    def remove(self, path: str) -> None:
        """Remove a pod's, whose processes have all ended; raise OSError."""
        for tree in self._trees:
            remove_tree(tree / path.lstrip("/"))

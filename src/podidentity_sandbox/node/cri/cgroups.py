"""The cgroups of a node's pods, named as a kubelet names them with each of its drivers.

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

from podidentity_sandbox.node.cgroups import PodCgroups

TREE = Path("/sys/fs/cgroup")
"""cgroup v2 as the node sees it: its own cgroup is the top."""
MEMORY_V1 = Path("/run/cgroup-memory")
"""The memory controller, on a machine that has it in v1."""


def cgroups_of_node() -> PodCgroups:
    """Return the cgroups of this node's pods, by the mounts that its first process made."""
    if MEMORY_V1.is_mount():
        return PodCgroups([TREE, MEMORY_V1], MEMORY_V1)
    return PodCgroups([TREE], TREE)


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

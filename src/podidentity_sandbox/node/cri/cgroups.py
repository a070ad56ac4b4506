"""The cgroups of a node's pods, named as a kubelet names them with each of its drivers.

    cgroupfs   /kubepods/burstable/podUID/CONTAINER
    systemd    /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/….scope

The kubelet makes the pod's, the container runtime those of containers below it. With the systemd
driver systemd makes both; there is none here, and `runtime.sh` beside this page lays them out.
Source: pkg/kubelet/cm/cgroup_manager_linux.go and qos_container_manager_linux.go of Kubernetes.
"""

from __future__ import annotations

from pathlib import Path

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


def cgroup_of(uid: str, quality: str, driver: str) -> str:
    """Return the path of a pod's cgroup; `uid` of a static pod is its config's hash.

    `quality` is the class in the pod's status, in small letters, as a kubelet takes it from there:
    https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/apis/core/v1/helper/qos/qos.go
    """
    below = "" if quality == "guaranteed" else quality
    if driver == "cgroupfs":
        return "/".join(filter(None, ("/kubepods", below, f"pod{uid}")))
    names = ["kubepods", *filter(None, [below]), f"pod{uid.replace('-', '_')}"]
    return "".join(f"/{'-'.join(names[: n + 1])}.slice" for n in range(len(names)))

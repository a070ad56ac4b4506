"""Finds the pod of the cgroup id that the kernel reports with a socket.

The id is a file handle of the cgroup's directory, so the kernel can open it and tell its path
(open_by_handle_at(2), which needs CAP_DAC_READ_SEARCH in the initial user namespace). It is opened
each time, so that a cgroup which is removed is noticed at once. Only its name is remembered: in the
v2 tree a directory cannot be renamed, and its id belongs to no other until the next boot (kernfs
counts ids up, in 64 bits).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import struct
from pathlib import Path

from podidentity.kernel.sock_diag import Endpoint, SockDiag

_FILEID_KERNFS = 0xFE  # linux/exportfs.h
_HANDLE = struct.Struct("=IiQ")  # struct file_handle: bytes of the id, type, id
_ID_BYTES = 8
_OPENED = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_NAMES = 1024
"""Cgroups whose pods are remembered, some for each pod of a node. A pod may create more."""

# kubepods/burstable/pod<uid>/<container> with the cgroupfs driver,
# kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/… with systemd's,
# which replaces each dash of the uid by an underscore and may add the parent's name as a prefix
# (kubelet-kubepods.slice). Static pods have the 32 digits of their config's hash in place of a uid.
_PODS = re.compile(r"/(?:[a-z]+-)?kubepods(?:\.slice)?(?=/)", re.ASCII)
_QOS = r"(?:/(?:burstable|besteffort|(?:[a-z]+-)?kubepods-(?:burstable|besteffort)\.slice))?"
_POD = re.compile(
    rf"{_QOS}/(?:pod(?P<cgroupfs>[0-9a-f-]{{32,36}})"
    r"|(?:[a-z]+-)?kubepods(?:-burstable|-besteffort)?-pod(?P<systemd>[0-9a-f_]{32,36})\.slice)"
    r"(?:/|$)",
    re.ASCII,
)

_libc = ctypes.CDLL(None, use_errno=True)


def pod_of(path: str) -> str:
    """Return the pod's uid in a cgroup's path, or a static pod's config hash; "" if no pod's."""
    pods = _PODS.search(path)
    # Only the top of the path counts, which the kubelet made: a pod may create cgroups below it.
    found = _POD.match(path, pods.end()) if pods else None
    if found is None:
        return ""
    return found["cgroupfs"] or found["systemd"].replace("_", "-")


# Path of a container if the kubelet has the systemd driver and the container runtime cgroupfs:
# /kubepods-besteffort-pod<uid>.slice:cri-containerd:<id>, outside of kubepods.slice.
_MISPLACED = re.compile(r"/(?:[a-z]+-)?kubepods(?:-[a-z]+)?-pod[0-9a-f_]+\.slice", re.ASCII)

_OTHERWISE = "or choose --attestation=namespace, a weaker proof"


def doubt_of(path: str, mount: str, *, is_part: bool, shows_pods: bool) -> str:
    """Return why cgroups do not identify this node's pods, with the next step; "" if they do.

    `path` is the cgroup of this process in the tree at `mount`, which may be a part of the node's
    tree (`is_part`). If this process runs in a pod and has a pod's cgroup, the other pods have one,
    too. If it is a service of the node, the tree must contain the pods' cgroups (`shows_pods`).
    """
    if pod_of(path):
        return ""
    if path == mount and is_part:
        return f"{mount} is this container's own cgroup: mount the node's /sys/fs/cgroup there"
    if _MISPLACED.search(path):
        return (
            f"this container is in {path}, in no pod's cgroup: the kubelet's cgroup driver is "
            "systemd and the container runtime's is not; give both the same (containerd: "
            f"SystemdCgroup = true), {_OTHERWISE}"
        )
    if shows_pods:
        return ""
    return (
        f"this process is in {path}, in no pod's cgroup of v2, and {mount} holds no kubepods: "
        f"give the node cgroup v2, {_OTHERWISE}"
    )


class PodCgroups:
    """Finds the pods of cgroups in the v2 tree at `root`, or at `root/unified` (hybrid mode).

    Call `check` first; `pod` works only if it found no problem.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mount = ""
        self._fd = -1
        self._pods: dict[int, str] = {}
        self.problem = "not checked yet"
        """Why cgroups cannot be looked up, with the next step; "" if they can."""

    def check(self) -> str:
        """Return `problem`, after another check if there is one: what was missing may have come."""
        if self.problem:
            try:
                self.problem = self._look()
            except OSError as error:
                self.problem = str(error.strerror)
        return self.problem

    def pod(self, cgroup: int) -> str:
        """Return the pod of a cgroup as `pod_of` does; raise OSError, ESTALE for a removed one."""
        if self.problem:
            raise OSError(errno.EOPNOTSUPP, self.problem)
        opened = self._open(cgroup)
        try:
            pod = self._pods.get(cgroup)
            if pod is None:
                if len(self._pods) >= _MOST_NAMES:
                    self._pods.clear()
                pod = self._pods[cgroup] = pod_of(_path(opened))
        finally:
            os.close(opened)
        return pod

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> str:
        if self._fd < 0:
            mount = _tree_of_v2(self._root)
            if mount is None:
                return (
                    f"no cgroup v2 at {self._root}: mount the node's /sys/fs/cgroup there; "
                    f"on a node with cgroup v1 only, {_OTHERWISE}"
                )
            self._fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._mount = str(mount)
        own = _own_cgroup()
        if not own:
            return f"the kernel does not tell a socket's cgroup (Linux 5.7 does): {_OTHERWISE}"
        mount = Path(self._mount)
        # The root of a hierarchy has no type (https://docs.kernel.org/admin-guide/cgroup-v2.html).
        is_part = (mount / "cgroup.type").exists()
        shows_pods = any(mount.glob("*kubepods*")) or any(mount.glob("*.slice/*kubepods.slice"))
        opened = self._open(own)
        try:
            path = _path(opened)
        finally:
            os.close(opened)
        return doubt_of(path, self._mount, is_part=is_part, shows_pods=shows_pods)

    def _open(self, cgroup: int) -> int:
        """Return a descriptor of the cgroup; raise OSError, ESTALE if it is removed."""
        handle = _HANDLE.pack(_ID_BYTES, _FILEID_KERNFS, cgroup)
        fd: int = _libc.open_by_handle_at(self._fd, handle, _OPENED)
        if fd < 0:
            code = ctypes.get_errno()
            why = os.strerror(code)
            if code == errno.EPERM:
                why += f": give the process CAP_DAC_READ_SEARCH, as root of the node, {_OTHERWISE}"
            raise OSError(code, f"cannot look up cgroup {cgroup}: {why}")
        return fd


def _path(opened: int) -> str:
    return os.readlink(f"/proc/self/fd/{opened}")  # noqa: PTH115 - no Path takes a descriptor


def _tree_of_v2(root: Path) -> Path | None:
    for mount in (root, root / "unified"):
        if (mount / "cgroup.controllers").exists():
            return mount
    return None


def _own_cgroup() -> int:
    """Return the cgroup id of this process, taken from a socket: /proc hides it in containers."""
    diag = SockDiag()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            found = diag.find(Endpoint(*listening.getsockname()), Endpoint("0.0.0.0", 0))  # noqa: S104 - no peer
    finally:
        diag.close()
    return found.cgroup if found is not None else 0

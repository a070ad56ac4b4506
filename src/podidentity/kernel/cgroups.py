"""From the cgroup id that the kernel gives with a socket to the pod that the kubelet made it for.

The id is a file handle of the cgroup's directory: the kernel opens it and says its path. Nothing is
searched and nothing remembered, so nothing can be stale, and a stranger's sockets cost no more than
anybody's (open_by_handle_at(2), needs CAP_DAC_READ_SEARCH in the initial user namespace).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from pathlib import Path
from typing import Self

_FILEID_KERNFS = 0xFE  # linux/exportfs.h
_HANDLE = struct.Struct("=IiQ")  # struct file_handle: bytes of the id, type, id
_ID_BYTES = 8

# kubepods/burstable/pod<uid>/<container> with the cgroupfs driver,
# kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/… with systemd, whose
# names have an underscore for each dash of the uid, and may have the parent's name before them
# (kubelet-kubepods.slice). Static pods: 32 digits, their config's hash.
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
    """Return uid, or config hash of a static pod, in a cgroup's path; "" if it is no pod's."""
    pods = _PODS.search(path)
    # Only what the kubelet itself made, at the top: a pod may be let to name cgroups of its own.
    found = _POD.match(path, pods.end()) if pods else None
    if found is None:
        return ""
    return found["cgroupfs"] or found["systemd"].replace("_", "-")


class PodCgroups:
    """Tells whose a cgroup is, through the cgroup v2 tree mounted at `mount`."""

    def __init__(self, mount: Path) -> None:
        self._mount = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @classmethod
    def under(cls, cgroup_root: Path) -> Self | None:
        """Return one for the v2 tree at `cgroup_root`, or at its `unified` (hybrid); or None."""
        for mount in (cgroup_root, cgroup_root / "unified"):
            if (mount / "cgroup.controllers").exists():
                return cls(mount)
        return None

    def pod(self, cgroup: int) -> str:
        """Return the pod of a cgroup as `pod_of` does; raise OSError, ESTALE for a removed one."""
        return pod_of(self._path(cgroup))

    def close(self) -> None:
        """Close the tree."""
        os.close(self._mount)

    def _path(self, cgroup: int) -> str:
        handle = _HANDLE.pack(_ID_BYTES, _FILEID_KERNFS, cgroup)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        fd = _libc.open_by_handle_at(self._mount, handle, flags)
        if fd < 0:
            code = ctypes.get_errno()
            why = os.strerror(code)
            if code == errno.EPERM:
                why += ": give the process CAP_DAC_READ_SEARCH"
            raise OSError(code, f"cannot look up cgroup {cgroup}: {why}")
        try:
            return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - no Path for a hot path
        finally:
            os.close(fd)

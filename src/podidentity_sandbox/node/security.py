"""The rights that a container's program gets by its securityContext."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from podidentity_sandbox.node.spec import ContainerRefused

# In the order of their numbers: include/uapi/linux/capability.h
_ALL = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE"
    " NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO"
    " SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME"
    " SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG"
    " WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
_DEFAULT = (
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW"
    " SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP"
)
"""containerd's: https://github.com/containerd/containerd/blob/main/pkg/oci/spec.go"""
_NAMES = _ALL.split()
_NUMBERS = {name: number for number, name in enumerate(_NAMES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The user, groups and capabilities of a container's program."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: int
    """Bit n for capability n."""
    privileged: bool
    no_new_privileges: bool
    read_only_root: bool


def capability_mask(add: tuple[str, ...], drop: tuple[str, ...]) -> int:
    """Return the default set with these changes, as bits; `ALL` is every one.

    As the runtime does: what is added by name survives `drop: [ALL]`. Raises ContainerRefused.
    """
    added, dropped = (
        {name.upper().removeprefix("CAP_") for name in names} for names in (add, drop)
    )
    unknown = (added | dropped) - set(_NAMES) - {"ALL"}
    if unknown:
        raise ContainerRefused("CreateContainerError", f'unknown capability "{min(unknown)}"')
    held = set(_NAMES) if "ALL" in added else set(_DEFAULT.split())
    held = set() if "ALL" in dropped else held - dropped
    held |= added - {"ALL"}
    return sum(1 << _NUMBERS[name] for name in held)


def user_of_all(spec: Mapping[str, Any]) -> int | None:
    """Return the user of every container of a pod's spec; None where they differ or one is silent.

    FsUserFrom of pkg/volume/util/util.go.
    """
    everyone = (spec.get("securityContext") or {}).get("runAsUser")
    users = {
        (container.get("securityContext") or {}).get("runAsUser", everyone)
        for container in (*(spec.get("initContainers") or ()), *spec["containers"])
    }
    return users.pop() if len(users) == 1 else None


def groups_of(pod: Mapping[str, Any]) -> tuple[int, ...]:
    own = [pod["fsGroup"]] if "fsGroup" in pod else []
    return tuple(sorted({*pod.get("supplementalGroups", ()), *own}))


def rights(pod: Mapping[str, Any], container: Mapping[str, Any]) -> Rights:
    """Return what both `securityContext`s make; the container's wins. Raises ContainerRefused."""
    merged = {**pod, **{key: value for key, value in container.items() if value is not None}}
    capabilities = container.get("capabilities") or {}
    privileged = bool(container.get("privileged"))
    uid = int(merged.get("runAsUser") or 0)
    if merged.get("runAsNonRoot") and uid == 0:
        raise ContainerRefused(
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
        )
    return Rights(
        uid=uid,
        gid=int(merged.get("runAsGroup") or 0),
        groups=groups_of(pod),
        capabilities=(1 << len(_NAMES)) - 1
        if privileged
        else capability_mask(
            tuple(capabilities.get("add") or ()), tuple(capabilities.get("drop") or ())
        ),
        privileged=privileged,
        no_new_privileges=container.get("allowPrivilegeEscalation") is False,
        read_only_root=bool(container.get("readOnlyRootFilesystem")),
    )

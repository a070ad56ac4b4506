"""From a pod's spec to the messages of CRI, as a kubelet maps them: pure.

Source: pkg/kubelet/kuberuntime of Kubernetes, kuberuntime_sandbox_linux.go,
kuberuntime_container_linux.go and security_context.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from podidentity_sandbox.node.rootfs import Bind
from podidentity_sandbox.node.security import groups_of, rights
from podidentity_sandbox.node.spec import ContainerSpec, PodSpec, amount, memory_limit
from podidentity_sandbox.plan import DNS_ADDRESS

Message = dict[str, Any]

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of the pod in the API server that stands for a static pod of a node: its hash."""
USERS = 65536
"""Users of a pod with a user namespace of its own."""

# securityContext.procMount Default: defaultMaskedPaths and defaultReadonlyPaths.
_MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_SEARCH = ("svc.cluster.local", "cluster.local")
_LEAST_SHARES = 2


def sandbox_config(pod: PodSpec, *, cgroup: str, logs: str, first_user: int) -> Message:
    """Return a PodSandboxConfig. `first_user` is where its users begin if it has its own."""
    seccomp = (pod.security.get("seccompProfile") or {}).get("type", "RuntimeDefault")
    return {
        "metadata": {"name": pod.name, "uid": pod.uid, "namespace": pod.namespace, "attempt": 0},
        "hostname": "" if pod.host_network else pod.hostname,
        "log_directory": logs,
        "dns_config": {
            "servers": [DNS_ADDRESS],
            "searches": [f"{pod.namespace}.{_SEARCH[0]}", *_SEARCH],
        },
        "labels": _labels(pod),
        "linux": {
            "cgroup_parent": cgroup,
            "security_context": {
                "namespace_options": namespaces(pod, first_user),
                "seccomp": {"profile_type": seccomp},
                "supplemental_groups": list(groups_of(pod.security)),
            },
        },
    }


def namespaces(pod: PodSpec, first_user: int) -> Message:
    """Return a NamespaceOption."""
    spec = pod.raw["spec"]
    found: Message = {
        "network": "NODE" if pod.host_network else "POD",
        "pid": "NODE" if spec.get("hostPID") else "CONTAINER",
        "ipc": "NODE" if spec.get("hostIPC") else "POD",
    }
    if spec.get("hostUsers") is False:
        mapping = [{"host_id": first_user, "container_id": 0, "length": USERS}]
        found["userns_options"] = {"mode": "POD", "uids": mapping, "gids": mapping}
    return found


def container_config(
    container: ContainerSpec,
    pod: PodSpec,
    *,
    run: int,
    environment: Mapping[str, str],
    command: Sequence[str],
    arguments: Sequence[str],
    binds: Sequence[Bind],
    spaces: Message,
) -> Message:
    """Return a ContainerConfig for the run of this number; raise ContainerRefused.

    `command` and `arguments` are those of the spec, expanded; empty ones are the image's.
    """
    return {
        "metadata": {"name": container.name, "attempt": run},
        "image": {"image": container.image},
        "command": list(command),
        "args": list(arguments),
        "working_dir": "" if container.directory == "/" else container.directory,
        "envs": [{"key": key, "value": value} for key, value in environment.items()],
        "mounts": [_mount(bind) for bind in binds],
        "labels": {**_labels(pod), "io.kubernetes.container.name": container.name},
        "log_path": f"{container.name}/{run}.log",
        "stdin": container.stdin,
        "stdin_once": container.stdin_once,
        "tty": container.tty,
        "linux": {
            "resources": _resources(container.resources),
            "security_context": _security(container, pod, spaces),
        },
    }


def _labels(pod: PodSpec) -> dict[str, str]:
    return {
        "io.kubernetes.pod.name": pod.name,
        "io.kubernetes.pod.namespace": pod.namespace,
        "io.kubernetes.pod.uid": pod.uid,
    }


def _mount(bind: Bind) -> Message:
    return {
        "container_path": bind.target,
        "host_path": bind.source,
        "readonly": bind.read_only,
        "propagation": "PROPAGATION_HOST_TO_CONTAINER" if bind.follow else "PROPAGATION_PRIVATE",
    }


def _resources(given: Mapping[str, Any]) -> Message:
    shares = int(amount(str(given.get("requests", {}).get("cpu", "0"))) * 1024)
    found: Message = {"cpu_shares": max(shares, _LEAST_SHARES)}
    if limit := memory_limit(given):
        found |= {"memory_limit_in_bytes": limit, "memory_swap_limit_in_bytes": limit}
        # All of a container is ended at its limit, since Kubernetes 1.28; of cgroup v2.
        found["unified"] = {"memory.oom.group": "1"}
    return found


def _security(container: ContainerSpec, pod: PodSpec, spaces: Message) -> Message:
    may = rights(pod.security, container.security)
    given = {**pod.security, **container.security}
    capabilities = container.security.get("capabilities") or {}
    seccomp = given.get("seccompProfile") or {}
    found: Message = {
        "namespace_options": spaces,
        "privileged": may.privileged,
        "readonly_rootfs": may.read_only_root,
        "no_new_privs": may.no_new_privileges,
        "supplemental_groups": list(groups_of(pod.security)),
        "capabilities": {
            "add_capabilities": capabilities.get("add") or [],
            "drop_capabilities": capabilities.get("drop") or [],
        },
        "seccomp": {"profile_type": seccomp.get("type", "Unconfined")},
    }
    if not may.privileged:
        found |= {"masked_paths": _MASKED, "readonly_paths": _READ_ONLY}
    if given.get("runAsUser") is not None:
        found["run_as_user"] = {"value": given["runAsUser"]}
        if given.get("runAsGroup") is not None:
            found["run_as_group"] = {"value": given["runAsGroup"]}
    return found

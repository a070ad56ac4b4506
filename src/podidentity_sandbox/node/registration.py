"""The node's own object in the API server."""

from __future__ import annotations

import platform
from datetime import datetime
from typing import Any

from podidentity_sandbox.node.api import MERGE_PATCH, Api, ApiError
from podidentity_sandbox.node.status import stamp
from podidentity_sandbox.plan import NodePlan

_CONFLICT = 409
_VERSION = "v1.32.0-podidentity-sandbox"


def node_object(node: NodePlan, now: datetime, *, kernel: str, machine: str) -> dict[str, Any]:
    """Return the Node, as AKS's kubelet registers an instance of a scale set."""
    when = stamp(now)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    capacity = {"cpu": "2", "memory": "4Gi", "pods": "250"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture,
                "agentpool": "nodepool1",
                "kubernetes.azure.com/agentpool": "nodepool1",
            },
        },
        "spec": {
            "providerID": node.provider_id,
            "podCIDR": node.pod_cidr,
            "podCIDRs": [node.pod_cidr],
        },
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [
                {"type": "InternalIP", "address": node.address},
                {"type": "Hostname", "address": node.name},
            ],
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "kubelet is posting ready status",
                    "lastHeartbeatTime": when,
                    "lastTransitionTime": when,
                }
            ],
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": kernel,
                "osImage": "the machine's own, in a namespace",
                "containerRuntimeVersion": "processes://1",
                "kubeletVersion": _VERSION,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": architecture,
            },
        },
    }


async def register(api: Api, node: NodePlan, now: datetime) -> None:
    """Create the Node, or bring the one that is there up to date; asks until it is done."""
    wanted = node_object(node, now, kernel=platform.release(), machine=platform.machine())
    path = f"/api/v1/nodes/{node.name}"
    try:
        await api.insist(lambda: api.request("POST", "/api/v1/nodes", wanted))
    except ApiError as error:
        if error.status != _CONFLICT:
            raise
        spec = {"metadata": {"labels": wanted["metadata"]["labels"]}, "spec": wanted["spec"]}
        await api.insist(lambda: api.request("PATCH", path, spec, content_type=MERGE_PATCH))
    status = {"status": wanted["status"]}
    await api.insist(
        lambda: api.request("PATCH", f"{path}/status", status, content_type=MERGE_PATCH)
    )

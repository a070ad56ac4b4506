"""Pods that a file on the node describes: static pods, and their mirrors in the API server.

A kubelet knows a static pod by the hash of its manifest, which also names its cgroup. In the API
server a mirror stands for it, which has a uid of its own and the hash in an annotation. Here a pod
runs once its mirror is there; a kubelet would not wait for the API server.
https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Any

import yaml

from podidentity_sandbox.apiserver import ApiRefusal, ApiUnreachable
from podidentity_sandbox.node.api import ApiClient
from podidentity_sandbox.node.cri.requests import MIRROR
from podidentity_sandbox.plan import NodePlan

MANIFESTS = Path("/run/kubelet/manifests")
"""On the node; a kubelet's default is /etc/kubernetes/manifests."""
_LOOK = 0.5
_CONFLICT = 409
_log = logging.getLogger(__name__)


def mirror(manifest: bytes, node: NodePlan, uid: str) -> dict[str, Any]:
    """Return the mirror of the pod in a manifest; `uid` is that of the node's object."""
    pod: dict[str, Any] = yaml.safe_load(manifest)
    digest = hashlib.md5(manifest + node.name.encode(), usedforsecurity=False).hexdigest()
    metadata = pod["metadata"]
    marks = {
        MIRROR: digest,
        "kubernetes.io/config.hash": digest,
        "kubernetes.io/config.source": "file",
    }
    owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": uid, "controller": True}
    return {
        **pod,
        "metadata": {
            **metadata,
            "name": f"{metadata['name']}-{node.name}",
            "namespace": metadata.get("namespace", "default"),
            "annotations": {**(metadata.get("annotations") or {}), **marks},
            "ownerReferences": [owner],
        },
        "spec": {**pod["spec"], "nodeName": node.name},
    }


class StaticPods:
    """Follows the folder of manifests."""

    def __init__(self, api: ApiClient, node: NodePlan) -> None:
        self._api = api
        self._node = node
        self._mirrored: set[Path] = set()

    async def run(self) -> None:
        """Make the mirror of each manifest that comes, for ever."""
        while True:
            for file, manifest in _manifests().items():
                if file not in self._mirrored and await self._made(file, manifest):
                    self._mirrored.add(file)
            await asyncio.sleep(_LOOK)

    async def _made(self, file: Path, manifest: bytes) -> bool:
        try:
            own = await self._api.request("GET", f"/api/v1/nodes/{self._node.name}")
            pod = mirror(manifest, self._node, own["metadata"]["uid"])
            pods = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
            await self._api.request("POST", pods, pod)
        except ApiRefusal as error:
            if error.status != _CONFLICT:
                _log.error("%s: no mirror: %s", file, error)
                return False
        except (ApiUnreachable, yaml.YAMLError, KeyError) as error:
            _log.error("%s: no mirror: %s", file, error)
            return False
        return True


def _manifests() -> dict[Path, bytes]:
    MANIFESTS.mkdir(parents=True, exist_ok=True)
    return {file: file.read_bytes() for file in MANIFESTS.glob("*.yaml")}

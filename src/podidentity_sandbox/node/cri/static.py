"""Pods that a file on the node describes: static pods, and their mirrors in the API server.

A kubelet knows a static pod by the hash of its manifest, which also names its cgroup. In the API
server a mirror stands for it, which has a uid of its own and the hash in an annotation. Here a pod
runs once its mirror is there, and ends once that is gone; a kubelet would not wait for the API
server.
https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
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

    async def run(self) -> None:
        """Make the mirrors as the manifests are, whenever these change, for ever."""
        done: Mapping[Path, bytes] | None = None
        while True:
            manifests = _manifests()
            if manifests != done and await self._mirrored(manifests):
                done = manifests
            await asyncio.sleep(_LOOK)

    async def _mirrored(self, manifests: Mapping[Path, bytes]) -> bool:
        """Delete the mirrors of manifests that are gone, make those that are missing.

        Return whether all are as they must be: the mirror of a changed manifest comes once the one
        before it has ended.
        """
        selector = {"fieldSelector": f"spec.nodeName={self._node.name}"}
        all_done = True
        try:
            own = await self._api.request("GET", f"/api/v1/nodes/{self._node.name}")
            wanted = {}
            for file, manifest in manifests.items():
                try:
                    pod = mirror(manifest, self._node, own["metadata"]["uid"])
                except (yaml.YAMLError, KeyError, TypeError) as error:
                    _log.error("%s: no mirror: %s", file, error)
                    continue
                wanted[_path(pod)] = pod
            for pod in (await self._api.request("GET", "/api/v1/pods", params=selector))["items"]:
                path, digest = _path(pod), (pod["metadata"].get("annotations") or {}).get(MIRROR)
                if digest is None:
                    continue
                if path in wanted and digest == wanted[path]["metadata"]["annotations"][MIRROR]:
                    del wanted[path]
                elif "deletionTimestamp" not in pod["metadata"]:
                    await self._api.request("DELETE", path)
            for path, pod in wanted.items():
                try:
                    await self._api.request("POST", path.rpartition("/")[0], pod)
                except ApiRefusal as error:
                    if error.status != _CONFLICT:
                        _log.error("%s: no mirror: %s", path, error)
                    all_done = False
        except (ApiRefusal, ApiUnreachable) as error:
            _log.error("no mirrors: %s", error)
            return False
        return all_done


def _path(pod: Mapping[str, Any]) -> str:
    return "/api/v1/namespaces/{namespace}/pods/{name}".format(**pod["metadata"])


def _manifests() -> dict[Path, bytes]:
    MANIFESTS.mkdir(parents=True, exist_ok=True)
    found = {}
    for file in MANIFESTS.glob("*.yaml"):
        with suppress(FileNotFoundError):
            found[file] = file.read_bytes()
    return found

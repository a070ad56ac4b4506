"""The node's own object in the API server, its pods, and a task for each pod.

One list, then a watch that resumes where it broke; after 410 a list again. A kubelet that starts
anew knows nothing of before: everything it had started ended with it, and starts again.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.apiserver import MERGE_PATCH, ApiRefusal, ApiUnreachable
from podidentity_sandbox.node.api import ApiClient
from podidentity_sandbox.node.pods import Pod
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.status import stamp
from podidentity_sandbox.plan import NodePlan

# ---- The node's own object in the API server

_log = logging.getLogger(__name__)
_CONFLICT = 409


def node_object(node: NodePlan, version: str, now: datetime) -> dict[str, Any]:
    """Return the Node, as AKS's kubelet of that version registers an instance of a scale set."""
    when, machine = stamp(now), platform.machine()
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
            # Else a real API server speaks SPDY to it: KEP-4006, on by default from 1.37 on.
            "declaredFeatures": ["ExtendWebSocketsToKubelet"],
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [
                {"type": "InternalIP", "address": node.address},
                {"type": "Hostname", "address": node.name},
            ]
            if node.address
            else [],
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
                "kernelVersion": platform.release(),
                "osImage": "the machine's own, in a namespace",
                "containerRuntimeVersion": "processes://1",
                "kubeletVersion": f"v{version}",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": architecture,
            },
        },
    }


def init_taints(text: str) -> list[dict[str, str]]:
    """Return the taints in `KEY=VALUE:EFFECT,…`; the value may be missing."""
    found = []
    for each in filter(None, text.split(",")):
        pair, _, effect = each.rpartition(":")
        key, _, value = pair.partition("=")
        found.append({"key": key, **({"value": value} if value else {}), "effect": effect})
    return found


async def register(api: ApiClient, node: NodePlan, version: str, now: datetime) -> None:
    """Create the Node, or bring the one that is there up to date; asks until it is done.

    Only a new Node has the taints to start with: a kubelet may not change those of one that is
    there.
    """
    wanted = node_object(node, version, now)
    taints = init_taints(node.init_taints)
    new = {**wanted, "spec": {**wanted["spec"], **({"taints": taints} if taints else {})}}
    path = f"/api/v1/nodes/{node.name}"
    try:
        await api.insist(lambda: api.request("POST", "/api/v1/nodes", new))
    except ApiRefusal as error:
        if error.status != _CONFLICT:
            raise
        spec = {"metadata": {"labels": wanted["metadata"]["labels"]}, "spec": wanted["spec"]}
        await api.insist(lambda: api.request("PATCH", path, spec, content_type=MERGE_PATCH))
    await api.insist(lambda: _say_ready(api, node, version, now))


async def _say_ready(api: ApiClient, node: NodePlan, version: str, now: datetime) -> None:
    status = {"status": node_object(node, version, now)["status"]}
    path = f"/api/v1/nodes/{node.name}/status"
    await api.request("PATCH", path, status, content_type=MERGE_PATCH)


# ---- The sign of life
#
# https://kubernetes.io/docs/concepts/architecture/nodes/#heartbeats

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_RENEWED_EVERY, _LEASE_SECONDS = 10.0, 40
_NOT_FOUND = 404


async def show_life(api: ApiClient, node: NodePlan, version: str) -> None:
    """Renew the node's Lease for ever; say again that it is Ready where it was taken for dead."""
    path = f"/api/v1/nodes/{node.name}"
    while True:
        try:
            await _renew(api, node, datetime.now(UTC))
            seen = await api.request("GET", path)
            if not _says_ready(seen):
                await _say_ready(api, node, version, datetime.now(UTC))
        except (ApiRefusal, ApiUnreachable) as error:
            _log.warning("the node's sign of life was not heard: %s", error)
        await asyncio.sleep(_RENEWED_EVERY)


async def _renew(api: ApiClient, node: NodePlan, now: datetime) -> None:
    renewed = {"spec": {"renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}
    path = f"{_LEASES}/{node.name}"
    try:
        await api.request("PATCH", path, renewed, content_type=MERGE_PATCH)
    except ApiRefusal as error:
        if error.status != _NOT_FOUND:
            raise
        owner = await api.request("GET", f"/api/v1/nodes/{node.name}")
        uid = owner["metadata"]["uid"]
        reference = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": uid}
        spec = {"holderIdentity": node.name, "leaseDurationSeconds": _LEASE_SECONDS}
        body = {
            "metadata": {"name": node.name, "ownerReferences": [reference]},
            "spec": {**spec, **renewed["spec"]},
        }
        await api.request("POST", _LEASES, body)


def _says_ready(node: Mapping[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


# ---- The node's pods

_PODS = "/api/v1/pods"
_GONE = 410
_LONGEST_PAUSE = 5.0


class Kubelet:
    """Looks after the pods of one node."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._selector = {"fieldSelector": f"spec.nodeName={services.node.name}"}
        self._pods: dict[str, Pod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause = 0.0
        self.ready = asyncio.Event()
        """Set when the node is registered and its pods are known."""

    def find(self, namespace: str, name: str) -> Pod:
        """Return the pod of that name, the latest if one before it is still ending, or KeyError."""
        for pod in reversed(self._pods.values()):
            if (pod.spec.namespace, pod.spec.name) == (namespace, name):
                return pod
        raise KeyError(name)

    async def run(self) -> None:
        services = self._services
        version = services.plan.kubernetes_version
        try:
            while True:
                # Also after a list is needed anew: the server may have forgotten the node.
                await register(services.api, services.node, version, datetime.now(UTC))
                since = await self._list()
                self.ready.set()
                while since:
                    since = await self._follow(since)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _list(self) -> str:
        """Bring the pods in line with a list; return its resource version."""
        api = self._services.api
        answer = await api.insist(lambda: api.request("GET", _PODS, params=self._selector))
        for raw in answer["items"]:
            self._observe(raw)
        there = {raw["metadata"]["uid"] for raw in answer["items"]}
        for uid in self._pods.keys() - there:
            self._pods[uid].vanish()
        version: str = answer["metadata"]["resourceVersion"]
        return version

    async def _follow(self, version: str) -> str:
        """Follow one watch; return where the next is to begin, or "" for a list."""
        query = {**self._selector, "resourceVersion": version, "allowWatchBookmarks": "true"}
        try:
            async for event in self._services.api.watch(_PODS, query):
                self._pause = 0.0
                raw = event["object"]
                version = raw["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    if (pod := self._pods.get(raw["metadata"]["uid"])) is not None:
                        pod.vanish()
                elif event["type"] != "BOOKMARK":
                    self._observe(raw)
        except ApiRefusal as error:
            if error.status != _GONE:
                await self._back_off(error)
            return ""
        except ApiUnreachable as error:
            await self._back_off(error)
        return version

    async def _back_off(self, error: Exception) -> None:
        self._pause = min(max(self._pause * 2, 0.1), _LONGEST_PAUSE)
        _log.warning("the watch broke, resuming in %.1f s: %s", self._pause, error)
        await asyncio.sleep(self._pause)

    def _observe(self, raw: Mapping[str, Any]) -> None:
        uid = raw["metadata"]["uid"]
        pod = self._pods.get(uid)
        if pod is None:
            pod = self._pods[uid] = Pod(raw, self._services)
            task = asyncio.create_task(self._run_pod(pod))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        pod.observe(raw)

    async def _run_pod(self, pod: Pod) -> None:
        try:
            await pod.run()
        finally:
            self._pods.pop(pod.spec.uid, None)

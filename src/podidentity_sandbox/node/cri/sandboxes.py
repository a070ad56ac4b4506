"""Pods as the container runtime knows them: a network namespace with an address, and a cgroup.

CRI calls them pod sandboxes. The runtime has CNI's plugins attach each to the node's pod network.
"""

from __future__ import annotations

from podidentity_sandbox.node.cri.cgroups import cgroup_of, cgroups_of_node
from podidentity_sandbox.node.cri.client import Cri, CriRefusal
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.node.cri.requests import MIRROR, USERS, Message, sandbox_config
from podidentity_sandbox.node.network import Attachment, NetworkFailed
from podidentity_sandbox.node.spec import PodSpec, memory_limit
from podidentity_sandbox.plan import NodePlan, Plan

_FIRST_USER = 1 << 20
_SHUTDOWN = 20.0


class PodSandboxes:
    """Those of this node."""

    def __init__(self, cri: Cri, plan: Plan, node: NodePlan, options: RuntimeOptions) -> None:
        self._cri = cri
        self._plan = plan
        self._node = node
        self._options = options
        self._cgroups = cgroups_of_node()
        self._configs: dict[str, Message] = {}
        self._users = _FIRST_USER

    async def open(self) -> None:
        """Remove what an earlier kubelet left."""
        for found in (await self._cri.call("ListPodSandbox"))["items"]:
            await self._remove(found["id"])

    def config(self, sandbox: str) -> Message:
        """Return the configuration that the sandbox was made with."""
        return self._configs[sandbox]

    def handler(self, pod: PodSpec) -> str:
        """Return the program that makes a pod's containers: its runtime class names it."""
        return str(pod.raw["spec"].get("runtimeClassName") or self._options.handler)

    def out_of_memory(self, sandbox: str, container: str) -> bool:
        """Whether a container lost a process for want of memory: in v1 its runtime cannot know."""
        return bool(self._cgroups.out_of_memory(f"{self._group(sandbox)}/*{container}*"))

    async def attach(self, pod: PodSpec) -> Attachment:
        """Have a pod's sandbox made, whose id is `namespace`; raise NetworkFailed."""
        # A static pod is known by its manifest's hash; its mirror has another uid.
        own = (pod.raw["metadata"].get("annotations") or {}).get(MIRROR, pod.uid)
        quality = pod.raw["status"]["qosClass"].lower()
        cgroup = cgroup_of(own, quality, self._options.driver)
        logs = self._plan.path / "nodes" / self._node.name / f"{pod.namespace}_{pod.name}_{pod.uid}"
        config = sandbox_config(pod, cgroup=cgroup, logs=str(logs), first_user=self._users)
        self._users += USERS
        try:
            limits = [memory_limit(each.resources) for each in pod.containers]
            self._cgroups.make_pod(cgroup.lstrip("/"), limits)
            made = await self._cri.call(
                "RunPodSandbox", {"config": config, "runtime_handler": self.handler(pod)}
            )
            sandbox: str = made["pod_sandbox_id"]
            self._configs[sandbox] = config
            if pod.host_network:
                return Attachment(address=self._node.address, namespace=sandbox)
            said = await self._cri.call("PodSandboxStatus", {"pod_sandbox_id": sandbox})
        except (CriRefusal, OSError) as error:
            why = f"Failed to create pod sandbox: {error}"
            raise NetworkFailed(why) from error
        return Attachment(address=said["status"]["network"]["ip"], namespace=sandbox)

    async def detach(self, attachment: Attachment) -> None:
        """Have it removed with all its containers, and remove its cgroup."""
        group = self._group(attachment.namespace)
        del self._configs[attachment.namespace]
        try:
            await self._remove(attachment.namespace)
        except CriRefusal as error:
            raise NetworkFailed(f"Failed to remove pod sandbox: {error}") from error
        self._cgroups.remove(group)

    def _group(self, sandbox: str) -> str:
        parent: str = self._configs[sandbox]["linux"]["cgroup_parent"]
        return parent.lstrip("/")

    async def _remove(self, sandbox: str) -> None:
        await self._cri.call("StopPodSandbox", {"pod_sandbox_id": sandbox}, seconds=_SHUTDOWN)
        await self._cri.call("RemovePodSandbox", {"pod_sandbox_id": sandbox}, seconds=_SHUTDOWN)

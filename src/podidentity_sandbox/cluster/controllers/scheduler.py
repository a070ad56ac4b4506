"""Gives each pod without a node one: in turn, among those that it fits.

A port of the node that a pod declares is its own until it has ended: a second pod with that port
waits, as for the scheduler's plugin NodePorts. (So an agent that is to run beside its successor in
the node's network declares none.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence

from podidentity_sandbox.cluster import objects
from podidentity_sandbox.cluster.decoding import Write
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.kinds.pods import ENDED
from podidentity_sandbox.cluster.placement import fits, host_ports, obstacle
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.storage import Change, Record, field_of


class Scheduler:
    """Looks at a new pod at once; at all that wait when a node changes or a pod ends."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._events = Recorder(resources, "default-scheduler")
        self._turn = 0

    def react(self, change: Change) -> None:
        """Place what can be placed."""
        gone = change.event == "DELETED"
        ended = field_of(change.record.object, "status.phase") in ENDED
        if change.key == "pods" and not gone and not ended:
            self._place(self._resources.storage.get("pods", *_address(change.record)))
        elif change.key == "pods" or (change.key == "nodes" and not gone):
            for pod in self._resources.storage.all("pods"):
                self._place(pod)

    def _place(self, pod: Record | None) -> None:
        if pod is None or pod.deleted or field_of(pod.object, "spec.nodeName"):
            return
        if field_of(pod.object, "status.phase") in ENDED:
            return
        nodes = self._resources.storage.all("nodes")
        taken = self._nodes_without_its_ports(pod.object)
        fitting = [
            node for node in nodes if node.name not in taken and fits(pod.object, node.object)
        ]
        if fitting:
            self._turn += 1
            self._bind(pod, fitting[self._turn % len(fitting)].name)
        else:
            message = unplaceable(pod.object, nodes, taken)
            condition = {"status": "False", "reason": "Unschedulable", "message": message}
            if self._write(pod, pod.thaw(), condition):
                self._events.warn(pod, "FailedScheduling", message)

    def _nodes_without_its_ports(self, pod: Obj) -> set[str]:
        """Return the nodes on which a port that the pod declares is another pod's."""
        wanted = host_ports(pod)
        if not wanted:
            return set()
        return {
            str(field_of(other.object, "spec.nodeName"))
            for other in self._resources.storage.all("pods")
            if field_of(other.object, "status.phase") not in ENDED
            and wanted & host_ports(other.object)
        }

    def _bind(self, pod: Record, node: str) -> None:
        new = pod.thaw()
        new["spec"]["nodeName"] = node
        # The server writes what a Binding says, and keeps no book of it.
        self._write(pod, new, {"status": "True"}, Write())
        message = f"Successfully assigned {pod.namespace}/{pod.name} to {node}"
        self._events.tell(pod, "Scheduled", message)

    def _write(
        self, pod: Record, new: Obj, condition: dict[str, str], write: Write | None = None
    ) -> bool:
        """Set the PodScheduled condition; say whether that is news."""
        conditions = new["status"].get("conditions", [])
        known: Obj = next((c for c in conditions if c.get("type") == "PodScheduled"), {})
        news = any(known.get(key) != value for key, value in condition.items())
        if news:
            now = objects.stamp(self._resources.now())
            told = {"type": "PodScheduled", **condition, "lastTransitionTime": now}
            new["status"]["conditions"] = [*(c for c in conditions if c is not known), told]
        self._resources.settle(self._resources.registry.by_key("pods"), pod, new, write)
        return news


def unplaceable(pod: Obj, nodes: Sequence[Record], taken: Container[str] = ()) -> str:
    """Return why a pod fits on no node, as the scheduler says it; on `taken`, for its ports.

    https://github.com/kubernetes/kubernetes/blob/master/pkg/scheduler/framework/types.go (FitError)
    """
    if not nodes:
        return "no nodes available to schedule pods"
    ports = "node(s) didn't have free ports for the requested pod ports"
    counts = Counter(
        obstacle(pod, node.object) or (ports if node.name in taken else "") for node in nodes
    )
    reasons = ", ".join(sorted(f"{number} {why}" for why, number in counts.items()))
    none = f"0/{len(nodes)} nodes are available"
    helpless = f"{none}: {len(nodes)} Preemption is not helpful for scheduling."
    return f"{none}: {reasons}. preemption: {helpless}"


def _address(record: Record) -> tuple[str, str]:
    return record.namespace, record.name

"""Gives each pod without a node one: in turn, among those that it fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from podidentity_sandbox.cluster import objects
from podidentity_sandbox.cluster.decoding import Write
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.kinds.pods import ENDED
from podidentity_sandbox.cluster.placement import fits, obstacle
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.storage import Change, Record, field_of


class Scheduler:
    """Looks at a new pod at once, and at all that wait whenever a node changes."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._events = Recorder(resources, "default-scheduler")
        self._turn = 0

    def react(self, change: Change) -> None:
        """Place what can be placed."""
        if change.event == "DELETED":
            return
        if change.key == "pods":
            self._place(self._resources.storage.get("pods", *_address(change.record)))
        elif change.key == "nodes":
            for pod in self._resources.storage.all("pods"):
                self._place(pod)

    def _place(self, pod: Record | None) -> None:
        if pod is None or pod.deleted or field_of(pod.object, "spec.nodeName"):
            return
        if field_of(pod.object, "status.phase") in ENDED:
            return
        nodes = self._resources.storage.all("nodes")
        fitting = [node for node in nodes if fits(pod.object, node.object)]
        if fitting:
            self._turn += 1
            self._bind(pod, fitting[self._turn % len(fitting)].name)
        else:
            message = unplaceable(pod.object, nodes)
            condition = {"status": "False", "reason": "Unschedulable", "message": message}
            if self._write(pod, pod.thaw(), condition):
                self._events.warn(pod, "FailedScheduling", message)

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


def unplaceable(pod: Obj, nodes: Sequence[Record]) -> str:
    """Return why a pod fits on no node, as the scheduler says it.

    https://github.com/kubernetes/kubernetes/blob/master/pkg/scheduler/framework/types.go (FitError)
    """
    if not nodes:
        return "no nodes available to schedule pods"
    counts = Counter(obstacle(pod, node.object) for node in nodes)
    reasons = ", ".join(sorted(f"{number} {why}" for why, number in counts.items()))
    none = f"0/{len(nodes)} nodes are available"
    helpless = f"{none}: {len(nodes)} Preemption is not helpful for scheduling."
    return f"{none}: {reasons}. preemption: {helpless}"


def _address(record: Record) -> tuple[str, str]:
    return record.namespace, record.name

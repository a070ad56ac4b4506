"""Gives each pod without a node one: in turn, among those that it fits.

A port of the node that a pod declares is its own until it has ended: a second pod with that port
waits, as for the scheduler's plugin NodePorts. (So an agent that is to run beside its successor in
the node's network declares none.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence

from podidentity_sandbox.cluster import Obj, objects
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.kinds.pods import ENDED, tolerates
from podidentity_sandbox.cluster.objects import Write
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.selectors import satisfies
from podidentity_sandbox.cluster.storage import Change, Record, field_of

# ---- The nodes that a pod may run on: selector, required affinity and taints
#
# https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
# Resources are not counted: the sandbox's nodes are namespaces on one machine.

SCHEDULER = "default-scheduler"
NOT_READY = "node.kubernetes.io/not-ready"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_REQUIRED = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"


def ready(obj: Obj) -> bool:
    """Whether a node, or a pod, has the condition Ready."""
    conditions = field_of(obj, "status.conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def fits(pod: Obj, node: Obj) -> bool:
    return "deletionTimestamp" not in node["metadata"] and not obstacle(pod, node)


def obstacle(pod: Obj, node: Obj) -> str:
    """Return why a pod may not be placed on a node, as the scheduler says it; "" if it may.

    Words of the plugins of pkg/scheduler/framework/plugins, in the order in which they are asked.
    """
    spec = pod["spec"]
    borne = spec.get("tolerations", [])
    hated = [taint for taint in taints(node) if not any(tolerates(each, taint) for each in borne)]
    if any(taint["key"] == UNSCHEDULABLE for taint in hated):
        return "node(s) were unschedulable"
    for taint in hated:
        return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not selected(spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def host_ports(pod: Obj) -> set[tuple[str, int]]:
    """Return the ports of its node that a pod declares: protocol and number.

    On every address of the node: `hostIP` is not looked at.
    """
    return {
        (port.get("protocol", "TCP"), port["hostPort"])
        for container in pod["spec"].get("containers", [])
        for port in container.get("ports", [])
        if port.get("hostPort")
    }


def selected(spec: Obj, node: Obj) -> bool:
    """Whether a pod's spec wants a node: nodeSelector and required node affinity."""
    labels = node["metadata"].get("labels", {})
    wanted = spec.get("nodeSelector", {})
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    required = field_of(spec, _REQUIRED)
    if required is None:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        all(satisfies(rule, labels) for rule in term.get("matchExpressions", []))
        and all(satisfies(rule, fields) for rule in term.get("matchFields", []))
        for term in required.get("nodeSelectorTerms", [])
        if term
    )


def taints(node: Obj) -> Iterator[Obj]:
    """Yield the taints that keep pods away, those of its state included."""
    for taint in field_of(node, "spec.taints") or []:
        if taint.get("effect") in ("NoSchedule", "NoExecute"):
            yield taint
    if not ready(node):
        yield {"key": NOT_READY, "effect": "NoSchedule"}
    if field_of(node, "spec.unschedulable"):
        yield {"key": UNSCHEDULABLE, "effect": "NoSchedule"}


# ---- The scheduler


class Scheduler:
    """Looks at a new pod at once; at all that wait when a node changes or a pod ends."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._events = Recorder(resources, SCHEDULER)
        self._turn = 0

    def react(self, change: Change) -> None:
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
        if field_of(pod.object, "spec.schedulerName") != SCHEDULER:
            return  # another scheduler's, whether there is one or not
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
        self._resources.settle("pods", pod, new, write)
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

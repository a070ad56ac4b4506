"""Notices nodes that have died: a kubelet that is alive renews its Lease every ten seconds.

    the Lease is not renewed for GRACE   the node's conditions are Unknown, it gets the taints
                                         `unreachable`, its pods are not Ready
    a pod's toleration of that ends      the pod is deleted: Terminating, until the node is back
    the kubelet says Ready again         the taints go

https://kubernetes.io/docs/concepts/architecture/nodes/#heartbeats
https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions
A node without a Lease, which no kubelet has made, is left alone; a real cluster takes it for dead.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from podidentity_sandbox.cluster import Obj, objects
from podidentity_sandbox.cluster.controllers.loop import Later
from podidentity_sandbox.cluster.controllers.scheduler import ready
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.kinds.pods import tolerates
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.storage import Change, Record, field_of

GRACE = 50.0
"""Seconds: `--node-monitor-grace-period` of 1.32's controller manager."""
NAMESPACE = "kube-node-lease"
UNREACHABLE = "node.kubernetes.io/unreachable"
_LEASES = "leases.coordination.k8s.io"
_EFFECTS = ("NoSchedule", "NoExecute")


class NodeLifecycle:
    """Looks at all nodes at each change, and when the grace of one may be over."""

    def __init__(self, resources: Resources, later: Later) -> None:
        self._resources = resources
        self._later = later
        self._events = Recorder(resources, "node-controller")
        self._heard: dict[str, tuple[str, datetime]] = {}
        """The last renewal of each node's Lease, and when it was seen, by this server's clock."""

    def react(self, change: Change) -> None:
        """Look at the nodes, and take the taints off one that is back."""
        if change.key == "nodes" and change.event != "DELETED" and ready(change.record.object):
            self._welcome(change.record.name)
        self._look()

    def _look(self) -> None:
        now = self._resources.now()
        leases = {lease.name: lease for lease in self._resources.storage.all(_LEASES, NAMESPACE)}
        for gone in self._heard.keys() - leases.keys():
            del self._heard[gone]
        for name, lease in leases.items():
            renewed = str(field_of(lease.object, "spec.renewTime"))
            seen, when = self._heard.get(name, ("", now))
            if renewed != seen:
                self._heard[name] = renewed, now
                self._later(GRACE + 1, self._look)
            elif now - when >= timedelta(seconds=GRACE):
                self._lose(name)

    def _lose(self, name: str) -> None:
        """Mark a node whose kubelet is silent, and its pods."""
        node = self._resources.storage.get("nodes", "", name)
        if node is None or _unknown(node.object):
            return
        new, now = node.thaw(), objects.stamp(self._resources.now())
        for condition in field_of(new, "status.conditions") or []:
            condition |= {
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastTransitionTime": now,
            }
        spec = new.setdefault("spec", {})
        others = [taint for taint in spec.get("taints", []) if taint["key"] != UNREACHABLE]
        ours = [{"key": UNREACHABLE, "effect": effect, "timeAdded": now} for effect in _EFFECTS]
        spec["taints"] = [*others, *ours]
        self._resources.settle("nodes", node, new)
        self._events.tell(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        for pod in self._pods(name):
            self._unready(pod, now)
            self._evict_later(name, pod)

    def _welcome(self, name: str) -> None:
        node = self._resources.storage.get("nodes", "", name)
        taints = (field_of(node.object, "spec.taints") or []) if node is not None else []
        left = [taint for taint in taints if taint.get("key") != UNREACHABLE]
        if node is None or len(left) == len(taints):
            return
        new = node.thaw()
        del new["spec"]["taints"]
        new["spec"] |= {"taints": left} if left else {}
        self._resources.settle("nodes", node, new)
        self._events.tell(node, "NodeReady", f"Node {name} status is now: NodeReady")

    def _unready(self, pod: Record, now: str) -> None:
        new = pod.thaw()
        for condition in field_of(new, "status.conditions") or []:
            if condition.get("type") == "Ready" and condition.get("status") != "False":
                condition |= {"status": "False", "lastTransitionTime": now}
        self._resources.settle("pods", pod, new)
        self._events.warn(pod, "NodeNotReady", "Node is not ready")

    def _evict_later(self, node: str, pod: Record) -> None:
        patience = tolerated_for(pod.object)
        evict = partial(self._evict, node, pod.namespace, pod.name, pod.uid)
        if patience:
            self._later(patience, evict)
        elif patience is not None:
            evict()

    def _evict(self, node: str, namespace: str, name: str, uid: str) -> None:
        storage = self._resources.storage
        host, pod = storage.get("nodes", "", node), storage.get("pods", namespace, name)
        if host is None or not _unknown(host.object) or pod is None or pod.uid != uid:
            return
        self._events.tell(
            pod, "TaintManagerEviction", f"Marking for deletion Pod {namespace}/{name}"
        )
        self._resources.delete("pods", pod)

    def _pods(self, node: str) -> list[Record]:
        return [
            pod
            for pod in self._resources.storage.all("pods")
            if field_of(pod.object, "spec.nodeName") == node and not pod.deleted
        ]


def _unknown(node: Obj) -> bool:
    conditions = field_of(node, "status.conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "Unknown" for c in conditions)


def tolerated_for(pod: Obj) -> float | None:
    """Return for how many seconds a pod bears an unreachable node; None for ever."""
    taint = {"key": UNREACHABLE, "effect": "NoExecute"}
    bearing = [each for each in pod["spec"].get("tolerations", []) if tolerates(each, taint)]
    if any(toleration.get("tolerationSeconds") is None for toleration in bearing):
        return None
    return min((toleration["tolerationSeconds"] for toleration in bearing), default=0.0)

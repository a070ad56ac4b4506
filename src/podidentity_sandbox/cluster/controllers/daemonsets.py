"""Keeps one pod of each DaemonSet on every node that it fits.

https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
Pods are bound by node affinity and the scheduler, as in a real cluster. An update replaces pods
one after the other: the next goes when no more than maxUnavailable are away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from podidentity_sandbox.cluster.controllers.ownership import controller_of, owned, reference_to
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.kinds.pods import ENDED
from podidentity_sandbox.cluster.placement import NOT_READY, UNSCHEDULABLE, fits, ready
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Change, Record, encode, field_of

KEY = "daemonsets.apps"
HASH_LABEL = "controller-revision-hash"
_TOLERATED = (
    (NOT_READY, "NoExecute"),
    (NOT_READY, "NoSchedule"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    (UNSCHEDULABLE, "NoSchedule"),
)


class DaemonSets:
    """Looks at a set when it, one of its pods, or a node changes."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._events = Recorder(resources, "daemonset-controller")

    def react(self, change: Change) -> None:
        """Bring the sets that a change concerns to what they should be."""
        storage = self._resources.storage
        if change.key == KEY and change.event != "DELETED":
            self._sync(storage.get(KEY, change.record.namespace, change.record.name))
        elif change.key == "pods":
            owner = controller_of(change.record.object)
            if owner is not None and owner["kind"] == "DaemonSet":
                self._sync(storage.get(KEY, change.record.namespace, owner["name"]))
        elif change.key == "nodes":
            for record in storage.all(KEY):
                self._sync(record)
        elif change.key == "serviceaccounts" and change.event == "ADDED":
            # What a set could not make for want of its account, it can now.
            for record in storage.all(KEY, change.record.namespace):
                self._sync(record)

    def _sync(self, owner: Record | None) -> None:
        if owner is None or owner.deleted:
            return
        nodes = self._resources.storage.all("nodes")
        wanted = [node.name for node in nodes if fits(self._pod(owner, node.name), node.object)]
        pods = self._pods(owner)
        current = revision(owner)
        for pod in _surplus(pods, wanted):
            self._delete(owner, pod)
        placed = {place(pod.object) for pod in pods}
        for node in wanted:
            if node not in placed:
                self._make(owner, node)
        if owner.object["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            for pod in _outdated(self._pods(owner), wanted, current, _budget(owner, len(wanted))):
                self._delete(owner, pod)
        self._tell(owner, wanted, current)

    def _make(self, owner: Record, node: str) -> None:
        kind = self._resources.registry.by_key("pods")
        try:
            pod = self._resources.create(kind, owner.namespace, self._pod(owner, node))
        except StatusError as error:
            self._events.warn(owner, "FailedCreate", f"Error creating: {error}")
            raise
        self._events.tell(owner, "SuccessfulCreate", f"Created pod: {pod.name}")

    def _delete(self, owner: Record, pod: Record) -> None:
        if not pod.deleted:
            self._resources.delete(self._resources.registry.by_key("pods"), pod)
            self._events.tell(owner, "SuccessfulDelete", f"Deleted pod: {pod.name}")

    def _pods(self, owner: Record) -> Sequence[Record]:
        return owned(self._resources.storage, "pods", owner)

    def _pod(self, owner: Record, node: str) -> Obj:
        """Return the pod of a set for a node."""
        template = owner.thaw()["spec"]["template"]
        metadata, spec = template.get("metadata", {}), template["spec"]
        tolerations = spec.setdefault("tolerations", [])
        for key, effect in _TOLERATED:
            tolerations.append({"key": key, "operator": "Exists", "effect": effect})
        _require_node(spec, node)
        return {
            "metadata": {
                "generateName": f"{owner.name}-",
                "namespace": owner.namespace,
                "annotations": metadata.get("annotations", {}),
                "labels": {**metadata.get("labels", {}), HASH_LABEL: revision(owner)},
                "ownerReferences": [reference_to(owner)],
            },
            "spec": spec,
        }

    def _tell(self, owner: Record, wanted: Sequence[str], current: str) -> None:
        """Write the set's status."""
        alive = [pod for pod in self._pods(owner) if not pod.deleted]
        here = [pod for pod in alive if place(pod.object) in wanted]
        count = Counter(
            ready=sum(ready(pod.object) for pod in here),
            updated=sum(label_of(pod) == current for pod in here),
        )
        new = owner.thaw()
        new["status"] = {
            "currentNumberScheduled": len({place(pod.object) for pod in here}),
            "desiredNumberScheduled": len(wanted),
            "numberMisscheduled": len(alive) - len(here),
            "numberReady": count["ready"],
            "numberAvailable": count["ready"],
            "numberUnavailable": len(wanted) - count["ready"],
            "updatedNumberScheduled": count["updated"],
            "observedGeneration": owner.metadata["generation"],
        }
        self._resources.settle(self._resources.registry.by_key(KEY), owner, new)


def revision(owner: Record) -> str:
    """Return the name of a set's template: a digest of it."""
    return hashlib.sha256(encode(owner.object["spec"]["template"])).hexdigest()[:10]


def label_of(pod: Record) -> str:
    """Return the template that a pod was made from."""
    return str(pod.metadata.get("labels", {}).get(HASH_LABEL, ""))


def place(pod: Obj) -> str:
    """Return the node that a set's pod is on, or is meant for."""
    if bound := field_of(pod, "spec.nodeName"):
        return str(bound)
    required = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    for term in (field_of(pod["spec"], required) or {}).get("nodeSelectorTerms", []):
        for field in term.get("matchFields", []):
            return str(field["values"][0])
    return ""


def _require_node(spec: Obj, node: str) -> None:
    """Bind a pod to one node, beside what its template's affinity demands."""
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.get("nodeSelectorTerms") or [{}]
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    required["nodeSelectorTerms"] = [{**term, "matchFields": [field]} for term in terms]


def _surplus(pods: Sequence[Record], wanted: Sequence[str]) -> list[Record]:
    """Return the pods that ended, are where none is wanted, or are second on their node."""
    seen: set[str] = set()
    surplus = []
    for pod in sorted(pods, key=lambda pod: (pod.metadata["creationTimestamp"], pod.name)):
        at = place(pod.object)
        ended = field_of(pod.object, "status.phase") in ENDED
        if ended or at not in wanted or (at in seen and not pod.deleted):
            surplus.append(pod)
        elif not pod.deleted:
            seen.add(at)
    return surplus


def _budget(owner: Record, wanted: int) -> int:
    """Return how many pods of a set may be away during an update."""
    limit = owner.object["spec"]["updateStrategy"].get("rollingUpdate", {}).get("maxUnavailable", 1)
    if isinstance(limit, str):
        return max(1, -(-wanted * int(limit.rstrip("%") or 0) // 100))
    return int(limit)


def _outdated(
    pods: Sequence[Record], wanted: Sequence[str], current: str, budget: int
) -> list[Record]:
    """Return the pods of an earlier template that may go now."""
    here = [pod for pod in pods if place(pod.object) in wanted]
    up = [pod for pod in here if not pod.deleted and ready(pod.object)]
    old = [pod for pod in here if not pod.deleted and label_of(pod) != current]
    down = [pod for pod in old if pod not in up]
    free = budget - (len(wanted) - len(up))
    return [*down, *[pod for pod in old if pod in up][: max(0, free)]]

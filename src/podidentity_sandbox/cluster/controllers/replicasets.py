"""Keeps as many pods of each ReplicaSet as it wants.

https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
Reasons and messages of events and conditions are those of pkg/controller/replicaset and of
pkg/controller/controller_utils.go. A pod counts as available as soon as it is ready.
"""

from __future__ import annotations

from collections.abc import Sequence

from podidentity_sandbox.cluster import Obj, objects
from podidentity_sandbox.cluster.controllers.loop import controller_of, owned, reference_to
from podidentity_sandbox.cluster.controllers.scheduler import ready
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.kinds.pods import ENDED
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.selectors import matches_labels
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Change, Record, field_of

KEY = "replicasets.apps"


class ReplicaSets:
    """Looks at a set when it or one of its pods changes."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._events = Recorder(resources, "replicaset-controller")

    def react(self, change: Change) -> None:
        """Reconcile the sets that a change concerns."""
        storage, record = self._resources.storage, change.record
        if change.key == KEY and change.event != "DELETED":
            self._sync(storage.get(KEY, record.namespace, record.name))
        elif change.key == "pods":
            owner = controller_of(record.object)
            if owner is not None and owner["kind"] == "ReplicaSet":
                self._sync(storage.get(KEY, record.namespace, owner["name"]))
        elif change.key == "serviceaccounts" and change.event == "ADDED":
            # A set that waited for its account can make its pods now.
            for each in storage.all(KEY, record.namespace):
                self._sync(each)

    def _sync(self, owner: Record | None) -> None:
        if owner is None:
            return
        failure = ""
        if not owner.deleted:
            pods = _active(self._pods(owner))
            missing = owner.object["spec"]["replicas"] - len(pods)
            if missing > 0:
                failure = self._make(owner, missing)
            for pod in sorted(pods, key=_worth)[: max(0, -missing)]:
                self._resources.delete(self._resources.registry.by_key("pods"), pod)
                self._events.tell(owner, "SuccessfulDelete", f"Deleted pod: {pod.name}")
        self._tell(owner, failure)

    def _pods(self, owner: Record) -> Sequence[Record]:
        return owned(self._resources.storage, "pods", owner)

    def _make(self, owner: Record, number: int) -> str:
        """Create so many pods; return why that failed, "" if it did not."""
        kind = self._resources.registry.by_key("pods")
        for _ in range(number):
            try:
                pod = self._resources.create(kind, owner.namespace, _pod(owner))
            except StatusError as error:
                if not _terminating(error):
                    self._events.warn(owner, "FailedCreate", f"Error creating: {error}")
                return str(error)
            self._events.tell(owner, "SuccessfulCreate", f"Created pod: {pod.name}")
        return ""

    def _tell(self, owner: Record, failure: str) -> None:
        """Write the set's status."""
        pods = _active(self._pods(owner))
        wanted = field_of(owner.object, "spec.template.metadata.labels") or {}
        full = [p for p in pods if matches_labels({"matchLabels": wanted}, _labels(p))]
        up = sum(ready(pod.object) for pod in pods)
        state: Obj = {
            "replicas": len(pods),
            "fullyLabeledReplicas": len(full),
            "readyReplicas": up,
            "availableReplicas": up,
            "observedGeneration": owner.metadata["generation"],
        }
        state = {key: value for key, value in state.items() if value or key == "replicas"}
        if failure:
            state["conditions"] = [self._failure(owner, failure)]
        new = owner.thaw()
        new["status"] = state
        self._resources.settle(self._resources.registry.by_key(KEY), owner, new)

    def _failure(self, owner: Record, message: str) -> Obj:
        known: list[Obj] = field_of(owner.object, "status.conditions") or []
        for condition in known:
            if condition["message"] == message:
                return condition
        return {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": message,
            "lastTransitionTime": objects.stamp(self._resources.now()),
        }


def _pod(owner: Record) -> Obj:
    """Return a new pod of a set."""
    template = owner.thaw()["spec"]["template"]
    given = template.get("metadata", {})
    metadata = {field: given[field] for field in ("labels", "annotations") if given.get(field)}
    return {
        "metadata": {
            "generateName": f"{owner.name}-",
            **metadata,
            "ownerReferences": [reference_to(owner)],
        },
        "spec": template["spec"],
    }


def _active(pods: Sequence[Record]) -> list[Record]:
    """Return the pods that count: not ended, and not being deleted."""
    return [
        pod for pod in pods if not pod.deleted and field_of(pod.object, "status.phase") not in ENDED
    ]


def _worth(pod: Record) -> tuple[bool, bool, bool, int]:
    """Order pods by which are least worth keeping: unplaced, not running, not ready, new."""
    running = field_of(pod.object, "status.phase") == "Running"
    placed = bool(field_of(pod.object, "spec.nodeName"))
    return placed, running, ready(pod.object), -pod.revision


def _labels(pod: Record) -> dict[str, str]:
    labels: dict[str, str] = pod.metadata.get("labels", {})
    return labels


def _terminating(error: StatusError) -> bool:
    causes = (error.details or {}).get("causes", [])
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)

"""Keeps as many pods of each ReplicaSet as it wants.

https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
Reasons and messages of events and conditions are those of pkg/controller/replicaset and of
pkg/controller/controller_utils.go. A pod counts as available as soon as it is ready.
"""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj, objects
from podidentity_sandbox.cluster.controllers.scheduler import ready
from podidentity_sandbox.cluster.controllers.sets import Sets
from podidentity_sandbox.cluster.kinds.pods import ENDED
from podidentity_sandbox.cluster.selectors import matches_labels
from podidentity_sandbox.cluster.storage import Record, field_of


class ReplicaSets(Sets):
    """Makes the pods that are missing, and deletes those that are too many."""

    KEY = "replicasets.apps"
    KIND = "ReplicaSet"
    COMPONENT = "replicaset-controller"

    def _sync(self, owner: Record) -> None:
        failure = ""
        if not owner.deleted:
            pods = self._active(owner)
            missing = owner.object["spec"]["replicas"] - len(pods)
            for _ in range(missing):
                failure = failure or self._make(owner, self._pod(owner))
            for pod in sorted(pods, key=_worth)[: max(0, -missing)]:
                self._delete(owner, pod)
        self._tell(owner, failure)

    def _active(self, owner: Record) -> list[Record]:
        """Return the pods that count: not ended, and not being deleted."""
        pods = (pod for pod in self._parts(owner) if not pod.deleted)
        return [pod for pod in pods if field_of(pod.object, "status.phase") not in ENDED]

    def _tell(self, owner: Record, failure: str) -> None:
        pods = self._active(owner)
        wanted = {"matchLabels": field_of(owner.object, "spec.template.metadata.labels")}
        up = sum(ready(pod.object) for pod in pods)
        state: Obj = {
            "replicas": len(pods),
            "fullyLabeledReplicas": sum(
                matches_labels(wanted, pod.metadata.get("labels", {})) for pod in pods
            ),
            "readyReplicas": up,
            "availableReplicas": up,
            "observedGeneration": owner.metadata["generation"],
        }
        state = {key: value for key, value in state.items() if value or key == "replicas"}
        if failure:
            state["conditions"] = [self._failure(owner, failure)]
        self._resources.settle(self.KEY, owner, owner.thaw() | {"status": state})

    def _failure(self, owner: Record, message: str) -> Obj:
        known: list[Obj] = field_of(owner.object, "status.conditions") or []
        now = objects.stamp(self._resources.now())
        new = objects.condition("ReplicaFailure", "True", "FailedCreate", message, now)
        return next((condition for condition in known if condition["message"] == message), new)


def _worth(pod: Record) -> tuple[bool, bool, bool, int]:
    """Order pods by which are least worth keeping: unplaced, not running, not ready, new."""
    running = field_of(pod.object, "status.phase") == "Running"
    placed = bool(field_of(pod.object, "spec.nodeName"))
    return placed, running, ready(pod.object), -pod.revision

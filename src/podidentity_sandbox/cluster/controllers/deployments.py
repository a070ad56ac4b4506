"""Replaces the pods of a Deployment, set by set, when its template changes.

A new template's set has all its pods at once, as with maxSurge 100 %; the sets before it lose
theirs when these are ready, and go. So there is no history to go back to, and no pod is missed.
https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj, objects
from podidentity_sandbox.cluster.controllers.sets import Sets, digest
from podidentity_sandbox.cluster.storage import Record

HASH_LABEL = "pod-template-hash"


class Deployments(Sets):
    """Takes a rollout, which goes by a ReplicaSet for each template, a step further."""

    KEY = "deployments.apps"
    KIND = "Deployment"
    PARTS = "replicasets.apps"
    COMPONENT = "deployment-controller"

    def _sync(self, owner: Record) -> None:
        if owner.deleted:
            return
        wanted, name = owner.object["spec"]["replicas"], f"{owner.name}-{digest(owner)}"
        found = [part for part in self._parts(owner) if part.name == name]
        new = found[0] if found else self._begin(owner, name)
        if new.object["spec"]["replicas"] != wanted:
            self._scale(owner, new, wanted)
        if _count(new, "availableReplicas") >= wanted:
            for old in self._parts(owner):
                if old.name != name and not old.deleted:
                    self._resources.delete(self.PARTS, old)
        self._tell(owner, name)

    def _begin(self, owner: Record, name: str) -> Record:
        spec = owner.thaw()["spec"]
        template, selector = spec["template"], spec["selector"]
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        labels[HASH_LABEL] = digest(owner)
        selector.setdefault("matchLabels", {})[HASH_LABEL] = digest(owner)
        head = {"name": name, "labels": dict(labels), "ownerReferences": [self._reference(owner)]}
        wanted = {"replicas": spec["replicas"], "selector": selector, "template": template}
        made = self._resources.create(
            self.PARTS, owner.namespace, {"metadata": head, "spec": wanted}
        )
        self._tell_size(owner, name, 0, spec["replicas"])
        return made

    def _scale(self, owner: Record, one: Record, size: int) -> None:
        before, new = one.object["spec"]["replicas"], one.thaw()
        if before != size:
            new["spec"]["replicas"] = size
            new["metadata"]["generation"] += 1
            self._resources.settle(self.PARTS, one, new)
            self._tell_size(owner, one.name, before, size)

    def _tell_size(self, owner: Record, name: str, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        message = f"Scaled {way} replica set {name} from {before} to {after}"
        self._events.tell(owner, "ScalingReplicaSet", message)

    def _tell(self, owner: Record, name: str) -> None:
        sets = self._parts(owner)
        wanted = owner.object["spec"]["replicas"]
        ready = sum(_count(each, "readyReplicas") for each in sets)
        counts = {
            "observedGeneration": owner.metadata["generation"],
            "replicas": sum(_count(each, "replicas") for each in sets),
            "updatedReplicas": sum(_count(each, "replicas") for each in sets if each.name == name),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
        }
        well = ready >= wanted
        least = f"MinimumReplicas{'Available' if well else 'Unavailable'}"
        progress = "NewReplicaSetAvailable" if well else "ReplicaSetUpdated"
        told = [
            self._condition(owner, "Available", least, well=well),
            self._condition(owner, "Progressing", progress, well=True),
        ]
        status = {key: value for key, value in counts.items() if value} | {"conditions": told}
        self._resources.settle(self.KEY, owner, owner.thaw() | {"status": status})

    def _condition(self, owner: Record, kind: str, reason: str, *, well: bool) -> Obj:
        """Return a condition; one that says nothing new keeps its time."""
        now = objects.stamp(self._resources.now())
        new = objects.condition(kind, str(well), reason, "", now)
        known = owner.object.get("status", {}).get("conditions", [])
        same = (each for each in known if (each["type"], each["reason"]) == (kind, reason))
        return next(same, new)


def _count(one: Record, field: str) -> int:
    return int(one.object.get("status", {}).get(field, 0))

"""Replaces the pods of a Deployment, set by set, when its template changes.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
Events are those of pkg/controller/deployment. What is not done: a Deployment that is scaled in the
middle of a rollout does not scale its old sets up in proportion, and no rollout fails because its
deadline is over. One that is paused, or has minReadySeconds, is not taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from podidentity_sandbox.cluster import Obj, objects
from podidentity_sandbox.cluster.controllers.sets import Bounds, Sets, digest
from podidentity_sandbox.cluster.resources import Deletion
from podidentity_sandbox.cluster.storage import Record

# ---- The sizes of a Deployment's sets in the next step of a rollout: pure
#
# https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#strategy
# The arithmetic is that of pkg/controller/deployment/rolling.go and util/deployment_util.go.


@dataclass(frozen=True, slots=True, kw_only=True)
class SetState:
    """A ReplicaSet: how many pods it is to have, has, and has available."""

    wanted: int
    pods: int
    available: int


def new_size(wanted: int, limits: Bounds, new: SetState, old: Sequence[SetState]) -> int:
    """Return the new size of the new set."""
    if new.wanted > wanted:
        return wanted
    room = wanted + limits.surge - new.wanted - sum(each.wanted for each in old)
    return new.wanted + max(0, min(room, wanted - new.wanted))


def old_sizes(wanted: int, limits: Bounds, new: SetState, old: Sequence[SetState]) -> list[int]:
    """Return the new sizes of the old sets, in their order, oldest first.

    First go pods that are not available anyway, then as many as the Deployment can spare.
    """
    least = wanted - limits.unavailable
    everything = new.wanted + sum(each.wanted for each in old)
    spare = everything - least - (new.wanted - new.available)
    sizes = [each.wanted for each in old]
    if spare <= 0:
        return sizes
    for index, each in enumerate(old):
        sick = max(0, each.wanted - each.available)
        gone = max(0, min(sick, spare))
        sizes[index] -= gone
        spare -= gone
    free = new.available + sum(each.available for each in old) - least
    for index, size in enumerate(sizes):
        gone = max(0, min(size, free))
        sizes[index] -= gone
        free -= gone
    return sizes


# ---- A Deployment's templates: each has a ReplicaSet with a name and a revision of its own.
#
# https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pod-template-hash-label

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
_OF_ONE_OBJECT = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deployment.kubernetes.io/revision-history",
)
"""Annotations that a set does not take from its Deployment."""


def bare(template: Obj) -> Obj:
    """Return a set's template without the label that the Deployment added."""
    metadata = dict(template.get("metadata", {}))
    labels = {k: v for k, v in metadata.get("labels", {}).items() if k != HASH_LABEL}
    return {**template, "metadata": {**metadata, "labels": labels}}


def current_set(deployment: Record, sets: Iterable[Record]) -> Record | None:
    """Return the set of the present template, if there is one."""
    template = bare(deployment.object["spec"]["template"])
    return next((s for s in sets if bare(s.object["spec"]["template"]) == template), None)


def revision(record: Record) -> int:
    """Return an object's revision, 0 where it has none."""
    text = record.metadata.get("annotations", {}).get(REVISION, "")
    return int(text) if text.isdigit() else 0


def age(record: Record) -> tuple[str, int, str]:
    """Order sets by age, the oldest first."""
    return record.metadata["creationTimestamp"], revision(record), record.name


def next_revision(sets: Sequence[Record]) -> int:
    """Return the revision of the next template."""
    return max(map(revision, sets), default=0) + 1


# ---- A Deployment's status: its counts, and whether it is available and getting on. Pure.
#
# Reasons and messages are those of pkg/controller/deployment/progress.go and deployment_util.go.


def status_of(
    owner: Record,
    new: Record | None,
    sets: Sequence[Record],
    now: datetime,
    limits: Bounds,
    *,
    created: bool,
) -> Obj:
    """Return the new status."""
    counts = _counts(owner, new, sets)
    before = owner.object.get("status", {})
    known = {each["type"]: each for each in before.get("conditions", [])}
    least = owner.object["spec"]["replicas"] - limits.unavailable
    conditions = [_available(counts.get("availableReplicas", 0) >= least)]
    progressing = _progressing(owner, new, counts, created=created)
    if progressing is not None:
        conditions.append(progressing)
    conditions += _failure(new, sets)
    told = [_dated(each, known.get(each["type"]), now) for each in conditions]
    if progressing is None and "Progressing" in known:
        told.append(known["Progressing"])
    return {**counts, "conditions": told}


def _counts(owner: Record, new: Record | None, sets: Sequence[Record]) -> Obj:
    def total(field: str, of: Sequence[Record]) -> int:
        return sum(one.object.get("status", {}).get(field, 0) for one in of)

    available = total("availableReplicas", sets)
    wanted = sum(one.object["spec"]["replicas"] for one in sets)
    counts = {
        "observedGeneration": owner.metadata["generation"],
        "replicas": total("replicas", sets),
        "updatedReplicas": total("replicas", [new] if new is not None else []),
        "readyReplicas": total("readyReplicas", sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, wanted - available),
    }
    return {key: value for key, value in counts.items() if value}


def _available(well: bool) -> Obj:
    if well:
        message = "Deployment has minimum availability."
        return _condition("Available", "True", "MinimumReplicasAvailable", message)
    message = "Deployment does not have minimum availability."
    return _condition("Available", "False", "MinimumReplicasUnavailable", message)


def _progressing(owner: Record, new: Record | None, counts: Obj, *, created: bool) -> Obj | None:
    """Return the condition; None: as it was."""
    if new is None:
        return None
    names = ("replicas", "updatedReplicas", "availableReplicas")
    if all(counts.get(name, 0) == owner.object["spec"]["replicas"] for name in names):
        told = "NewReplicaSetAvailable", f'ReplicaSet "{new.name}" has successfully progressed.'
    elif created:
        told = "NewReplicaSetCreated", f'Created new replica set "{new.name}"'
    else:
        told = "ReplicaSetUpdated", f'ReplicaSet "{new.name}" is progressing.'
    return _condition("Progressing", "True", *told)


def _failure(new: Record | None, sets: Sequence[Record]) -> list[Obj]:
    """Return the condition of a set that could not make its pods, the present set's first."""
    for one in (*([new] if new is not None else []), *sets):
        for each in one.object.get("status", {}).get("conditions", []):
            if each["type"] == "ReplicaFailure":
                return [_condition(each["type"], each["status"], each["reason"], each["message"])]
    return []


def _condition(kind: str, status: str, reason: str, message: str) -> Obj:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _dated(condition: Obj, known: Obj | None, now: datetime) -> Obj:
    """Return a condition with its times; one that says nothing new keeps them."""
    stamp, known = objects.stamp(now), known or {}
    moved = known.get("status") != condition["status"]
    same = all(known.get(key) == value for key, value in condition.items())
    return {
        **condition,
        "lastUpdateTime": known["lastUpdateTime"] if same else stamp,
        "lastTransitionTime": stamp if moved else known["lastTransitionTime"],
    }


# ---- The controller


class Deployments(Sets):
    """Takes a rollout, which goes by a ReplicaSet for each template, a step further."""

    KEY = "deployments.apps"
    KIND = "Deployment"
    PARTS = "replicasets.apps"
    COMPONENT = "deployment-controller"

    def _sync(self, owner: Record) -> None:
        if owner.deleted:
            return
        created = self._roll(owner, current_set(owner, self._parts(owner)))
        self._tell(owner, created=created)
        self._clean(owner)

    def _parts(self, owner: Record) -> Sequence[Record]:
        """Return a Deployment's sets, oldest first."""
        return sorted(super()._parts(owner), key=age)

    def _limits(self, owner: Record) -> Bounds:
        spec = owner.object["spec"]
        return Bounds.of(spec["strategy"]["rollingUpdate"], spec["replicas"], up=False)

    def _others(self, owner: Record, new: Record | None) -> list[Record]:
        return [s for s in self._parts(owner) if new is None or s.uid != new.uid]

    def _roll(self, owner: Record, new: Record | None) -> bool:
        """Take a step; return whether that made the set of a new template."""
        wanted, limits = owner.object["spec"]["replicas"], self._limits(owner)
        old = self._others(owner, new)
        state = _state(new) if new is not None else SetState(wanted=0, pods=0, available=0)
        size = new_size(wanted, limits, state, list(map(_state, old)))
        if new is None:
            self._begin(owner, size)
            return True
        # An earlier template gets a new number.
        number = max(revision(new), next_revision(old))
        given = owner.metadata.get("annotations", {})
        own = {key: value for key, value in given.items() if key not in _OF_ONE_OBJECT}
        new = self._scale(owner, new, _state(new).wanted, {**own, REVISION: str(number)})
        if size != state.wanted:
            self._scale(owner, new, size)
            return False
        sizes = old_sizes(wanted, limits, state, list(map(_state, old)))
        for each, fewer in zip(old, sizes, strict=True):
            if fewer != _state(each).wanted:
                self._scale(owner, each, fewer)
        return False

    def _begin(self, owner: Record, size: int) -> None:
        """Make the set of a new template."""
        spec = owner.thaw()["spec"]
        template, selector = spec["template"], spec["selector"]
        name = digest(owner)
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        labels[HASH_LABEL] = name
        selector["matchLabels"] = {**selector.get("matchLabels", {}), HASH_LABEL: name}
        given = owner.metadata.get("annotations", {})
        own = {key: value for key, value in given.items() if key not in _OF_ONE_OBJECT}
        number = next_revision(self._parts(owner))
        body = {
            "metadata": {
                "name": f"{owner.name}-{name}",
                "labels": dict(labels),
                "annotations": {**own, REVISION: str(number)},
                "ownerReferences": [self._reference(owner)],
            },
            "spec": {"replicas": size, "selector": selector, "template": template},
        }
        made = self._resources.create(self.PARTS, owner.namespace, body)
        if size:
            self._tell_size(owner, made.name, 0, size)

    def _scale(
        self, owner: Record, one: Record, size: int, notes: Mapping[str, str] | None = None
    ) -> Record:
        """Give a set a size, and bring its annotations up to date."""
        before, new = one.object["spec"]["replicas"], one.thaw()
        new["metadata"].setdefault("annotations", {}).update(notes or {})
        if size != before:
            new["spec"]["replicas"] = size
            new["metadata"]["generation"] += 1
        changed = self._resources.settle(self.PARTS, one, new)
        if size != before:
            self._tell_size(owner, one.name, before, size)
        return changed

    def _tell_size(self, owner: Record, name: str, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        message = f"Scaled {way} replica set {name} from {before} to {after}"
        self._events.tell(owner, "ScalingReplicaSet", message)

    def _tell(self, owner: Record, *, created: bool) -> None:
        """Write the Deployment's status and revision."""
        sets, now = self._parts(owner), self._resources.now()
        new = current_set(owner, sets)
        changed = owner.thaw()
        changed["status"] = status_of(owner, new, sets, now, self._limits(owner), created=created)
        if new is not None and revision(new):
            notes = changed["metadata"].setdefault("annotations", {})
            notes[REVISION] = str(revision(new))
        self._resources.settle(self.KEY, owner, changed)

    def _clean(self, owner: Record) -> None:
        """Delete the oldest sets beyond those that a person may go back to."""
        idle = filter(_idle, self._others(owner, current_set(owner, self._parts(owner))))
        oldest = sorted(idle, key=revision)
        surplus = len(oldest) - owner.object["spec"]["revisionHistoryLimit"]
        for one in oldest[: max(0, surplus)]:
            self._resources.delete(self.PARTS, one, Deletion(propagation="Background"))


def _state(one: Record) -> SetState:
    status = one.object.get("status", {})
    return SetState(
        wanted=one.object["spec"]["replicas"],
        pods=status.get("replicas", 0),
        available=status.get("availableReplicas", 0),
    )


def _idle(one: Record) -> bool:
    return not one.deleted and not one.object["spec"]["replicas"] and not _state(one).pods

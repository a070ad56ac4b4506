"""Replaces the pods of a Deployment, set by set, when its template changes.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
Events are those of pkg/controller/deployment. What is not done: a Deployment that is scaled in the
middle of a rollout does not scale its old sets up in proportion; minReadySeconds is not waited for,
and no rollout fails because its deadline is over.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from podidentity_sandbox.cluster import Obj, objects
from podidentity_sandbox.cluster.controllers.loop import controller_of, owned, reference_to
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.resources import Deletion, Resources
from podidentity_sandbox.cluster.storage import Change, Record, encode

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many pods there may be more, and fewer, than the Deployment wants."""

    surge: int
    unavailable: int


def bounds(wanted: int, max_surge: int | str, max_unavailable: int | str) -> Bounds:
    """Resolve both limits; where both come to nothing, one pod may be away."""
    surge = _resolved(max_surge, wanted, up=True)
    unavailable = _resolved(max_unavailable, wanted, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return Bounds(surge=surge, unavailable=min(unavailable, wanted))


def _resolved(limit: int | str, wanted: int, *, up: bool) -> int:
    if isinstance(limit, int):
        return limit
    share = wanted * int(limit.removesuffix("%")) / 100
    return math.ceil(share) if up else math.floor(share)


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
# The digest is our own: the real one depends on how Go prints a struct, and nobody can rely on it.

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"
_OF_ONE_OBJECT = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    DESIRED,
    MOST,
    "deployment.kubernetes.io/revision-history",
)
"""Annotations that a set does not take from its Deployment."""
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels, so that no digest is a word: k8s.io/apimachinery/pkg/util/rand."""


def digest(template: Obj) -> str:
    """Return the hash of a template."""
    number = int.from_bytes(hashlib.sha256(encode(template)).digest()[:8])
    letters = []
    for _ in range(10):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


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


def revision_annotations(deployment: Record, number: int, wanted: int, most: int) -> dict[str, str]:
    """Return the annotations of the set of the present template."""
    given = deployment.metadata.get("annotations", {})
    own = {key: value for key, value in given.items() if key not in _OF_ONE_OBJECT}
    return {**own, DESIRED: str(wanted), MOST: str(most), REVISION: str(number)}


def new_set(deployment: Record, replicas: int, annotations: dict[str, str]) -> Obj:
    """Return the set for the present template."""
    spec = deployment.thaw()["spec"]
    template = spec["template"]
    name = digest(template)
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[HASH_LABEL] = name
    selector = spec["selector"]
    selector["matchLabels"] = {**selector.get("matchLabels", {}), HASH_LABEL: name}
    return {
        "metadata": {
            "name": f"{deployment.name}-{name}",
            "labels": dict(labels),
            "annotations": annotations,
            "ownerReferences": [reference_to(deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }


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
        moved = counts != {key: before.get(key) for key in counts}
        if moved and progressing["reason"] == "ReplicaSetUpdated":
            progressing["lastUpdateTime"] = objects.stamp(now)
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
    spec = owner.object["spec"]
    if spec.get("paused"):
        return _condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
    if new is None:
        return None
    wanted = spec["replicas"]
    names = ("replicas", "updatedReplicas", "availableReplicas")
    if all(counts.get(name, 0) == wanted for name in names):
        message = f'ReplicaSet "{new.name}" has successfully progressed.'
        return _condition("Progressing", "True", "NewReplicaSetAvailable", message)
    if created:
        message = f'Created new replica set "{new.name}"'
        return _condition("Progressing", "True", "NewReplicaSetCreated", message)
    message = f'ReplicaSet "{new.name}" is progressing.'
    return _condition("Progressing", "True", "ReplicaSetUpdated", message)


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
    stamp = objects.stamp(now)
    updated = condition.get("lastUpdateTime", stamp)
    moved = stamp
    if known is not None and known["status"] == condition["status"]:
        moved = known["lastTransitionTime"]
        same = (known["reason"], known["message"]) == (condition["reason"], condition["message"])
        if same and "lastUpdateTime" not in condition:
            updated = known["lastUpdateTime"]
    return {**condition, "lastUpdateTime": updated, "lastTransitionTime": moved}


# ---- The controller

KEY = "deployments.apps"
SETS = "replicasets.apps"


class Deployments:
    """Looks at a Deployment when it or one of its sets changes."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._events = Recorder(resources, "deployment-controller")

    def react(self, change: Change) -> None:
        """Take the next step of the rollouts that a change concerns."""
        storage, record = self._resources.storage, change.record
        if change.key == KEY:
            owner = storage.get(KEY, record.namespace, record.name)
        elif change.key == SETS:
            owner = self._owner(record)
        else:
            return
        if owner is not None and not owner.deleted:
            self._sync(owner)

    def _owner(self, record: Record) -> Record | None:
        reference = controller_of(record.object)
        if reference is None or reference["kind"] != "Deployment":
            return None
        return self._resources.storage.get(KEY, record.namespace, reference["name"])

    def _sync(self, owner: Record) -> None:
        new = current_set(owner, self._sets(owner))
        paused = owner.object["spec"].get("paused", False)
        created = False
        if paused:
            self._rescale(owner)
        else:
            created = self._roll(owner, new)
        self._tell(owner, created=created)
        if not paused:
            self._clean(owner)

    def _sets(self, owner: Record) -> list[Record]:
        """Return a Deployment's sets, oldest first."""
        found = owned(self._resources.storage, SETS, owner)
        return sorted(found, key=age)

    def _limits(self, owner: Record) -> Bounds:
        rolling = owner.object["spec"]["strategy"]["rollingUpdate"]
        return bounds(
            owner.object["spec"]["replicas"],
            rolling["maxSurge"],
            rolling["maxUnavailable"],
        )

    def _roll(self, owner: Record, new: Record | None) -> bool:
        wanted, limits = owner.object["spec"]["replicas"], self._limits(owner)
        old = [s for s in self._sets(owner) if new is None or s.uid != new.uid]
        state = _state(new) if new is not None else SetState(wanted=0, pods=0, available=0)
        size = new_size(wanted, limits, state, list(map(_state, old)))
        if new is None:
            self._begin(owner, size)
            return True
        new = self._refresh(owner, new)
        if size != state.wanted:
            self._scale(owner, new, size)
            return False
        sizes = old_sizes(wanted, limits, state, list(map(_state, old)))
        for each, fewer in zip(old, sizes, strict=True):
            self._scale(owner, each, fewer)
        return False

    def _rescale(self, owner: Record) -> None:
        """Follow a change of size while the rollout is paused."""
        active = [s for s in self._sets(owner) if s.object["spec"]["replicas"]]
        target = active[-1:] or self._sets(owner)[-1:]
        for each in target:
            others = sum(_state(s).wanted for s in active if s.uid != each.uid)
            self._scale(owner, each, max(0, owner.object["spec"]["replicas"] - others))

    def _begin(self, owner: Record, size: int) -> None:
        """Make the set of a new template."""
        number = next_revision(self._sets(owner))
        body = new_set(owner, size, self._notes(owner, number))
        kind = self._resources.registry.by_key(SETS)
        made = self._resources.create(kind, owner.namespace, body)
        if size:
            self._scaled(owner, made.name, 0, size)

    def _notes(self, owner: Record, number: int) -> dict[str, str]:
        wanted = owner.object["spec"]["replicas"]
        return revision_annotations(owner, number, wanted, wanted + self._limits(owner).surge)

    def _refresh(self, owner: Record, new: Record) -> Record:
        """Bring the present set's annotations up to date; an earlier template gets a new number."""
        others = [s for s in self._sets(owner) if s.uid != new.uid]
        number = max(revision(new), next_revision(others))
        changed = new.thaw()
        notes = changed["metadata"].setdefault("annotations", {})
        notes.update(self._notes(owner, number))
        return self._resources.settle(self._resources.registry.by_key(SETS), new, changed)

    def _scale(self, owner: Record, one: Record, size: int) -> None:
        before = one.object["spec"]["replicas"]
        if size == before:
            return
        new = one.thaw()
        new["spec"]["replicas"] = size
        new["metadata"]["generation"] += 1
        notes = new["metadata"].setdefault("annotations", {})
        wanted = owner.object["spec"]["replicas"]
        notes[DESIRED] = str(wanted)
        notes[MOST] = str(wanted + self._limits(owner).surge)
        self._resources.settle(self._resources.registry.by_key(SETS), one, new)
        self._scaled(owner, one.name, before, size)

    def _scaled(self, owner: Record, name: str, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        message = f"Scaled {way} replica set {name} from {before} to {after}"
        self._events.tell(owner, "ScalingReplicaSet", message)

    def _tell(self, owner: Record, *, created: bool) -> None:
        """Write the Deployment's status and revision."""
        sets = self._sets(owner)
        new = current_set(owner, sets)
        changed = owner.thaw()
        changed["status"] = status_of(
            owner, new, sets, self._resources.now(), self._limits(owner), created=created
        )
        if new is not None and revision(new):
            notes = changed["metadata"].setdefault("annotations", {})
            notes[REVISION] = str(revision(new))
        self._resources.settle(self._resources.registry.by_key(KEY), owner, changed)

    def _clean(self, owner: Record) -> None:
        """Delete the oldest sets beyond those that a person may go back to."""
        new = current_set(owner, self._sets(owner))
        idle = [s for s in self._sets(owner) if _idle(s) and (new is None or s.uid != new.uid)]
        surplus = len(idle) - owner.object["spec"]["revisionHistoryLimit"]
        kind = self._resources.registry.by_key(SETS)
        for one in sorted(idle, key=revision)[: max(0, surplus)]:
            self._resources.delete(kind, one, Deletion(propagation="Background"))


def _state(one: Record) -> SetState:
    status = one.object.get("status", {})
    return SetState(
        wanted=one.object["spec"]["replicas"],
        pods=status.get("replicas", 0),
        available=status.get("availableReplicas", 0),
    )


def _idle(one: Record) -> bool:
    return not one.deleted and not one.object["spec"]["replicas"] and not _state(one).pods

"""A Deployment's status: its counts, and whether it is available and getting on. Pure.

Reasons and messages are those of pkg/controller/deployment/progress.go and deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from podidentity_sandbox.cluster import objects
from podidentity_sandbox.cluster.controllers.rollout import Bounds
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.storage import Record

TIMED_OUT = "ProgressDeadlineExceeded"
DONE = "NewReplicaSetAvailable"


def status_of(
    owner: Record,
    new: Record | None,
    sets: Sequence[Record],
    now: datetime,
    limits: Bounds,
    *,
    created: bool,
) -> tuple[Obj, float | None]:
    """Return the new status, and after how many seconds to look at it again, if at all."""
    counts = _counts(owner, new, sets)
    before = owner.object.get("status", {})
    known = {each["type"]: each for each in before.get("conditions", [])}
    least = owner.object["spec"]["replicas"] - limits.unavailable
    conditions = [_available(counts.get("availableReplicas", 0) >= least)]
    wait = None
    progressing = _progressing(owner, new, counts, created=created)
    if progressing is not None:
        moved = counts != {key: before.get(key) for key in counts}
        progressing, wait = _timed(owner, progressing, known.get("Progressing"), now, moved=moved)
        conditions.append(progressing)
    conditions += _failure(new, sets)
    told = [_dated(each, known.get(each["type"]), now) for each in conditions]
    if progressing is None and "Progressing" in known:
        told.append(known["Progressing"])
    return {**counts, "conditions": told}, wait


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
    """Return the condition as it would be without a deadline; None: as it was."""
    spec = owner.object["spec"]
    if spec.get("paused"):
        return _condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
    if new is None:
        return None
    wanted = spec["replicas"]
    names = ("replicas", "updatedReplicas", "availableReplicas")
    if all(counts.get(name, 0) == wanted for name in names):
        message = f'ReplicaSet "{new.name}" has successfully progressed.'
        return _condition("Progressing", "True", DONE, message)
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


def _timed(
    owner: Record, wanted: Obj, known: Obj | None, now: datetime, *, moved: bool
) -> tuple[Obj, float | None]:
    """Return the condition with its deadline applied, and how long that is away."""
    limit = owner.object["spec"].get("progressDeadlineSeconds")
    if wanted["reason"] != "ReplicaSetUpdated" or limit is None:
        return wanted, limit if wanted["reason"] == "NewReplicaSetCreated" else None
    if known is None or moved or known["reason"] in (DONE, "DeploymentPaused"):
        return {**wanted, "lastUpdateTime": objects.stamp(now)}, float(limit)
    if known["reason"] == TIMED_OUT:
        return known, None
    since = datetime.strptime(known["lastUpdateTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    left = since + timedelta(seconds=limit) - now
    if left > timedelta(0):
        same = {**wanted, "lastUpdateTime": known["lastUpdateTime"]}
        return same, left.total_seconds()
    message = wanted["message"].replace("is progressing.", "has timed out progressing.")
    return _condition("Progressing", "False", TIMED_OUT, message), None


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

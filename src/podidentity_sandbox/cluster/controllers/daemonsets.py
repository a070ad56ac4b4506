"""Keeps one pod of each DaemonSet on every node that it fits.

https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
Pods are bound by node affinity and the scheduler, as in a real cluster. An update replaces pods
one after the other: without surge the next goes when no more than maxUnavailable are away; with
maxSurge the new pod is made beside the old one, which goes once the new one is available, on no
more than maxSurge nodes at a time. So a template whose pods do not get ready stops there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.controllers.loop import Later, controller_of, owned, reference_to
from podidentity_sandbox.cluster.controllers.scheduler import NOT_READY, UNSCHEDULABLE, fits, ready
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.kinds.pods import ENDED
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

    def __init__(self, resources: Resources, later: Later) -> None:
        self._resources = resources
        self._later = later
        self._awaited: set[tuple[str, str]] = set()
        self._events = Recorder(resources, "daemonset-controller")

    def react(self, change: Change) -> None:
        """Reconcile the sets that a change concerns."""
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
            # A set that waited for its account can make its pods now.
            for record in storage.all(KEY, change.record.namespace):
                self._sync(record)

    def _sync(self, owner: Record | None) -> None:
        if owner is None or owner.deleted:
            return
        nodes = self._resources.storage.all("nodes")
        wanted = [node.name for node in nodes if fits(self._pod(owner, node.name), node.object)]
        now, current = self._resources.now(), revision(owner)
        step = next_step(owner, self._pods(owner), wanted, current, now)
        for pod in step.delete:
            self._delete(owner, pod)
        for node in step.create:
            self._make(owner, node)
        self._tell(owner, wanted, current)
        wait = seconds_to_availability(owner, self._pods(owner), now)
        place = owner.namespace, owner.name
        if wait is not None and place not in self._awaited:
            self._awaited.add(place)
            self._later(wait, lambda: self._look_again(place))

    def _look_again(self, place: tuple[str, str]) -> None:
        """Look at a set one of whose pods may have been ready for long enough."""
        self._awaited.discard(place)
        with suppress(StatusError):
            self._sync(self._resources.storage.get(KEY, *place))

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
        """Write the set's status: of each node the oldest pod counts, as in updateDaemonSetStatus.

        https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/daemon/daemon_controller.go
        """
        now, count, misplaced = self._resources.now(), Counter[str](), 0
        for node, pods in _by_node(self._pods(owner)).items():
            if node not in wanted:
                misplaced += 1
                continue
            oldest = pods[0]
            count["scheduled"] += 1
            count["ready"] += ready(oldest.object)
            count["available"] += is_available(owner, oldest, now)
            count["updated"] += label_of(oldest) == current
        new = owner.thaw()
        new["status"] = {
            "currentNumberScheduled": count["scheduled"],
            "desiredNumberScheduled": len(wanted),
            "numberMisscheduled": misplaced,
            "numberReady": count["ready"],
            "numberAvailable": count["available"],
            "numberUnavailable": len(wanted) - count["available"],
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


@dataclass(frozen=True, slots=True)
class UpdateStep:
    """The pods to make and to delete for a set now."""

    create: tuple[str, ...]
    """Nodes that are to get a pod of the present template."""
    delete: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many pods of a set there may be more, or fewer, than it wants during an update."""

    surge: int
    unavailable: int


def limits(owner: Record, wanted: int) -> Limits:
    """Resolve both limits, rounded up; where both come to nothing, one pod may be away.

    `updatedDesiredNodeCounts` of pkg/controller/daemon/update.go.
    """
    update = owner.object["spec"]["updateStrategy"]
    if update["type"] != "RollingUpdate":
        return Limits(0, 0)
    rolling = update.get("rollingUpdate", {})
    surge, unavailable = (
        _resolved(rolling.get(field, default), wanted)
        for field, default in (("maxSurge", 0), ("maxUnavailable", 1))
    )
    return Limits(surge, unavailable if surge or unavailable else 1)


def _resolved(limit: int | str, wanted: int) -> int:
    if isinstance(limit, int):
        return limit
    return -(-wanted * int(limit.removesuffix("%") or 0) // 100)


def next_step(
    owner: Record, pods: Sequence[Record], wanted: Sequence[str], current: str, now: datetime
) -> UpdateStep:
    """Return the next step towards one pod of template `current` on each node of `wanted`.

    `manage` and `rollingUpdate` of pkg/controller/daemon; a node whose pod is being deleted gets
    its next one when that is gone.
    """
    by_node, allowed = _by_node(pods), limits(owner, len(wanted))
    rolling = owner.object["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    delete = [pod for node, found in by_node.items() if node not in wanted for pod in found]
    create = [node for node in wanted if node not in by_node]
    states = [_NodeState.of(owner, by_node.get(node, []), current, now) for node in wanted]
    surplus = (state.surplus(surging=bool(allowed.surge)) for state in states)
    delete += [pod for pods_of_node in surplus for pod in pods_of_node]
    if rolling and allowed.surge:
        old, nodes = _surge(states, wanted, allowed.surge)
        delete += old
        create += nodes
    elif rolling:
        delete += _replace(states, allowed.unavailable)
    going = {pod.uid: pod for pod in delete if not pod.deleted}
    return UpdateStep(tuple(create), tuple(going.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _NodeState:
    """A set's pods on one node, oldest first, those that are being deleted left out."""

    new: tuple[Record, ...]
    old: tuple[Record, ...]
    ended: tuple[Record, ...]
    """They are to go, whatever their template."""
    new_is_up: bool
    """Its oldest new pod is available."""
    old_is_up: bool
    old_is_ready: bool

    @classmethod
    def of(cls, owner: Record, pods: Sequence[Record], current: str, now: datetime) -> Self:
        here = [pod for pod in pods if not pod.deleted]
        ended = [pod for pod in here if field_of(pod.object, "status.phase") in ENDED]
        new = [pod for pod in here if pod not in ended and label_of(pod) == current]
        old = [pod for pod in here if pod not in ended and label_of(pod) != current]
        return cls(
            new=tuple(new),
            old=tuple(old),
            ended=tuple(ended),
            new_is_up=any(is_available(owner, pod, now) for pod in new[:1]),
            old_is_up=any(is_available(owner, pod, now) for pod in old[:1]),
            old_is_ready=any(ready(pod.object) for pod in old[:1]),
        )

    def surplus(self, *, surging: bool) -> list[Record]:
        """Return the pods that ended, and those beyond the one or two that a node may have.

        Two only while the new one is not available yet and the old one is ready.
        """
        if not surging:
            running = sorted((*self.new, *self.old), key=_age)
            return [*self.ended, *running[1:]]
        surplus = [*self.ended, *self.new[1:], *self.old[1:]]
        if self.new and self.old and (self.new_is_up or not self.old_is_ready):
            surplus.append(self.old[0])
        return surplus


def _surge(
    states: Sequence[_NodeState], nodes: Sequence[str], most: int
) -> tuple[list[Record], list[str]]:
    """Return the old pods that may go now, and the nodes that get a new pod beside their old one.

    A new pod comes at once where the old one is not available, and else within `most` at a time.
    """
    gone: list[Record] = []
    replaced: list[str] = []
    candidates: list[str] = []
    for node, state in zip(nodes, states, strict=True):
        if len(state.new) > 1 or len(state.old) > 1:
            most -= 1
        elif state.new and state.old:
            if state.new_is_up:
                gone.append(state.old[0])
            else:
                most -= 1
        elif state.old:
            (candidates if state.old_is_up else replaced).append(node)
    return gone, [*replaced, *candidates[: max(0, most)]]


def _replace(states: Sequence[_NodeState], most: int) -> list[Record]:
    """Return the old pods that may go now, so that no more than `most` nodes are without one."""
    gone: list[Record] = []
    candidates: list[Record] = []
    for state in states:
        if state.old and not state.new:
            (candidates if state.old_is_up else gone).append(state.old[0])
        elif not state.new_is_up or state.old:
            most -= 1
    return [*gone, *candidates[: max(0, most)]]


def is_available(owner: Record, pod: Record, now: datetime) -> bool:
    """Whether a pod has been ready for the set's minReadySeconds."""
    left = _seconds_left(owner, pod, now)
    return left is not None and left <= 0


def seconds_to_availability(owner: Record, pods: Sequence[Record], now: datetime) -> float | None:
    """Return when the next pod that is ready will be available; None if there is none to come."""
    left = (_seconds_left(owner, pod, now) for pod in pods)
    return min((seconds for seconds in left if seconds is not None and seconds > 0), default=None)


def _seconds_left(owner: Record, pod: Record, now: datetime) -> float | None:
    for condition in field_of(pod.object, "status.conditions") or []:
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            least = owner.object["spec"].get("minReadySeconds", 0)
            since = condition.get("lastTransitionTime")
            if not least or since is None:
                return float(least)
            return float(least - (now - datetime.fromisoformat(since)).total_seconds())
    return None


def _by_node(pods: Sequence[Record]) -> dict[str, list[Record]]:
    """Return a set's pods by their node, oldest first, also those that are being deleted."""
    found: dict[str, list[Record]] = {}
    for pod in sorted(pods, key=_age):
        found.setdefault(place(pod.object), []).append(pod)
    return found


def _age(pod: Record) -> tuple[bool, str, str]:
    """Order pods: placed ones first, then by creation, then by name."""
    unplaced = not field_of(pod.object, "spec.nodeName")
    return unplaced, str(pod.metadata["creationTimestamp"]), pod.name

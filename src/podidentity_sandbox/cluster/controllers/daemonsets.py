"""Keeps one pod of each DaemonSet on every node that it fits.

https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
Pods are bound by node affinity and the scheduler, as in a real cluster. An update replaces pods
one after the other: without surge the next goes when no more than maxUnavailable are away; with
maxSurge the new pod is made beside the old one, which goes once the new one is ready, on no more
than maxSurge nodes at a time. So a template whose pods do not get ready stops there. A pod counts
as available as soon as it is ready.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.controllers.scheduler import NOT_READY, UNSCHEDULABLE, fits, ready
from podidentity_sandbox.cluster.controllers.sets import Sets, digest
from podidentity_sandbox.cluster.kinds.pods import ENDED
from podidentity_sandbox.cluster.storage import Change, Record, field_of

HASH_LABEL = "controller-revision-hash"
_TOLERATED = (
    (NOT_READY, "NoExecute"),
    (NOT_READY, "NoSchedule"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    (UNSCHEDULABLE, "NoSchedule"),
)
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


class DaemonSets(Sets):
    """Looks at all sets when a node changes, too."""

    KEY = "daemonsets.apps"
    KIND = "DaemonSet"
    COMPONENT = "daemonset-controller"

    def react(self, change: Change) -> None:
        if change.key != "nodes":
            super().react(change)
            return
        for owner in self._resources.storage.all(self.KEY):
            self._sync(owner)

    def _sync(self, owner: Record) -> None:
        if owner.deleted:
            return
        nodes = self._resources.storage.all("nodes")
        wanted = [node.name for node in nodes if fits(self._pod_on(owner, node.name), node.object)]
        create, delete = next_step(owner, self._parts(owner), wanted)
        for pod in delete:
            self._delete(owner, pod)
        for node in create:
            self._make(owner, self._pod_on(owner, node))
        self._tell(owner, wanted)

    def _pod_on(self, owner: Record, node: str) -> Obj:
        """Return the pod of a set for a node: bound to it, beside what the template demands."""
        pod = self._pod(owner)
        pod["metadata"].setdefault("labels", {})[HASH_LABEL] = digest(owner)
        pod["spec"].setdefault("tolerations", []).extend(
            {"key": key, "operator": "Exists", "effect": effect} for key, effect in _TOLERATED
        )
        affinity = pod["spec"].setdefault("affinity", {}).setdefault("nodeAffinity", {})
        required = affinity.setdefault(_REQUIRED, {})
        terms = required.get("nodeSelectorTerms") or [{}]
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        required["nodeSelectorTerms"] = [{**term, "matchFields": [field]} for term in terms]
        return pod

    def _tell(self, owner: Record, wanted: Sequence[str]) -> None:
        """Write the set's status: of each node the oldest pod counts, as in updateDaemonSetStatus.

        https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/daemon/daemon_controller.go
        """
        current, count = digest(owner), Counter[str]()
        for node, (oldest, *_) in _by_node(self._parts(owner)).items():
            placed = node in wanted
            count["scheduled" if placed else "misplaced"] += 1
            count["ready"] += placed and ready(oldest.object)
            count["updated"] += placed and _label(oldest) == current
        status = {
            "currentNumberScheduled": count["scheduled"],
            "desiredNumberScheduled": len(wanted),
            "numberMisscheduled": count["misplaced"],
            "numberReady": count["ready"],
            "numberAvailable": count["ready"],
            "numberUnavailable": len(wanted) - count["ready"],
            "updatedNumberScheduled": count["updated"],
            "observedGeneration": owner.metadata["generation"],
        }
        self._resources.settle(self.KEY, owner, owner.thaw() | {"status": status})


def _label(pod: Record) -> str:
    """Return the template that a pod was made from."""
    return str(pod.metadata.get("labels", {}).get(HASH_LABEL, ""))


def _place(pod: Obj) -> str:
    """Return the node that a set's pod is on, or is meant for."""
    if bound := field_of(pod, "spec.nodeName"):
        return str(bound)
    required = field_of(pod["spec"], f"affinity.nodeAffinity.{_REQUIRED}") or {}
    fields = (f for term in required.get("nodeSelectorTerms", []) for f in term["matchFields"])
    return next((str(field["values"][0]) for field in fields), "")


def _by_node(pods: Sequence[Record]) -> dict[str, list[Record]]:
    """Return a set's pods by their node, oldest first, also those that are being deleted."""
    found: dict[str, list[Record]] = {}
    for pod in sorted(pods, key=_age):
        found.setdefault(_place(pod.object), []).append(pod)
    return found


def _age(pod: Record) -> tuple[bool, str, str]:
    """Order pods: placed ones first, then by creation, then by name."""
    unplaced = not field_of(pod.object, "spec.nodeName")
    return unplaced, str(pod.metadata["creationTimestamp"]), pod.name


# ---- The next step of an update: pure


def bounds(owner: Record, wanted: int) -> tuple[int, int]:
    """Return how many nodes may have a pod more, and how many none; with OnDelete both are 0.

    A share is rounded up; where both come to nothing, one pod may be away.
    """
    update = owner.object["spec"]["updateStrategy"]
    if update["type"] != "RollingUpdate":
        return 0, 0
    surge, unavailable = (
        limit if isinstance(limit, int) else math.ceil(wanted * int(limit.removesuffix("%")) / 100)
        for limit in (update["rollingUpdate"][name] for name in ("maxSurge", "maxUnavailable"))
    )
    return surge, unavailable if surge or unavailable else 1


def next_step(
    owner: Record, pods: Sequence[Record], wanted: Sequence[str]
) -> tuple[list[str], list[Record]]:
    """Return the nodes that get a pod of the present template now, and the pods that go.

    `manage` and `rollingUpdate` of pkg/controller/daemon; a node whose pod is being deleted gets
    its next one when that is gone.
    """
    by_node, (surge, unavailable) = _by_node(pods), bounds(owner, len(wanted))
    delete = [pod for node, found in by_node.items() if node not in wanted for pod in found]
    create = [node for node in wanted if node not in by_node]
    current = digest(owner)
    states = [_NodeState.of(node, by_node.get(node, []), current) for node in wanted]
    delete += [pod for state in states for pod in state.surplus(surging=bool(surge))]
    if surge:
        create += _surge(states, surge)
    elif unavailable:
        delete += _replace(states, unavailable)
    return create, list({pod.uid: pod for pod in delete if not pod.deleted}.values())


@dataclass(frozen=True, slots=True)
class _NodeState:
    """A set's pods on one node, oldest first, those that are being deleted left out."""

    node: str
    new: list[Record]
    old: list[Record]
    ended: list[Record]
    """They are to go, whatever their template."""

    @classmethod
    def of(cls, node: str, pods: Sequence[Record], current: str) -> Self:
        here = [pod for pod in pods if not pod.deleted]
        ended = [pod for pod in here if field_of(pod.object, "status.phase") in ENDED]
        new = [pod for pod in here if pod not in ended and _label(pod) == current]
        return cls(node, new, [pod for pod in here if pod not in (*ended, *new)], ended)

    @property
    def new_is_up(self) -> bool:
        return any(ready(pod.object) for pod in self.new[:1])

    @property
    def old_is_up(self) -> bool:
        return any(ready(pod.object) for pod in self.old[:1])

    def surplus(self, *, surging: bool) -> Iterator[Record]:
        """Yield the pods that ended, and those beyond the one or two that a node may have.

        Two only while the new one is not ready yet and the old one is.
        """
        yield from self.ended
        if not surging:
            yield from sorted((*self.new, *self.old), key=_age)[1:]
            return
        yield from (*self.new[1:], *self.old[1:])
        if self.new and self.old and (self.new_is_up or not self.old_is_up):
            yield self.old[0]


def _surge(states: Sequence[_NodeState], most: int) -> list[str]:
    """Return the nodes that get a new pod beside their old one.

    It comes at once where the old one is not ready, and else on no more than `most` at a time.
    """
    sole = [each for each in states if len(each.old) == 1 and not each.new]
    at_once = [each.node for each in sole if not each.old_is_up]
    for each in states:
        under_way = each.new and each.old and not each.new_is_up
        most -= bool(len(each.new) > 1 or len(each.old) > 1 or under_way)
    return [*at_once, *[each.node for each in sole if each.old_is_up][: max(0, most)]]


def _replace(states: Sequence[_NodeState], most: int) -> list[Record]:
    """Return the old pods that may go now, so that no more than `most` nodes are without one."""
    sole = [each for each in states if each.old and not each.new]
    most -= sum(not each.new_is_up or bool(each.old) for each in states if each not in sole)
    gone = [each.old[0] for each in sole if not each.old_is_up]
    return [*gone, *[each.old[0] for each in sole if each.old_is_up][: max(0, most)]]

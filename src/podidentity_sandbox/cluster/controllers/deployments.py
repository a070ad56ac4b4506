"""Replaces the pods of a Deployment, set by set, when its template changes.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
Events are those of pkg/controller/deployment. What is not done: a Deployment that is scaled in the
middle of a rollout does not scale its old sets up in proportion; minReadySeconds is not waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from podidentity_sandbox.cluster.controllers import progress, revisions, rollout
from podidentity_sandbox.cluster.controllers.ownership import controller_of, owned
from podidentity_sandbox.cluster.controllers.rollout import SetState
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.kinds.pods import ENDED
from podidentity_sandbox.cluster.resources import Deletion, Resources
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Change, Record, field_of

KEY = "deployments.apps"
SETS = "replicasets.apps"

Later = Callable[[float, Callable[[], None]], None]
"""Has something done after so many seconds."""


Place = tuple[str, str]
"""Namespace and name."""


class Deployments:
    """Looks at a Deployment when it, one of its sets, or a pod of them changes."""

    def __init__(self, resources: Resources, later: Later) -> None:
        self._resources = resources
        self._later = later
        self._awaited: set[Place] = set()
        self._events = Recorder(resources, "deployment-controller")

    def react(self, change: Change) -> None:
        """Take the next step of the rollouts that a change concerns."""
        storage, record = self._resources.storage, change.record
        if change.key == KEY:
            owner = storage.get(KEY, record.namespace, record.name)
        elif change.key == SETS:
            owner = self._owner(record, "Deployment", KEY)
        elif change.key == "pods" and change.event == "DELETED":
            # Recreate waits for the end of the last old pod.
            of_set = self._owner(record, "ReplicaSet", SETS)
            owner = self._owner(of_set, "Deployment", KEY) if of_set is not None else None
        else:
            return
        if owner is not None and not owner.deleted:
            self._sync(owner)

    def _owner(self, record: Record, kind: str, key: str) -> Record | None:
        reference = controller_of(record.object)
        if reference is None or reference["kind"] != kind:
            return None
        return self._resources.storage.get(key, record.namespace, reference["name"])

    def _sync(self, owner: Record) -> None:
        new = revisions.present(owner, self._sets(owner))
        paused = owner.object["spec"].get("paused", False)
        created = False
        if paused:
            self._rescale(owner)
        elif owner.object["spec"]["strategy"]["type"] == "Recreate":
            created = self._recreate(owner, new)
        else:
            created = self._roll(owner, new)
        self._tell(owner, created=created)
        if not paused:
            self._clean(owner)

    def _sets(self, owner: Record) -> list[Record]:
        """Return a Deployment's sets, oldest first."""
        found = owned(self._resources.storage, SETS, owner)
        return sorted(found, key=revisions.age)

    def _limits(self, owner: Record) -> rollout.Bounds:
        rolling = field_of(owner.object, "spec.strategy.rollingUpdate") or {}
        return rollout.bounds(
            owner.object["spec"]["replicas"],
            rolling.get("maxSurge", 0),
            rolling.get("maxUnavailable", 0),
        )

    def _roll(self, owner: Record, new: Record | None) -> bool:
        wanted, limits = owner.object["spec"]["replicas"], self._limits(owner)
        old = [s for s in self._sets(owner) if new is None or s.uid != new.uid]
        state = _state(new) if new is not None else SetState(wanted=0, pods=0, available=0)
        size = rollout.new_size(wanted, limits, state, list(map(_state, old)))
        if new is None:
            self._begin(owner, size)
            return True
        new = self._refresh(owner, new)
        if size != state.wanted:
            self._scale(owner, new, size)
            return False
        sizes = rollout.old_sizes(wanted, limits, state, list(map(_state, old)))
        for each, fewer in zip(old, sizes, strict=True):
            self._scale(owner, each, fewer)
        return False

    def _recreate(self, owner: Record, new: Record | None) -> bool:
        old = [s for s in self._sets(owner) if new is None or s.uid != new.uid]
        for each in old:
            self._scale(owner, each, 0)
        if any(self._lives(each) for each in old):
            return False
        wanted = owner.object["spec"]["replicas"]
        if new is None:
            self._begin(owner, wanted)
            return True
        self._scale(owner, self._refresh(owner, new), wanted)
        return False

    def _lives(self, old: Record) -> bool:
        pods = owned(self._resources.storage, "pods", old)
        return any(field_of(pod.object, "status.phase") not in ENDED for pod in pods)

    def _rescale(self, owner: Record) -> None:
        """Follow a change of size while the rollout is paused."""
        active = [s for s in self._sets(owner) if s.object["spec"]["replicas"]]
        target = active[-1:] or self._sets(owner)[-1:]
        for each in target:
            others = sum(_state(s).wanted for s in active if s.uid != each.uid)
            self._scale(owner, each, max(0, owner.object["spec"]["replicas"] - others))

    def _begin(self, owner: Record, size: int) -> None:
        """Make the set of a new template."""
        number = revisions.next_revision(self._sets(owner))
        body = revisions.new_set(owner, size, self._notes(owner, number))
        kind = self._resources.registry.by_key(SETS)
        made = self._resources.create(kind, owner.namespace, body)
        if size:
            self._scaled(owner, made.name, 0, size)

    def _notes(self, owner: Record, number: int) -> dict[str, str]:
        wanted = owner.object["spec"]["replicas"]
        return revisions.notes(owner, number, wanted, wanted + self._limits(owner).surge)

    def _refresh(self, owner: Record, new: Record) -> Record:
        """Bring the present set's annotations up to date; an earlier template gets a new number."""
        others = [s for s in self._sets(owner) if s.uid != new.uid]
        number = max(revisions.revision(new), revisions.next_revision(others))
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
        notes[revisions.DESIRED] = str(wanted)
        notes[revisions.MOST] = str(wanted + self._limits(owner).surge)
        self._resources.settle(self._resources.registry.by_key(SETS), one, new)
        self._scaled(owner, one.name, before, size)

    def _scaled(self, owner: Record, name: str, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        message = f"Scaled {way} replica set {name} from {before} to {after}"
        self._events.tell(owner, "ScalingReplicaSet", message)

    def _tell(self, owner: Record, *, created: bool) -> None:
        """Write the Deployment's status and revision."""
        sets = self._sets(owner)
        new = revisions.present(owner, sets)
        changed = owner.thaw()
        changed["status"], wait = progress.status_of(
            owner, new, sets, self._resources.now(), self._limits(owner), created=created
        )
        if new is not None and revisions.revision(new):
            notes = changed["metadata"].setdefault("annotations", {})
            notes[revisions.REVISION] = str(revisions.revision(new))
        self._resources.settle(self._resources.registry.by_key(KEY), owner, changed)
        place = owner.namespace, owner.name
        if wait is not None and place not in self._awaited:
            self._awaited.add(place)
            self._later(wait, lambda: self._look_again(place))

    def _look_again(self, place: Place) -> None:
        """Look at a Deployment whose deadline may be over."""
        self._awaited.discard(place)
        owner = self._resources.storage.get(KEY, *place)
        if owner is not None and not owner.deleted:
            with suppress(StatusError):
                self._sync(owner)

    def _clean(self, owner: Record) -> None:
        """Delete the oldest sets beyond those that a person may go back to."""
        new = revisions.present(owner, self._sets(owner))
        idle = [s for s in self._sets(owner) if _idle(s) and (new is None or s.uid != new.uid)]
        surplus = len(idle) - owner.object["spec"]["revisionHistoryLimit"]
        kind = self._resources.registry.by_key(SETS)
        for one in sorted(idle, key=revisions.revision)[: max(0, surplus)]:
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

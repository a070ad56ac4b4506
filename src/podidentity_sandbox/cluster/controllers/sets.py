"""What the controllers of Deployments, ReplicaSets and DaemonSets share: each has parts to keep."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.events import Recorder
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Change, Record, encode


def controller_of(obj: Obj) -> Obj:
    """Return the owner reference of an object's controller; {} where it has none."""
    owners: list[Obj] = obj["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner.get("controller")), {})


def digest(owner: Record) -> str:
    """Return the name of a set's template.

    It is our own: the real one depends on how Go prints a struct, and nobody can rely on it.
    """
    return hashlib.sha256(encode(owner.object["spec"]["template"])).hexdigest()[:10]


class Sets(ABC):
    """Looks at a set when it or one of its parts changes, or an account that it may wait for."""

    KEY: ClassVar[str]
    """Storage key of the sets."""
    KIND: ClassVar[str]
    PARTS: ClassVar[str] = "pods"
    COMPONENT: ClassVar[str]
    """Who its events are from."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._events = Recorder(resources, self.COMPONENT)

    def react(self, change: Change) -> None:
        """Take the next step of the sets that a change concerns."""
        record, storage = change.record, self._resources.storage
        owner = controller_of(record.object)
        sets: list[Record | None] = []
        if change.key == self.KEY and change.event != "DELETED":
            sets = [storage.get(self.KEY, record.namespace, record.name)]
        elif change.key == self.PARTS and owner.get("kind") == self.KIND:
            sets = [storage.get(self.KEY, record.namespace, owner["name"])]
        elif change.key == "serviceaccounts" and change.event == "ADDED":
            sets = [*storage.all(self.KEY, record.namespace)]
        for each in sets:
            if each is not None:
                self._sync(each)

    @abstractmethod
    def _sync(self, owner: Record) -> None:
        """Take the next step of one set."""

    def _parts(self, owner: Record) -> Sequence[Record]:
        """Return what a set controls, in the order of the names."""
        every = self._resources.storage.all(self.PARTS, owner.namespace)
        return [part for part in every if controller_of(part.object).get("uid") == owner.uid]

    def _pod(self, owner: Record) -> Obj:
        template = owner.thaw()["spec"]["template"]
        given = template.get("metadata", {})
        return {
            "metadata": {
                "generateName": f"{owner.name}-",
                **{key: given[key] for key in ("labels", "annotations") if given.get(key)},
                "ownerReferences": [self._reference(owner)],
            },
            "spec": template["spec"],
        }

    def _reference(self, owner: Record) -> Obj:
        """Return the owner reference that makes `owner` the controller of an object."""
        head = {key: owner.object[key] for key in ("apiVersion", "kind")}
        more = {"controller": True, "blockOwnerDeletion": True}
        return {**head, "name": owner.name, "uid": owner.uid, **more}

    def _make(self, owner: Record, pod: Obj) -> str:
        """Create a pod; return why that failed, "" if it did not."""
        try:
            made = self._resources.create("pods", owner.namespace, pod)
        except StatusError as error:
            causes = (error.details or {}).get("causes", [])
            if not any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
                self._events.warn(owner, "FailedCreate", f"Error creating: {error}")
            if error.code >= 500:  # no space: it is tried again
                raise
            return str(error)
        self._events.tell(owner, "SuccessfulCreate", f"Created pod: {made.name}")
        return ""

    def _delete(self, owner: Record, pod: Record) -> None:
        self._resources.delete("pods", pod)
        self._events.tell(owner, "SuccessfulDelete", f"Deleted pod: {pod.name}")

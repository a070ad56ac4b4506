"""Gives each namespace what belongs in it, and empties one that is deleted."""

from __future__ import annotations

from podidentity_sandbox.cluster import objects
from podidentity_sandbox.cluster.controllers import ending
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.storage import Change, Record

ROOT_CA = "kube-root-ca.crt"


class Namespaces:
    """Makes the default service account and the root certificate; ends what terminates."""

    def __init__(self, resources: Resources, authority: str) -> None:
        self._resources = resources
        self._content: dict[tuple[str, str], Obj] = {
            ("serviceaccounts", "default"): {"metadata": {"name": "default"}},
            ("configmaps", ROOT_CA): {"metadata": {"name": ROOT_CA}, "data": {"ca.crt": authority}},
        }

    def react(self, change: Change) -> None:
        """Fill a new namespace, replace what was deleted from it, empty a terminating one."""
        if change.key == "namespaces":
            self._look(change.record.name)
        elif change.event == "DELETED" and change.record.namespace:
            self._look(change.record.namespace)

    def _look(self, name: str) -> None:
        namespace = self._resources.storage.get("namespaces", "", name)
        if namespace is None:
            return
        if namespace.deleted:
            self._empty(namespace)
        else:
            self._fill(name)

    def _fill(self, namespace: str) -> None:
        for (key, name), body in self._content.items():
            if self._resources.storage.get(key, namespace, name) is None:
                kind = self._resources.registry.by_key(key)
                self._resources.create(kind, namespace, {**body, "metadata": {"name": name}})

    def _empty(self, namespace: Record) -> None:
        """Delete all content; when nothing is left, let the namespace go."""
        left = {}
        for kind in self._resources.registry:
            if kind.namespaced and (lingering := self._clear(kind, namespace.name)):
                left[f"{kind.plural}.{kind.group}"] = lingering
        current = self._resources.storage.get("namespaces", "", namespace.name)
        if current is None:
            return
        new = current.thaw()
        if left:
            now = objects.stamp(self._resources.now())
            new["status"]["conditions"] = ending.conditions(new["status"], left, now)
        else:
            new["spec"].pop("finalizers", None)
        self._resources.settle(self._resources.registry.by_key("namespaces"), current, new)

    def _clear(self, kind: ResourceType, namespace: str) -> list[Record]:
        """Delete the objects of one type; returns those that linger."""
        for record in self._resources.storage.all(kind.key, namespace):
            if not record.deleted:
                self._resources.delete(kind, record)
        return self._resources.storage.all(kind.key, namespace)

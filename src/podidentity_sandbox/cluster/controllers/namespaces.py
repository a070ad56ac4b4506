"""Gives each namespace what belongs in it, and empties one that is deleted."""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj
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
        """Fill a new namespace, replace its deleted objects, empty a terminating one."""
        of_namespace = change.key == "namespaces"
        if not of_namespace and change.event != "DELETED":
            return
        name = change.record.name if of_namespace else change.record.namespace
        namespace = self._resources.storage.get("namespaces", "", name)
        if namespace is not None and namespace.deleted:
            self._empty(namespace)
        elif namespace is not None:
            self._fill(name)

    def _fill(self, namespace: str) -> None:
        for (key, name), body in self._content.items():
            if self._resources.storage.get(key, namespace, name) is None:
                self._resources.create(key, namespace, {**body, "metadata": {"name": name}})

    def _empty(self, namespace: Record) -> None:
        """Delete all content; when nothing is left, let the namespace go."""
        left = False
        for kind in self._resources.registry:
            left = (kind.namespaced and self._clear(kind, namespace.name)) or left
        current = self._resources.storage.get("namespaces", "", namespace.name)
        if current is not None and not left:
            new = current.thaw()
            new["spec"].pop("finalizers", None)
            self._resources.settle("namespaces", current, new)

    def _clear(self, kind: ResourceType, namespace: str) -> bool:
        """Delete the objects of one type; return whether some linger."""
        for record in self._resources.storage.all(kind.key, namespace):
            if not record.deleted:
                self._resources.delete(kind, record)
        return bool(self._resources.storage.all(kind.key, namespace))

"""Which pods a change of the cluster's RBAC concerns.

A grant is a ClusterRole that lets use an identity, and a ClusterRoleBinding to it; both are
watched, so that MIC asks again as soon as one comes or goes. Who may use what is the API server's
to say: here a change only tells whose permissions to ask for. Of roles that have nothing to do with
identities no more than the name is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from podidentity.wire.rbac import Grantee, Object, granted_names, grantees

_DECODER = msgspec.json.Decoder()
_NO_BINDING: tuple[str, frozenset[Grantee]] = ("", frozenset())


class Grants:
    """The ClusterRoles and ClusterRoleBindings of a cluster, as far as they are about identities.

    Each method returns the namespaces of the service accounts concerned; "" stands for all.
    """

    def __init__(self) -> None:
        self._roles: dict[str, set[str]] = {}
        """What each lets use, of those that let use any identity."""
        self._bindings: dict[str, tuple[str, frozenset[Grantee]]] = {}
        """The role and the pods of each."""

    def put_role(self, raw: msgspec.Raw) -> set[str]:
        """Take a ClusterRole that came or changed; raise ValueError."""
        found: Object = _DECODER.decode(raw)
        name, lets = str(found["metadata"]["name"]), granted_names(found)
        if self._roles.get(name, set()) == lets:
            return set()
        if lets:
            self._roles[name] = lets
        else:
            del self._roles[name]
        return self._bound(name)

    def remove_role(self, name: str) -> set[str]:
        return self._bound(name) if self._roles.pop(name, None) else set()

    def put_binding(self, raw: msgspec.Raw) -> set[str]:
        """Take a ClusterRoleBinding that came or changed; raise ValueError."""
        found: Object = _DECODER.decode(raw)
        name, pods = str(found["metadata"]["name"]), grantees(found)
        before = self._bindings.pop(name, _NO_BINDING)
        if pods:
            self._bindings[name] = str(found["roleRef"]["name"]), pods
        after = self._bindings.get(name, _NO_BINDING)
        return set() if before == after else {*self._of(before), *self._of(after)}

    def remove_binding(self, name: str) -> set[str]:
        return set(self._of(self._bindings.pop(name, _NO_BINDING)))

    def _bound(self, role: str) -> set[str]:
        found = (pods for name, pods in self._bindings.values() if name == role)
        return {each.namespace for pods in found for each in pods}

    def _of(self, binding: tuple[str, frozenset[Grantee]]) -> Iterator[str]:
        role, pods = binding
        if role in self._roles:
            yield from (each.namespace for each in pods)

"""Who may do what: the administrators everything, nodes what a kubelet needs, others by RBAC."""

from __future__ import annotations

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.node_rules import NodeRules, node_of
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.rbac import Rbac
from podidentity_sandbox.cluster.storage import Storage
from podidentity_sandbox.cluster.users import MASTERS, Decision, User

EVERYTHING: tuple[Obj, ...] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)


class Authorization:
    """Asks one authorizer after the other; the first that allows decides."""

    def __init__(self, storage: Storage) -> None:
        self._nodes = NodeRules(storage)
        self._rbac = Rbac(storage)

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """Return whether `user` may do this, and if not the reason of whoever has one."""
        if MASTERS in user.groups:
            return Decision(allowed=True)
        by_role = self._rbac.decide(user, info)
        if by_role.allowed or not node_of(user):
            return by_role
        return self._nodes.decide(user, info)

    def rules(self, user: User, namespace: str) -> list[Obj]:
        """Return the rules that let a user do what he may, in a namespace and cluster-wide."""
        everything = EVERYTHING if MASTERS in user.groups else ()
        return [*everything, *self._rbac.rules(user, namespace)]

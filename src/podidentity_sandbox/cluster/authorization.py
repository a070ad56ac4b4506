"""Authorization: administrators may do everything, nodes what a kubelet needs, others by RBAC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.authentication import (
    ACCOUNT_PREFIX,
    MASTERS,
    NODE_PREFIX,
    NODES,
    Decision,
    User,
)
from podidentity_sandbox.cluster.kinds.access import GROUP
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.status import qualified
from podidentity_sandbox.cluster.storage import Record, Storage, field_of

# ---- Role-based access control: what roles and bindings grant, and nothing else.
#
# https://kubernetes.io/docs/reference/access-authn-authz/rbac/


def names(subject: Obj, user: User) -> bool:
    """Whether a binding's subject is this user."""
    match subject["kind"]:
        case "User":
            return bool(subject["name"] == user.name)
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            return user.name == f"{ACCOUNT_PREFIX}{subject.get('namespace')}:{subject['name']}"
        case _:
            return False


def role_of(storage: Storage, binding: Obj) -> Record | None:
    """Return the role that a binding names, if it is there."""
    reference = binding.get("roleRef", {})
    kind = reference.get("kind", "")
    namespace = binding["metadata"].get("namespace", "") if kind == "Role" else ""
    return storage.get(f"{kind.lower()}s.{GROUP}", namespace, reference.get("name", ""))


def covers(rule: Obj, info: RequestInfo) -> bool:
    """Whether one rule allows a request."""
    if not has(rule.get("verbs", []), info.verb):
        return False
    if not info.resource:
        return has_path(rule.get("nonResourceURLs", []), info.path)
    restricted = rule.get("resourceNames", [])
    whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    return (
        has(rule.get("apiGroups", []), info.group)
        and has_resource(rule.get("resources", []), whole)
        and (not restricted or info.single in restricted)
    )


def has(values: Sequence[str], wanted: str) -> bool:
    """Whether a rule's verbs or groups include one."""
    return "*" in values or wanted in values


def has_resource(values: Sequence[str], wanted: str) -> bool:
    """Whether a rule's resources include one, or one's subresource: `pods`, `pods/log`."""
    _, slash, subresource = wanted.partition("/")
    return has(values, wanted) or (bool(slash) and f"*/{subresource}" in values)


def has_path(values: Sequence[str], wanted: str) -> bool:
    """Whether a rule's paths include one: all stars at an end are one, as NonResourceURLMatches.

    https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/apis/rbac/v1/evaluation_helpers.go
    """
    return any(
        value == wanted or (value.endswith("*") and wanted.startswith(value.rstrip("*")))
        for value in values
    )


# ---- The rights of a kubelet: those that its own node and its pods need, and none on other nodes
#
# The real Node authorizer and the NodeRestriction admission plugin, for the resources served here:
# https://kubernetes.io/docs/reference/access-authn-authz/node/

MIRROR = "kubernetes.io/config.mirror"
"""The annotation of a pod that stands for a static one of a node."""
READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch")
_OF_EVERY_NODE: dict[str, Sequence[str]] = {
    "events": WRITE,
    "csidrivers.storage.k8s.io": READ,
    "subjectaccessreviews.authorization.k8s.io": ("create",),
    "tokenreviews.authentication.k8s.io": ("create",),
}
"""What does not depend on the node: verbs by storage key."""
_ALLOWED = Decision(allowed=True)


def node_of(user: User) -> str:
    """Return the name of the node whose kubelet this is; "" for anybody else."""
    if NODES not in user.groups or not user.name.startswith(NODE_PREFIX):
        return ""
    return user.name.removeprefix(NODE_PREFIX)


class NodeRules:
    """Decides on kubelets by the specs of the cluster's pods at the moment."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._rules: dict[str, Callable[[str, RequestInfo], Decision]] = {
            "nodes": self._node,
            "pods": self._pod,
            "secrets": self._referenced,
            "configmaps": self._referenced,
            "serviceaccounts": self._account,
            "leases.coordination.k8s.io": self._lease,
        }

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """Return whether a kubelet may do this; never for anybody else."""
        node = node_of(user)
        if not node or not info.resource:
            return Decision(allowed=False)
        key = qualified(info.resource, info.group)
        if (rule := self._rules.get(key)) is not None:
            return rule(node, info)
        return Decision(info.verb in _OF_EVERY_NODE.get(key, ()))

    def _pods(self, node: str, namespace: str) -> list[Record]:
        return [
            pod
            for pod in self._storage.all("pods", namespace)
            if field_of(pod.object, "spec.nodeName") == node
        ]

    def _node(self, node: str, info: RequestInfo) -> Decision:
        if info.verb == "create" or (info.single == node and info.verb in (*READ, *WRITE)):
            return _ALLOWED
        return Decision(False, f"node '{node}' cannot read or change other nodes")

    def _pod(self, node: str, info: RequestInfo) -> Decision:
        if info.verb in ("list", "watch"):
            if info.requires("spec.nodeName") == node:
                return _ALLOWED
            reason = "can only list/watch pods with spec.nodeName field selector"
            return Decision(allowed=False, reason=reason)
        if info.verb == "create" and not info.subresource:
            return _ALLOWED
        mine = any(pod.name == info.name for pod in self._pods(node, info.namespace))
        whole = info.verb in ("get", "delete") and not info.subresource
        if mine and (whole or (info.subresource == "status" and info.verb in ("update", "patch"))):
            return _ALLOWED
        return _unrelated(node)

    def _referenced(self, node: str, info: RequestInfo) -> Decision:
        """A secret or config map that a pod on this node uses, by name only."""
        if info.verb not in READ or info.subresource:
            return Decision(False, f"can only get, list and watch {info.resource}")
        for pod in self._pods(node, info.namespace):
            if info.single and (info.resource, info.single) in references(pod.object["spec"]):
                return _ALLOWED
        return _unrelated(node)

    def _account(self, node: str, info: RequestInfo) -> Decision:
        """A token for the service account of a pod on this node; a mirror pod has none.

        https://github.com/kubernetes/kubernetes/blob/v1.36.0/plugin/pkg/auth/authorizer/node/node_authorizer.go
        """
        if info.verb != "create" or not info.name:
            return Decision(False, "can only create tokens for individual service accounts")
        if info.subresource != "token":
            return Decision(False, "can only create token subresource of serviceaccount")
        used = {
            field_of(pod.object, "spec.serviceAccountName")
            for pod in self._pods(node, info.namespace)
            if MIRROR not in (pod.object["metadata"].get("annotations") or {})
        }
        return _ALLOWED if info.name in used else _unrelated(node)

    def _lease(self, node: str, info: RequestInfo) -> Decision:
        if info.namespace != "kube-node-lease":
            return Decision(False, "can only access leases in the kube-node-lease namespace")
        mine = info.verb == "create" or info.single == node
        reason = "can only access node lease with the same name as the requesting node"
        return _ALLOWED if mine else Decision(allowed=False, reason=reason)


def _unrelated(node: str) -> Decision:
    return Decision(False, f"no relationship found between node '{node}' and this object")


def references(spec: Obj) -> set[tuple[str, str]]:
    """Return the secrets and config maps that a pod's spec names, as (resource, name)."""
    # What the kube-api-access volume of every pod refers to:
    found = {("configmaps", "kube-root-ca.crt")}
    holders = [*spec.get("volumes", [])]
    for volume in spec.get("volumes", []):
        holders += field_of(volume, "projected.sources") or []
    for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
        holders += container.get("envFrom", [])
        holders += [variable.get("valueFrom") for variable in container.get("env", [])]
    for holder in holders:
        for resource, paths in _REFERENCES.items():
            found |= {(resource, field_of(holder, path) or "") for path in paths}
    return found


_REFERENCES = {
    "secrets": (
        *("secretKeyRef.name", "secretRef.name", "secret.name", "secret.secretName"),
        "csi.nodePublishSecretRef.name",
    ),
    "configmaps": ("configMapKeyRef.name", "configMapRef.name", "configMap.name"),
}
"""Where a volume, a part of one, or a source of variables names them."""


# ---- All authorizers

EVERYTHING: tuple[Obj, ...] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)


class Authorization:
    """Asks one authorizer after the other; the first that allows decides."""

    def __init__(self, storage: Storage) -> None:
        self._nodes = NodeRules(storage)
        self._storage = storage

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """Return whether `user` may do this, and if not, the first reason that is known."""
        granted = self._granted(user, info.namespace)
        if MASTERS in user.groups or any(covers(rule, info) for rule in granted):
            return Decision(allowed=True)
        if node_of(user):
            return self._nodes.decide(user, info)
        return Decision(False, self._missing(user, info.namespace))

    def rules(self, user: User, namespace: str) -> list[Obj]:
        """Return the rules that let a user do what he may, in a namespace and cluster-wide."""
        everything = EVERYTHING if MASTERS in user.groups else ()
        return [*everything, *self._granted(user, namespace)]

    def _granted(self, user: User, namespace: str) -> Iterator[Obj]:
        for binding in self._bindings(user, namespace):
            if (role := role_of(self._storage, binding)) is not None:
                yield from role.object.get("rules", [])

    def _bindings(self, user: User, namespace: str) -> Iterator[Obj]:
        found = self._storage.all(f"clusterrolebindings.{GROUP}")
        if namespace:
            found += self._storage.all(f"rolebindings.{GROUP}", namespace)
        for record in found:
            if any(names(subject, user) for subject in record.object.get("subjects", [])):
                yield record.object

    def _missing(self, user: User, namespace: str) -> str:
        """Return which bound roles do not exist, as the real authorizer tells it."""
        bindings = [b for b in self._bindings(user, namespace) if role_of(self._storage, b) is None]
        roles = (binding["roleRef"] for binding in bindings)
        lost = [f'{role["kind"].lower()}.{GROUP} "{role["name"]}" not found' for role in roles]
        if not lost:
            return ""
        return f"RBAC: {lost[0] if len(lost) == 1 else '[' + ', '.join(lost) + ']'}"

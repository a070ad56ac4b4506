"""What a kubelet may do: what its own node and the pods on it need, and nothing of other nodes.

The real Node authorizer and the NodeRestriction admission plugin, for the resources served here:
https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.storage import Record, Storage, field_of
from podidentity_sandbox.cluster.users import NODE_PREFIX, NODES, Decision, User

READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch")
_ALLOWED = Decision(allowed=True)


def node_of(user: User) -> str:
    """Return the name of the node whose kubelet this is; "" for anybody else."""
    if NODES not in user.groups or not user.name.startswith(NODE_PREFIX):
        return ""
    return user.name.removeprefix(NODE_PREFIX)


class NodeRules:
    """Judges kubelets by what the cluster's pods say at the moment."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._rules: dict[str, Callable[[str, RequestInfo], Decision]] = {
            "nodes": self._node,
            "pods": self._pod,
            "secrets": self._referenced,
            "configmaps": self._referenced,
            "serviceaccounts": self._account,
            "events": self._event,
            "leases.coordination.k8s.io": self._lease,
            "csidrivers.storage.k8s.io": self._read,
            "subjectaccessreviews.authorization.k8s.io": self._review,
            "tokenreviews.authentication.k8s.io": self._review,
        }

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """Return whether a kubelet may do this; never for anybody else."""
        node = node_of(user)
        if not node or not info.resource:
            return Decision(allowed=False)
        key = f"{info.resource}.{info.group}" if info.group else info.resource
        rule = self._rules.get(key)
        return rule(node, info) if rule is not None else Decision(allowed=False)

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
        """A token for the service account of a pod on this node."""
        if info.verb != "create" or info.subresource != "token":
            return Decision(allowed=False, reason="can only create tokens for individual accounts")
        used = (p.object["spec"]["serviceAccountName"] for p in self._pods(node, info.namespace))
        return _ALLOWED if info.name in used else _unrelated(node)

    def _event(self, _: str, info: RequestInfo) -> Decision:
        return Decision(info.verb in WRITE)

    def _lease(self, node: str, info: RequestInfo) -> Decision:
        if info.namespace != "kube-node-lease":
            return Decision(False, "can only access leases in the kube-node-lease namespace")
        mine = info.verb == "create" or info.single == node
        reason = "can only access node lease with the same name as the requesting node"
        return _ALLOWED if mine else Decision(allowed=False, reason=reason)

    def _read(self, _: str, info: RequestInfo) -> Decision:
        return Decision(info.verb in READ)

    def _review(self, _: str, info: RequestInfo) -> Decision:
        return Decision(info.verb == "create")


def _unrelated(node: str) -> Decision:
    return Decision(False, f"no relationship found between node '{node}' and this object")


def references(spec: Obj) -> set[tuple[str, str]]:
    """Return the secrets and config maps that a pod's spec names, as (resource, name)."""
    found = set(_of_volumes(spec))
    for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
        for variable in container.get("env", []):
            source = variable.get("valueFrom") or {}
            found.add(("secrets", field_of(source, "secretKeyRef.name") or ""))
            found.add(("configmaps", field_of(source, "configMapKeyRef.name") or ""))
        for source in container.get("envFrom", []):
            found.add(("secrets", field_of(source, "secretRef.name") or ""))
            found.add(("configmaps", field_of(source, "configMapRef.name") or ""))
    return found


def _of_volumes(spec: Obj) -> Iterator[tuple[str, str]]:
    # What the kube-api-access volume of every pod refers to:
    yield "configmaps", "kube-root-ca.crt"
    for volume in spec.get("volumes", []):
        yield "secrets", field_of(volume, "secret.secretName") or ""
        yield "configmaps", field_of(volume, "configMap.name") or ""
        yield "secrets", field_of(volume, "csi.nodePublishSecretRef.name") or ""
        for source in field_of(volume, "projected.sources") or []:
            yield "secrets", field_of(source, "secret.name") or ""
            yield "configmaps", field_of(source, "configMap.name") or ""

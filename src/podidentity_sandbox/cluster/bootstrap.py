"""The objects of a new cluster: namespaces, and the roles that everybody relies on.

The roles are those of https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
as far as their resources are served here.
"""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.authentication import AUTHENTICATED, MASTERS
from podidentity_sandbox.cluster.kinds.access import GROUP
from podidentity_sandbox.plan import APISERVER_ADDRESS

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_DOCUMENTS = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"]
_HEALTH = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
_KEYS = [
    *("/.well-known/openid-configuration", "/.well-known/openid-configuration/"),
    *("/openid/v1/jwks", "/openid/v1/jwks/"),
]
_READ = ["get", "list", "watch"]
_WRITE = ["create", "update", "patch", "delete", "deletecollection"]
_VIEWED = [
    *("configmaps", "endpoints", "events", "pods", "pods/log", "pods/status"),
    *("serviceaccounts", "services"),
]
_EDITED = [
    *("configmaps", "events", "secrets", "serviceaccounts", "services"),
    *("pods", "pods/exec", "pods/proxy"),
]
_OWN_RIGHTS = ["selfsubjectaccessreviews"]
_SETS = ["daemonsets", "deployments", "replicasets"]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _paths(paths: list[str], verbs: list[str]) -> Obj:
    return {"nonResourceURLs": paths, "verbs": verbs}


_VIEW = [
    _rule([""], _VIEWED, _READ),
    _rule(["apps"], [*_SETS, *(f"{name}/status" for name in _SETS)], _READ),
    _rule(["networking.k8s.io"], ["networkpolicies"], _READ),
    _rule(["policy"], ["poddisruptionbudgets"], _READ),
]
_EDIT = [
    *_VIEW,
    _rule([""], _EDITED, _READ + _WRITE),
    _rule([""], ["serviceaccounts/token"], ["create"]),
    _rule(["apps"], _SETS, _WRITE),
    _rule(["networking.k8s.io"], ["networkpolicies"], _WRITE),
    _rule(["policy"], ["poddisruptionbudgets"], _WRITE),
    _rule(["coordination.k8s.io"], ["leases"], _READ + _WRITE),
]
ROLES: dict[str, list[Obj]] = {
    "cluster-admin": [_rule(["*"], ["*"], ["*"]), _paths(["*"], ["*"])],
    "admin": [
        *_EDIT,
        _rule([GROUP], ["roles", "rolebindings"], _READ + _WRITE),
    ],
    "edit": _EDIT,
    "view": _VIEW,
    "system:discovery": [_paths([*_DOCUMENTS, *_HEALTH], ["get"])],
    "system:public-info-viewer": [_paths(_HEALTH, ["get"])],
    "system:basic-user": [
        _rule(["authorization.k8s.io"], _OWN_RIGHTS, ["create"]),
        _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
    ],
    "system:auth-delegator": [
        _rule(["authentication.k8s.io"], ["tokenreviews"], ["create"]),
        _rule(["authorization.k8s.io"], ["subjectaccessreviews"], ["create"]),
    ],
    "system:service-account-issuer-discovery": [_paths(_KEYS, ["get"])],
}
BINDINGS = {
    "cluster-admin": (MASTERS,),
    "system:discovery": (AUTHENTICATED,),
    "system:public-info-viewer": (AUTHENTICATED, "system:unauthenticated"),
    "system:basic-user": (AUTHENTICATED,),
    "system:service-account-issuer-discovery": ("system:serviceaccounts",),
}


def objects() -> Iterator[tuple[str, Obj]]:
    """Yield the storage key and the body of each object, in the order of their creation."""
    for name in NAMESPACES:
        yield "namespaces", {"metadata": {"name": name}}
    # The Service of the API server itself is at the address where pods reach it.
    labels = {"component": "apiserver", "provider": "kubernetes"}
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443}]
    metadata = {"name": "kubernetes", "namespace": "default", "labels": labels}
    yield (
        "services",
        {"metadata": metadata, "spec": {"clusterIP": APISERVER_ADDRESS, "ports": ports}},
    )
    for name, rules in ROLES.items():
        yield f"clusterroles.{GROUP}", {"metadata": {"name": name}, "rules": rules}
    for name, groups in BINDINGS.items():
        subjects = [{"kind": "Group", "apiGroup": GROUP, "name": group} for group in groups]
        role = {"apiGroup": GROUP, "kind": "ClusterRole", "name": name}
        body = {"metadata": {"name": name}, "roleRef": role, "subjects": subjects}
        yield f"clusterrolebindings.{GROUP}", body

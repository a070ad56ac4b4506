"""Admission: a new object's namespace and service account must exist.

The words are those of the real plugins NamespaceLifecycle and ServiceAccount:
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj, names, status
from podidentity_sandbox.cluster.node_restriction import is_mirror
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.status import Cause
from podidentity_sandbox.cluster.storage import Storage

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_PREFIX = "kube-api-access-"
_TOKEN_SECONDS = 3607
"""An hour, told apart from one that a person asked for."""


def mount_token(pod: Obj, account: Obj) -> None:
    """Add the volume, unless the pod or its account says not to."""
    spec = pod["spec"]
    wish = spec.get("automountServiceAccountToken")
    if wish is None:
        wish = account.get("automountServiceAccountToken")
    if wish is False:
        return
    containers = (*spec.get("initContainers", []), *spec.get("containers", []))
    lacking = [one for one in containers if not _mounts(one)]
    if not lacking:
        return
    name = names.generated(_PREFIX)
    spec.setdefault("volumes", []).append(_volume(name))
    for container in lacking:
        mount = {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}
        container.setdefault("volumeMounts", []).append(mount)


def _mounts(container: Obj) -> bool:
    return any(m.get("mountPath") == MOUNT_PATH for m in container.get("volumeMounts", []))


def _volume(name: str) -> Obj:
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
                {
                    "configMap": {
                        "name": "kube-root-ca.crt",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    }
                },
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
            ],
            "defaultMode": 0o644,
        },
    }


# ---- Demands


class Admissions:
    """The checks that every creation passes."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check(self, kind: ResourceType, obj: Obj) -> None:
        """Raise 403 or 404 where an object may not be made now."""
        if not kind.namespaced:
            return
        self._namespace(kind, obj)
        if kind.key == "pods" and not is_mirror(obj):
            self._account(kind, obj)

    def _namespace(self, kind: ResourceType, obj: Obj) -> None:
        name = obj["metadata"]["namespace"]
        namespace = self._storage.get("namespaces", "", name)
        if namespace is None:
            raise status.not_found("namespaces", "", name)
        if namespace.deleted:
            cause = Cause(
                "metadata.namespace",
                "NamespaceTerminating",
                f"namespace {name} is being terminated",
            )
            raise status.forbidden(
                kind.plural,
                kind.group,
                _shown(obj),
                f"unable to create new content in namespace {name} because it is being terminated",
                [cause],
            )

    def _account(self, kind: ResourceType, pod: Obj) -> None:
        namespace, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
        found = self._storage.get("serviceaccounts", namespace, account)
        if found is None:
            raise status.forbidden(
                kind.plural,
                kind.group,
                _shown(pod),
                f"error looking up service account {namespace}/{account}: "
                f'serviceaccount "{account}" not found',
            )
        mount_token(pod, found.object)


def _shown(obj: Obj) -> str:
    """Return the name in a refusal: these plugins are asked before a name is generated."""
    metadata = obj["metadata"]
    return str(metadata.get("generateName") or metadata.get("name", ""))

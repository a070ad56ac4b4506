"""Admission: a new object's namespace and service account must exist.

The words are those of the real plugins NamespaceLifecycle and ServiceAccount:
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj, names, status
from podidentity_sandbox.cluster.authorization import MIRROR
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


def check(storage: Storage, kind: ResourceType, new: Obj) -> None:
    """Raise 403 or 404 where an object may not be made now."""
    if not kind.namespaced:
        return
    metadata, namespace = new["metadata"], new["metadata"]["namespace"]
    # These plugins are asked before a name is generated.
    shown = metadata.get("generateName") or metadata.get("name", "")
    found = storage.get("namespaces", "", namespace)
    if found is None:
        raise status.not_found("namespaces", "", namespace)
    if found.deleted:
        why = f"namespace {namespace} is being terminated"
        cause = Cause("metadata.namespace", "NamespaceTerminating", why)
        detail = f"namespace {namespace} because it is being terminated"
        refused = f"unable to create new content in {detail}"
        raise status.forbidden(kind.plural, kind.group, shown, refused, [cause])
    if kind.key == "pods" and MIRROR not in (new["metadata"].get("annotations") or {}):
        name = new["spec"]["serviceAccountName"]
        account = storage.get("serviceaccounts", namespace, name)
        if account is None:
            missing = f'{namespace}/{name}: serviceaccount "{name}" not found'
            detail = f"error looking up service account {missing}"
            raise status.forbidden(kind.plural, kind.group, shown, detail)
        mount_token(new, account.object)

"""The volume by which every pod reaches the API server: a token, the authority, its namespace.

The real plugin ServiceAccount adds it to a pod's spec, and so it is seen there:
https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/admission/serviceaccount/admission.go
"""

from __future__ import annotations

from podidentity_sandbox.cluster import names
from podidentity_sandbox.cluster.jsontypes import Obj

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

"""What a kubelet may write of what it may write: the admission plugin NodeRestriction.

It creates no pods but mirrors, each for a static pod of its own node, never changes the taints of
its Node, and gets tokens that are bound to pods of its own. Rules and words:
https://github.com/kubernetes/kubernetes/blob/v1.36.0/plugin/pkg/admission/noderestriction/admission.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from podidentity_sandbox.cluster import Json, Obj, status, tokens
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Record, Storage, field_of

ANNOTATION = "kubernetes.io/config.mirror"


def is_mirror(pod: Obj) -> bool:
    """Whether the pod stands for a static pod of a node."""
    return ANNOTATION in (pod["metadata"].get("annotations") or {})


def check_pod(kind: ResourceType, node: str, pod: Json) -> None:
    """Raise 403 unless the kubelet of `node` may create this pod; other JSON is refused later."""
    if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict):
        return
    metadata = pod.get("metadata") or {}
    for why in (*_of_metadata(node, metadata), *_of_spec(node, pod["spec"])):
        raise status.forbidden(kind.plural, kind.group, str(metadata.get("name", "")), why)


def _of_metadata(node: str, metadata: Obj) -> Iterator[str]:
    if ANNOTATION not in (metadata.get("annotations") or {}):
        only = f'node "{node}" can only create mirror pods'
        yield f'pod does not have "{ANNOTATION}" annotation, {only}'
    owners = [
        (each.get("kind"), each.get("name")) for each in metadata.get("ownerReferences") or []
    ]
    if len(owners) > 1:
        yield f'node "{node}" can only create pods with a single owner reference set to itself'
    if owners and owners != [("Node", node)]:
        yield f'node "{node}" can only create pods with an owner reference set to itself'


def _of_spec(node: str, spec: Obj) -> Iterator[str]:
    if spec.get("nodeName") != node:
        yield f'node "{node}" can only create pods with spec.nodeName set to itself'
    kinds = {kind for volume in spec.get("volumes") or [] for kind in _kinds(volume)}
    if spec.get("serviceAccountName") or "serviceAccountToken" in kinds:
        yield f'node "{node}" can not create pods that reference a service account'
    for kind in ("secret", "configMap", "persistentVolumeClaim"):
        if kind in kinds:
            yield f'node "{node}" can not create pods that reference {kind.lower()}s'


def _kinds(volume: Obj) -> Iterator[str]:
    yield from volume
    for source in (volume.get("projected") or {}).get("sources") or []:
        yield from source


def check_own_node(kind: ResourceType, node: str, new: Obj, old: Obj) -> None:
    """Raise 403 unless the kubelet of `node` may change its Node so: never its taints."""
    if (field_of(new, "spec.taints") or []) != (field_of(old, "spec.taints") or []):
        why = f'node "{node}" is not allowed to modify taints'
        raise status.forbidden(kind.plural, kind.group, str(new["metadata"]["name"]), why)


# ---- Tokens


def check_token(
    storage: Storage, node: str, account: Record, body: Obj, *, may: Callable[[str], bool] | None
) -> None:
    """Refuse a node's wish for a token that is not bound to a pod of its own; raise 403 or 404.

    `may` says whether the node may ask for an audience that no volume of the pod has; None for a
    server before 1.33, which asks nothing about audiences: the feature
    ServiceAccountNodeAudienceRestriction (1.33: beta, on),
    https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
    """
    spec = body.get("spec") or {}
    pod = _pod_of(storage, account, spec.get("boundObjectRef") or {})
    if field_of(pod.object, "spec.nodeName") != node:
        raise _refused(account, "node requested token bound to a pod scheduled on a different node")
    if may is None:
        return
    # "" is the API server's own.
    audience, *more = spec.get("audiences") or [""]
    if more:
        raise _refused(account, "node may only request 0 or 1 audiences")
    if audience not in set(_audiences_of(storage, pod)) and not may(audience):
        raise _refused(
            account,
            f'audience "{audience}" not found in pod spec volume, system:node:{node} is not '
            "authorized to request tokens for this audience",
        )


def _pod_of(storage: Storage, account: Record, reference: Obj) -> Record:
    """Return the pod that a node's token is to be bound to; raise 403 or 404."""
    kind, name, uid = (reference.get(key) for key in ("kind", "name", "uid"))
    if reference.get("apiVersion") != "v1" or kind != "Pod" or not name:
        raise _refused(account, "node requested token not bound to a pod")
    if not uid:
        raise _refused(account, "node requested token with a pod binding without a uid")
    pod = storage.get("pods", account.namespace, name)
    if pod is None:
        raise status.not_found("pods", "", name)
    if uid != pod.uid:
        raise _refused(account, tokens.anew(uid))
    return pod


def _audiences_of(storage: Storage, pod: Record) -> Iterator[str]:
    """Yield the audiences of a pod's volumes: projected tokens, and those that a driver asks for.

    There are no PersistentVolumeClaims here, whose drivers would count, too.
    """
    for volume in field_of(pod.object, "spec.volumes") or []:
        for source in field_of(volume, "projected.sources") or []:
            if (token := source.get("serviceAccountToken")) is not None:
                yield token.get("audience") or ""
        if name := field_of(volume, "csi.driver"):
            driver = storage.get("csidrivers.storage.k8s.io", "", name)
            requests = field_of(driver.object, "spec.tokenRequests") if driver else None
            for request in requests or []:
                yield request.get("audience") or ""


def _refused(account: Record, cause: str) -> StatusError:
    return status.forbidden("serviceaccounts", "", account.name, cause)

"""Mirror pods: the only ones that a kubelet may create, each for a static pod of its own node.

The words are those of the real admission plugin NodeRestriction, admitPodCreate:
https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/admission/noderestriction/admission.go
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import ResourceType

ANNOTATION = "kubernetes.io/config.mirror"


def is_mirror(pod: Obj) -> bool:
    """Whether the pod stands for a static pod of a node."""
    return ANNOTATION in (pod["metadata"].get("annotations") or {})


def check(kind: ResourceType, node: str, pod: Any) -> None:  # noqa: ANN401 - any JSON
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

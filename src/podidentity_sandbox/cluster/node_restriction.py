"""What a kubelet may not change of its own Node: the taints that keep pods away from it.

The words are those of the real admission plugin NodeRestriction, admitNode:
https://github.com/kubernetes/kubernetes/blob/v1.32.3/plugin/pkg/admission/noderestriction/admission.go
"""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import field_of


def check_update(kind: ResourceType, node: str, new: Obj, old: Obj) -> None:
    """Raise 403 unless the kubelet of `node` may change its Node so."""
    if (field_of(new, "spec.taints") or []) != (field_of(old, "spec.taints") or []):
        why = f'node "{node}" is not allowed to modify taints'
        raise status.forbidden(kind.plural, kind.group, str(new["metadata"]["name"]), why)

"""What a pod's containers may know of it by `fieldRef`, in variables and in files. Pure.

https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_ONE_OF_MANY = re.compile(r"metadata\.(labels|annotations)\['.*'\]")


def pod_fields(pod: Mapping[str, Any], *, pod_address: str, host_address: str) -> dict[str, str]:
    """Return what `fieldRef` can name, by its path."""
    metadata, spec = pod["metadata"], pod["spec"]
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec["nodeName"],
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": pod_address,
        "status.podIPs": pod_address,
        "status.hostIP": host_address,
        "status.hostIPs": host_address,
    }
    for kind in ("labels", "annotations"):
        entries = sorted((metadata.get(kind) or {}).items())
        fields |= {f"metadata.{kind}['{key}']": value for key, value in entries}
        lines = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in entries)
        fields[f"metadata.{kind}"] = "\n".join(lines)
    return fields


def field_value(fields: Mapping[str, str], path: str) -> str:
    """Return one field; raise ValueError, in a kubelet's words, for one that there never is.

    A label or annotation that is not there is empty.
    """
    if path not in fields and not _ONE_OF_MANY.fullmatch(path):
        raise ValueError(f"unsupported fieldPath: {path}")
    return fields.get(path, "")

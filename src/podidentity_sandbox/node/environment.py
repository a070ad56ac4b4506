"""A container's environment variables and arguments, as the kubelet makes them.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from podidentity_sandbox.node.refusals import ContainerRefused

_REFERENCE = re.compile(r"\$(\$|\([^)]*\))?")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace each `$(NAME)` that is known; `$$` is one dollar, and an unknown name stays."""

    def replace(match: re.Match[str]) -> str:
        what = match[1]
        if what is None:
            return "$"
        if what == "$":
            return "$"
        return variables.get(what[1:-1], match[0])

    return _REFERENCE.sub(replace, text)


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
        for key, value in (metadata.get(kind) or {}).items():
            fields[f"metadata.{kind}['{key}']"] = value
    return fields


def variables(
    entries: Iterable[Mapping[str, Any]], fields: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """Return `given` and the container's `env`, each able to refer to those before it.

    Raises ContainerRefused for a source that this kubelet does not serve.
    """
    result = dict(given)
    for entry in entries:
        name, source = entry["name"], entry.get("valueFrom")
        if source is None:
            result[name] = expand(entry.get("value", ""), result)
        elif "fieldRef" in source:
            path = source["fieldRef"]["fieldPath"]
            # A label or annotation that is not there is empty; any other path is an error.
            if path not in fields and not path.startswith(("metadata.labels[", "metadata.annot")):
                raise ContainerRefused(
                    "CreateContainerConfigError", f"unsupported fieldPath: {path}"
                )
            result[name] = fields.get(path, "")
        else:
            raise ContainerRefused(
                "CreateContainerConfigError",
                f"env {name}: the sandbox does not serve {', '.join(source)} yet",
            )
    return result

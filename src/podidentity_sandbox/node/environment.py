"""A container's environment variables and arguments, as the kubelet makes them.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from podidentity_sandbox.node import references
from podidentity_sandbox.node.quantities import resource_field
from podidentity_sandbox.node.references import Found
from podidentity_sandbox.node.refusals import ContainerRefused
from podidentity_sandbox.node.spec import ContainerSpec

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
        entries = sorted((metadata.get(kind) or {}).items())
        fields |= {f"metadata.{kind}['{key}']": value for key, value in entries}
        lines = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in entries)
        fields[f"metadata.{kind}"] = "\n".join(lines)
    return fields


def variables(
    container: ContainerSpec,
    fields: Mapping[str, str],
    given: Mapping[str, str],
    *,
    namespace: str,
    found: Found,
) -> dict[str, str]:
    """Return `given`, then the container's `envFrom` and `env`; each may refer to those before it.

    `found` is what it names of config maps and secrets. Raises ContainerRefused.
    """
    result = dict(given)
    for source in container.environment_from:
        result |= references.whole(source, found)
    for entry in container.environment:
        text: str | None = expand(entry.get("value") or "", result)
        if origin := entry.get("valueFrom"):
            text = _from(origin, container, fields, namespace, found)
        if text is not None:
            result[entry["name"]] = text
    return result


def _from(
    source: Mapping[str, Any],
    container: ContainerSpec,
    fields: Mapping[str, str],
    namespace: str,
    found: Found,
) -> str | None:
    kind, said = next(iter(source.items()))
    match kind:
        case "fieldRef":
            return _field(said["fieldPath"], fields)
        case "resourceFieldRef":
            return resource_field(container.resources, said)
        case "configMapKeyRef" | "secretKeyRef":
            return references.value(kind.removesuffix("KeyRef"), said, namespace, found)
        case _:
            why = f"the sandbox does not serve {kind} as a source of variables"
            raise ContainerRefused("CreateContainerConfigError", why)


def _field(path: str, fields: Mapping[str, str]) -> str:
    # A label or annotation that is not there is empty; any other path is an error.
    if path not in fields and not path.startswith(("metadata.labels[", "metadata.annotations[")):
        raise ContainerRefused("CreateContainerConfigError", f"unsupported fieldPath: {path}")
    return fields.get(path, "")

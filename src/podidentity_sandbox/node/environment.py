"""A container's environment variables and arguments, as the kubelet makes them.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from podidentity_sandbox.apiserver import ApiRefusal
from podidentity_sandbox.node.api import ApiClient
from podidentity_sandbox.node.contents import RESOURCES, decoded
from podidentity_sandbox.node.spec import (
    ContainerRefused,
    ContainerSpec,
    field_value,
    resource_field,
)

# ---- Config maps and secrets that variables come from, read when the container starts
#
# Messages are those of makeEnvironmentVariables in pkg/kubelet/kubelet_pods.go.

Found = Mapping[tuple[str, str], Mapping[str, str] | None]
"""By kind (`configMap`, `secret`) and name: the data as text; None for one that is not there."""


async def fetch_references(container: ContainerSpec, namespace: str, api: ApiClient) -> Found:
    """Read all that a container's environment names, once each; raise ContainerRefused."""
    found: dict[tuple[str, str], Mapping[str, str] | None] = {}
    for kind, name in dict.fromkeys(_named(container)):
        path = f"/api/v1/namespaces/{namespace}/{RESOURCES[kind]}/{name}"
        try:
            answer = await api.find(path)
        except ApiRefusal as error:
            raise ContainerRefused("CreateContainerConfigError", error.message) from error
        found[kind, name] = answer and {
            key: data.decode(errors="replace") for key, data in decoded(kind, answer).items()
        }
    return found


def _named(container: ContainerSpec) -> Iterator[tuple[str, str]]:
    for entry in container.environment:
        for kind in RESOURCES:
            if f"{kind}KeyRef" in (entry.get("valueFrom") or {}):
                yield kind, entry["valueFrom"][f"{kind}KeyRef"]["name"]


def value_of_key(kind: str, said: Mapping[str, Any], namespace: str, found: Found) -> str | None:
    """Return the value that a `configMapKeyRef` or `secretKeyRef` names; raise ContainerRefused.

    None for an optional one that is not there.
    """
    data, optional = found[kind, said["name"]], said.get("optional")
    if data is None:
        if optional:
            return None
        why = f'{kind.lower()} "{said["name"]}" not found'
        raise ContainerRefused("CreateContainerConfigError", why)
    if said["key"] not in data:
        if optional:
            return None
        where = f"{kind[0].upper()}{kind[1:]} {namespace}/{said['name']}"
        why = f"couldn't find key {said['key']} in {where}"
        raise ContainerRefused("CreateContainerConfigError", why)
    return data[said["key"]]


# ---- Variables and arguments

_REFERENCE = re.compile(r"\$(\$|\([^)]*\))?")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace each `$(NAME)` that is known; `$$` is one dollar, and an unknown name stays."""

    def replace(match: re.Match[str]) -> str:
        what = match[1]
        return "$" if what is None or what == "$" else variables.get(what[1:-1], match[0])

    return _REFERENCE.sub(replace, text)


def variables(
    container: ContainerSpec,
    fields: Mapping[str, str],
    given: Mapping[str, str],
    *,
    namespace: str,
    found: Found,
) -> dict[str, str]:
    """Return `given`, then the container's `env`; each may refer to those before it.

    `found` holds the config maps and secrets that it names. Raises ContainerRefused.
    """
    if container.environment_from:
        why = "the sandbox serves no envFrom: name each variable in env"
        raise ContainerRefused("CreateContainerConfigError", why)
    result = dict(given)
    for entry in container.environment:
        text: str | None = expand(entry.get("value") or "", result)
        if origin := entry.get("valueFrom"):
            try:
                text = _from(origin, container, fields, namespace, found)
            except ValueError as error:
                raise ContainerRefused("CreateContainerConfigError", str(error)) from error
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
            return field_value(fields, said["fieldPath"])
        case "resourceFieldRef":
            return resource_field(container.resources, said)
        case "configMapKeyRef" | "secretKeyRef":
            return value_of_key(kind.removesuffix("KeyRef"), said, namespace, found)
        case _:
            raise ValueError(f"the sandbox does not serve {kind} as a source of variables")

"""A container's environment variables and arguments, as the kubelet makes them.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
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
_NOT_FOUND = 404


async def fetch_references(container: ContainerSpec, namespace: str, api: ApiClient) -> Found:
    """Read all that a container's environment names, once each; raise ContainerRefused."""
    found: dict[tuple[str, str], Mapping[str, str] | None] = {}
    for kind, name in dict.fromkeys(_named(container)):
        path = f"/api/v1/namespaces/{namespace}/{RESOURCES[kind]}/{name}"
        found[kind, name] = await _read_reference(api, kind, path)
    return found


async def _read_reference(api: ApiClient, kind: str, path: str) -> Mapping[str, str] | None:
    try:
        answer = await api.insist(lambda: api.request("GET", path))
    except ApiRefusal as error:
        if error.status == _NOT_FOUND:
            return None
        raise ContainerRefused("CreateContainerConfigError", error.message) from error
    return {key: data.decode(errors="replace") for key, data in decoded(kind, answer).items()}


def _named(container: ContainerSpec) -> Iterator[tuple[str, str]]:
    for source in container.environment_from:
        for kind in RESOURCES:
            if f"{kind}Ref" in source:
                yield kind, source[f"{kind}Ref"]["name"]
    for entry in container.environment:
        for kind in RESOURCES:
            if f"{kind}KeyRef" in (entry.get("valueFrom") or {}):
                yield kind, entry["valueFrom"][f"{kind}KeyRef"]["name"]


def variables_of_source(source: Mapping[str, Any], found: Found) -> dict[str, str]:
    """Return the variables of one `envFrom`; raise ContainerRefused."""
    prefix = source.get("prefix") or ""
    for kind in RESOURCES:
        said = source.get(f"{kind}Ref")
        if said is None:
            continue
        data = found[kind, said["name"]]
        if data is None and not said.get("optional"):
            raise _missing(kind, said["name"])
        return {prefix + key: text for key, text in (data or {}).items() if "=" not in key}
    return {}


def value_of_key(kind: str, said: Mapping[str, Any], namespace: str, found: Found) -> str | None:
    """Return the value that a `configMapKeyRef` or `secretKeyRef` names; raise ContainerRefused.

    None for an optional one that is not there.
    """
    data, optional = found[kind, said["name"]], said.get("optional")
    if data is None:
        if optional:
            return None
        raise _missing(kind, said["name"])
    if said["key"] not in data:
        if optional:
            return None
        where = f"{kind[0].upper()}{kind[1:]} {namespace}/{said['name']}"
        why = f"couldn't find key {said['key']} in {where}"
        raise ContainerRefused("CreateContainerConfigError", why)
    return data[said["key"]]


def _missing(kind: str, name: str) -> ContainerRefused:
    return ContainerRefused("CreateContainerConfigError", f'{kind.lower()} "{name}" not found')


# ---- Variables and arguments

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


def variables(
    container: ContainerSpec,
    fields: Mapping[str, str],
    given: Mapping[str, str],
    *,
    namespace: str,
    found: Found,
) -> dict[str, str]:
    """Return `given`, then the container's `envFrom` and `env`; each may refer to those before it.

    `found` holds the config maps and secrets that it names. Raises ContainerRefused.
    """
    result = dict(given)
    for source in container.environment_from:
        result |= variables_of_source(source, found)
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
            return _or_refused(lambda: field_value(fields, said["fieldPath"]))
        case "resourceFieldRef":
            return _or_refused(lambda: resource_field(container.resources, said))
        case "configMapKeyRef" | "secretKeyRef":
            return value_of_key(kind.removesuffix("KeyRef"), said, namespace, found)
        case _:
            why = f"the sandbox does not serve {kind} as a source of variables"
            raise ContainerRefused("CreateContainerConfigError", why)


def _or_refused(value: Callable[[], str]) -> str:
    try:
        return value()
    except ValueError as error:
        raise ContainerRefused("CreateContainerConfigError", str(error)) from error

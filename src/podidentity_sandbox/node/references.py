"""Config maps and secrets that a container's environment is made of, read when it starts.

Words of makeEnvironmentVariables in pkg/kubelet/kubelet_pods.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from podidentity_sandbox.node.api import Api, ApiError
from podidentity_sandbox.node.contents import RESOURCES, decoded
from podidentity_sandbox.node.refusals import ContainerRefused
from podidentity_sandbox.node.spec import ContainerSpec

Found = Mapping[tuple[str, str], Mapping[str, str] | None]
"""By kind (`configMap`, `secret`) and name: the data as text; None for one that is not there."""
_NOT_FOUND = 404


async def fetch(container: ContainerSpec, namespace: str, api: Api) -> Found:
    """Read all that a container's environment names, once each; raise ContainerRefused."""
    found: dict[tuple[str, str], Mapping[str, str] | None] = {}
    for kind, name in dict.fromkeys(_named(container)):
        path = f"/api/v1/namespaces/{namespace}/{RESOURCES[kind]}/{name}"
        found[kind, name] = await _read(api, kind, path)
    return found


async def _read(api: Api, kind: str, path: str) -> Mapping[str, str] | None:
    try:
        answer = await api.insist(lambda: api.request("GET", path))
    except ApiError as error:
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


def whole(source: Mapping[str, Any], found: Found) -> dict[str, str]:
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


def value(kind: str, said: Mapping[str, Any], namespace: str, found: Found) -> str | None:
    """Return what a `configMapKeyRef` or `secretKeyRef` names; raise ContainerRefused.

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

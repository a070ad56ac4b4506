"""The documents that tell a client which types there are: /api, /apis and those below them.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#unaggregated-discovery
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.registry import Registry, ResourceType

VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.3",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2025-03-11T19:52:21Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
_SUBRESOURCES: dict[str, tuple[str, str, str, list[str]]] = {
    "attach": ("PodAttachOptions", "", "", ["create", "get"]),
    "exec": ("PodExecOptions", "", "", ["create", "get"]),
    "finalize": ("Namespace", "", "", ["update"]),
    "log": ("Pod", "", "", ["get"]),
    "proxy": ("PodProxyOptions", "", "", ["create", "delete", "get", "patch", "update"]),
    "scale": ("Scale", "autoscaling", "v1", ["get", "patch", "update"]),
    "token": ("TokenRequest", "authentication.k8s.io", "v1", ["create"]),
}
"""Kind, group, version and verbs; of all others the kind of the type itself, read and written."""


def version(minor: int) -> Obj:
    """Return the version of a server of that minor version."""
    return {**VERSION, "minor": str(minor), "gitVersion": f"v1.{minor}.3"}


def document(registry: Registry, path: str) -> Obj | None:
    """Return the discovery document at a path, None where there is none."""
    match path.strip("/").split("/"):
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = dict.fromkeys(group for group, _ in registry.group_versions() if group)
            found = [_group(registry, group) for group in groups]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
        case ["apis", group] if any(group == g for g, _ in registry.group_versions()):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(registry, group)}
        case ["api", version] if ("", version) in registry.group_versions():
            return _resources(registry, "", version)
        case ["apis", group, version] if (group, version) in registry.group_versions():
            return _resources(registry, group, version)
    return None


def _group(registry: Registry, group: str) -> dict[str, Any]:
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version}
        for each, version in registry.group_versions()
        if each == group
    ]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _resources(registry: Registry, group: str, version: str) -> Obj:
    entries: list[dict[str, Any]] = []
    for kind in registry:
        if (kind.group, kind.version) == (group, version):
            entries += _entries(kind)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": entries,
    }


def _entries(kind: ResourceType) -> list[dict[str, Any]]:
    main: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        main["shortNames"] = list(kind.short_names)
    if kind.categories:
        main["categories"] = list(kind.categories)
    return [main, *(_subresource(kind, name) for name in kind.subresources)]


def subresource_of(kind: ResourceType, name: str) -> tuple[str, str, str, list[str]]:
    """Return kind, group, version and verbs of a subresource; no group where it is the type's."""
    return _SUBRESOURCES.get(name, (kind.kind, "", "", ["get", "patch", "update"]))


def _subresource(kind: ResourceType, name: str) -> dict[str, Any]:
    answer, group, version, verbs = subresource_of(kind, name)
    entry = {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": answer,
        "verbs": verbs,
    }
    return {**entry, "group": group, "version": version} if group else entry


# ---- All types in one document: what `/api` and `/apis` answer to clients that ask for it so.
#
# https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery

AS, AGGREGATED_GROUP, AGGREGATED_VERSION = "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"
AGGREGATED_FORM = AS, AGGREGATED_GROUP, AGGREGATED_VERSION
AGGREGATED_TYPE = f"application/json;g={AGGREGATED_GROUP};v={AGGREGATED_VERSION};as={AS}"


def aggregated_document(registry: Registry, path: str) -> Obj | None:
    """Return the aggregated document at a path, None where there is none."""
    match path.strip("/"):
        case "api":
            groups = [""]
        case "apis":
            groups = list(dict.fromkeys(g for g, _ in registry.group_versions() if g))
        case _:
            return None
    return {
        "kind": AS,
        "apiVersion": f"{AGGREGATED_GROUP}/{AGGREGATED_VERSION}",
        "metadata": {},
        "items": [_aggregated_group(registry, group) for group in groups],
    }


def _aggregated_group(registry: Registry, group: str) -> Obj:
    versions = [v for g, v in registry.group_versions() if g == group]
    return {
        "metadata": {"name": group} if group else {},
        "versions": [
            {
                "version": version,
                "resources": [
                    _aggregated_resource(kind)
                    for kind in registry
                    if (kind.group, kind.version) == (group, version)
                ],
                "freshness": "Current",
            }
            for version in versions
        ],
    }


def _aggregated_resource(kind: ResourceType) -> Obj:
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": _response(kind, kind.kind, "", ""),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if kind.subresources:
        entry["subresources"] = [_aggregated_subresource(kind, name) for name in kind.subresources]
    return entry


def _aggregated_subresource(kind: ResourceType, name: str) -> Obj:
    answer, group, version, verbs = subresource_of(kind, name)
    response = _response(kind, answer, group, version)
    return {"subresource": name, "responseKind": response, "verbs": verbs}


def _response(kind: ResourceType, answer: str, group: str, version: str) -> Obj:
    """Return a kind; as recorded, only custom types name a group that is their own."""
    if kind.custom and not group:
        group, version = kind.group, kind.version
    return {"group": group, "version": version, "kind": answer}

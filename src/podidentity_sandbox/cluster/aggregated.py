"""All types in one document: what `/api` and `/apis` answer to clients that ask for it so.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.cluster.discovery import subresource_of
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import Registry, ResourceType

AS, GROUP, VERSION = "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"
FORM = AS, GROUP, VERSION
CONTENT_TYPE = f"application/json;g={GROUP};v={VERSION};as={AS}"


def document(registry: Registry, path: str) -> Obj | None:
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
        "apiVersion": f"{GROUP}/{VERSION}",
        "metadata": {},
        "items": [_group(registry, group) for group in groups],
    }


def _group(registry: Registry, group: str) -> Obj:
    versions = [v for g, v in registry.group_versions() if g == group]
    return {
        "metadata": {"name": group} if group else {},
        "versions": [
            {
                "version": version,
                "resources": [
                    _resource(kind)
                    for kind in registry
                    if (kind.group, kind.version) == (group, version)
                ],
                "freshness": "Current",
            }
            for version in versions
        ],
    }


def _resource(kind: ResourceType) -> Obj:
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
        entry["subresources"] = [_subresource(kind, name) for name in kind.subresources]
    return entry


def _subresource(kind: ResourceType, name: str) -> Obj:
    answer, group, version, verbs = subresource_of(kind, name)
    response = _response(kind, answer, group, version)
    return {"subresource": name, "responseKind": response, "verbs": verbs}


def _response(kind: ResourceType, answer: str, group: str, version: str) -> Obj:
    """Return a kind; as recorded, only custom types name a group that is their own."""
    if kind.custom and not group:
        group, version = kind.group, kind.version
    return {"group": group, "version": version, "kind": answer}

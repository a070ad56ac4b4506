"""The documents that tell a client which types there are.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

from __future__ import annotations

from collections.abc import Iterator

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
    groups = _groups(registry)
    match path.strip("/").split("/"):
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            found = [_group(group, groups[group]) for group in groups if group]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
        case ["apis", group] if group and group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])}
        case ["api", version] if version in groups[""]:
            return _resources("", version, groups[""][version])
        case ["apis", group, version] if group and version in groups.get(group, ()):
            return _resources(group, version, groups[group][version])
    return None


Versions = dict[str, list[ResourceType]]


def _groups(registry: Registry) -> dict[str, Versions]:
    """Return the types of each version of each group, in the order of their registration."""
    found: dict[str, Versions] = {}
    for kind in registry:
        found.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    return found


def _group(group: str, versions: Versions) -> Obj:
    shown = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": shown, "preferredVersion": shown[0]}


def _resources(group: str, version: str, kinds: list[ResourceType]) -> Obj:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [entry for kind in kinds for entry in _entries(kind)],
    }


def _entries(kind: ResourceType) -> Iterator[Obj]:
    """Yield what is told of a type, and then of each of its subresources."""
    main: Obj = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    more = {"shortNames": list(kind.short_names), "categories": list(kind.categories)}
    yield main | {name: words for name, words in more.items() if words}
    for name in kind.subresources:
        itself = (kind.kind, "", "", ["get", "patch", "update"])
        answer, group, version, verbs = _SUBRESOURCES.get(name, itself)
        entry: Obj = {"name": f"{kind.plural}/{name}", "singularName": "", "kind": answer}
        entry |= {"namespaced": kind.namespaced, "verbs": verbs}
        yield {**entry, "group": group, "version": version} if group else entry

"""The documents that tell a client which types there are, and what they are made of.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.registry import Registry, ResourceType
from podidentity_sandbox.cluster.schema import Schema
from podidentity_sandbox.cluster.storage import encode

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
    "exec": ("PodExecOptions", "", "", ["create", "get"]),
    "finalize": ("Namespace", "", "", ["update"]),
    "log": ("Pod", "", "", ["get"]),
    "proxy": ("PodProxyOptions", "", "", ["create", "delete", "get", "patch", "update"]),
    "token": ("TokenRequest", "authentication.k8s.io", "v1", ["create"]),
}
"""Kind, group, version and verbs; of all others the kind of the type itself, read and written."""


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


# ---- OpenAPI v2, which kubectl asks for before it sends the items of a `List`.
#
# It is a document without types: kubectl then leaves their validation to the server, which does it
# in any case. A real one is 3 MB of protobuf.
# https://github.com/google/gnostic-models/blob/v0.6.9/openapiv2/OpenAPIv2.proto

OLDER_PATH = "/openapi/v2"
OLDER_ACCEPT = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
OLDER_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""The name in clients' Accept is no well-formed media type, so the answer has another name."""


def _text_field(number: int, content: bytes) -> bytes:
    """Return one field of protobuf, of less than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


_INFO = _text_field(1, b"Kubernetes") + _text_field(2, VERSION["gitVersion"].encode())
OLDER_DOCUMENT = _text_field(1, b"2.0") + _text_field(2, _INFO) + _text_field(8, b"")
"""swagger, info and paths."""


# ---- OpenAPI v3: an index, and a document for each group and version. It tells what a patch takes,
# for all writes, and custom types' fields, for `kubectl explain`.
#
# https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3
# Of other paths it tells nothing, and of built-in types that they are objects: kubectl has their
# fields in it, and looks before it writes whether the type's PATCH has the parameters of its wish:
# https://github.com/kubernetes/kubectl/blob/v0.32.3/pkg/util/openapi

ROOT = "/openapi/v3"
Kinds = tuple[ResourceType, ...]


def openapi_document(registry: Registry, path: str) -> bytes | None:
    """Return the document at a path, None where there is none."""
    groups = {
        _place(group, version): tuple(kinds)
        for group, versions in _groups(registry).items()
        for version, kinds in versions.items()
    }
    if path == ROOT:
        found = {
            place: {"serverRelativeURL": f"{ROOT}/{place}?hash={_hash(_document(kinds))}"}
            for place, kinds in groups.items()
        }
        return encode({"paths": found})
    kinds = groups.get(path.removeprefix(f"{ROOT}/"))
    return _document(kinds) if kinds else None


def _place(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


@lru_cache(maxsize=64)
def _hash(raw: bytes) -> str:
    return hashlib.sha512(raw).hexdigest().upper()


@lru_cache(maxsize=64)
def _document(kinds: Kinds) -> bytes:
    """Return the document of the types of one group and version."""
    components: dict[str, Schema] = {}
    paths: dict[str, Any] = {}
    for kind in kinds:
        name = ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])
        fields = kind.schema or {"type": "object"}
        components[name] = {**fields, "x-kubernetes-group-version-kind": [_gvk(kind)]}
        if "patch" in kind.verbs:
            root = f"/{_place(kind.group, kind.version)}"
            inside = f"{root}/namespaces/{{namespace}}" if kind.namespaced else root
            paths[f"{inside}/{kind.plural}/{{name}}"] = {"patch": _patch(kind, name)}
    return encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
            "paths": paths,
            "components": {"schemas": components},
        }
    )


def _patch(kind: ResourceType, component: str) -> Obj:
    schema = {"$ref": f"#/components/schemas/{component}"}
    answer = {"description": "OK", "content": {"application/json": {"schema": schema}}}
    names = ("dryRun", "fieldManager", "fieldValidation", "force")
    text = {"type": "string", "uniqueItems": True}
    return {
        "parameters": [{"name": name, "in": "query", "schema": text} for name in names],
        "responses": {"200": answer},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": _gvk(kind),
    }


def _gvk(kind: ResourceType) -> Obj:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}

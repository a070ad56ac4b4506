"""OpenAPI v3: what a patch takes, for all writes; custom types' fields, for `kubectl explain`.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3
Of other paths it tells nothing, and of built-in types that they are objects: kubectl has their
fields in it, and looks before it writes whether the type's PATCH has the parameters of its wish:
https://github.com/kubernetes/kubectl/blob/v0.32.3/pkg/util/openapi
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.discovery import VERSION
from podidentity_sandbox.cluster.fields import fields_of
from podidentity_sandbox.cluster.registry import Registry, ResourceType
from podidentity_sandbox.cluster.schema import Schema
from podidentity_sandbox.cluster.storage import encode

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


# ---- The documents of OpenAPI v3: an index, and one for each group and version

ROOT = "/openapi/v3"
Kinds = tuple[ResourceType, ...]


def openapi_document(registry: Registry, path: str) -> bytes | None:
    """Return the document at a path, None where there is none."""
    groups = {_place(*each): _kinds(registry, *each) for each in registry.group_versions()}
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


def _kinds(registry: Registry, group: str, version: str) -> Kinds:
    return tuple(kind for kind in registry if (kind.group, kind.version) == (group, version))


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
        fields = fields_of(kind) if kind.custom else {"type": "object"}
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

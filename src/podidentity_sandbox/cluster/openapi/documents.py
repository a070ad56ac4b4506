"""The documents of OpenAPI v3: an index, and one for each group and version."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from podidentity_sandbox.cluster.discovery import VERSION
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.openapi import builtin
from podidentity_sandbox.cluster.openapi.builtin import REFERENCE, Components
from podidentity_sandbox.cluster.openapi.paths import paths_of
from podidentity_sandbox.cluster.registry import Registry, ResourceType
from podidentity_sandbox.cluster.storage import encode

ROOT = "/openapi/v3"
Kinds = tuple[ResourceType, ...]
_KIND_TEXT = (
    "Kind is a string value representing the REST resource this object represents. Servers may "
    "infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. "
    "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/"
    "api-conventions.md#types-kinds"
)
_VERSION_TEXT = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should "
    "convert recognized schemas to the latest internal value, and may reject unrecognized values. "
    "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/"
    "api-conventions.md#resources"
)
_METADATA_TEXT = (
    "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/"
    "sig-architecture/api-conventions.md#metadata"
)


def document(registry: Registry, path: str) -> bytes | None:
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
    components: Components = {}
    paths: dict[str, Any] = {}
    for kind in kinds:
        name = _add(components, kind)
        components[name]["x-kubernetes-group-version-kind"] = [_gvk(kind)]
        paths |= paths_of(kind, REFERENCE + name)
    return encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
            "paths": paths,
            "components": {"schemas": components},
        }
    )


def _gvk(kind: ResourceType) -> Obj:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _add(components: Components, kind: ResourceType) -> str:
    """Add a type's component; return its name."""
    if kind.schema is None:
        return builtin.add(components, kind)
    name = f"{_reversed(kind.group)}.{kind.version}.{kind.kind}"
    metadata = {"allOf": [{"$ref": REFERENCE + builtin.add_metadata(components)}]}
    components[name] = {
        **kind.schema,
        "properties": {
            **kind.schema.get("properties", {}),
            "apiVersion": {"type": "string", "description": _VERSION_TEXT},
            "kind": {"type": "string", "description": _KIND_TEXT},
            "metadata": {"description": _METADATA_TEXT, **metadata},
        },
    }
    return name


def _reversed(group: str) -> str:
    parts: Sequence[str] = group.split(".")
    return ".".join(reversed(parts))

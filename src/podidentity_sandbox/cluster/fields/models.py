"""The fields of the built-in types, read from the generated models of lightkube.

They name every field of Kubernetes 1.37 with its type. Nothing else of them is used, and objects
are never made of them.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import Any

import msgspec

from podidentity_sandbox.cluster.fields import merging
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.schema import Schema
from podidentity_sandbox.cluster.shapes import GO_TYPE

STRUCT = "x-go-struct"
"""Marks a field that a new object has already, see `merging.STRUCTS`."""
_SCALARS: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer", "format": "int32"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Time": {"type": "string", "format": "date-time"},
    "MicroTime": {"type": "string", "format": "date-time"},
    "Quantity": {"x-kubernetes-int-or-string": True},
    "IntOrString": {"x-kubernetes-int-or-string": True},
    "dict": {"type": "object", "additionalProperties": True},
}
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}
"""FieldsV1, RawExtension and JSON: what they hold has no type."""


def schema(group: str, version: str, kind: str) -> Schema:
    """Return the fields of a built-in type; raise LookupError for one that is not known."""
    module = _module(f"{group.partition('.')[0] or 'core'}_{version}")
    if not hasattr(module, kind):
        raise LookupError(kind)
    return _of_class(module, kind)


def metadata() -> Schema:
    """Return the fields that the metadata of every object has."""
    return _of_class(_module("meta_v1"), "ObjectMeta")


def blank(fields: Schema) -> Obj:
    """Return an object of a built-in type before anything is said about it: its empty structs."""
    properties = fields.get("properties", {})
    return {
        name: blank(field) if field["type"] == "object" else None
        for name, field in properties.items()
        if field.get(STRUCT)
    }


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(f"lightkube.models.{name}")


_made: dict[tuple[str, str], Schema] = {}
"""Schemas by module and class. They refer to each other: JSONSchemaProps holds itself."""


def _of_class(module: ModuleType, name: str) -> Schema:
    made = _made.get((module.__name__, name))
    if made is not None:
        return made
    properties: dict[str, Schema] = {}
    new = _made[module.__name__, name] = {
        "type": "object",
        "properties": properties,
        GO_TYPE: name,
    }
    if name in merging.ATOMIC:
        new["x-kubernetes-map-type"] = "atomic"
    model: Any = getattr(module, name)
    for field, key in zip(model.__struct_fields__, model.__struct_encode_fields__, strict=True):
        text = model.__annotations__[field]
        properties[key] = _annotated(f"{name}.{key}", _of_type(module, text))
    return new


def _of_type(module: ModuleType, text: str) -> Schema:
    """Return the schema of an annotation: `str`, `List[Container]`, `Optional[meta_v1.Time]`."""
    text = text.strip("'\" ")
    if text.startswith("Optional["):
        return _of_type(module, text[9:-1])
    if text.startswith("List["):
        return {"type": "array", "items": _of_type(module, text[5:-1])}
    place, _, name = text.rpartition(".")
    if name in _SCALARS:
        return _SCALARS[name]
    home = _module(place) if place else module
    found = getattr(home, name)
    known = isinstance(found, type) and issubclass(found, msgspec.Struct)
    return _of_class(home, name) if known else _ANYTHING


def _annotated(path: str, found: Schema) -> Schema:
    """Return a field's schema with what the tables say about the field."""
    extra: Schema = {}
    if keys := merging.LIST_KEYS.get(path):
        extra = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
    if path in merging.SETS:
        extra["x-kubernetes-list-type"] = "set"
    if path in merging.ATOMIC:
        extra["x-kubernetes-map-type"] = "atomic"
    if path in merging.PATCHED:
        strategy, key = merging.PATCHED[path]
        extra |= {"x-kubernetes-patch-strategy": strategy, "x-kubernetes-patch-merge-key": key}
    if path.rpartition(".")[2] in merging.INT64:
        extra["format"] = "int64"
    if path in merging.STRUCTS or path in merging.NULL_LISTS:
        extra[STRUCT] = True
    if path in merging.DEFAULTS:
        extra["default"] = merging.DEFAULTS[path]
    return {**found, **extra} if extra else found

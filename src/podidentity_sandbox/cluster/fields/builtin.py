"""The fields of the built-in types: what the models tell, and how changes of them are merged."""

from __future__ import annotations

from podidentity_sandbox.cluster import models
from podidentity_sandbox.cluster.fields import merging
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.models import Field, Model
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
"""What has no type."""


def schema(group: str, version: str, kind: str) -> Schema:
    """Return the fields of a built-in type; raise LookupError for one that is not known."""
    model = models.find(group, version, kind)
    if model is None:
        raise LookupError(kind)
    return _of_model(model)


def metadata() -> Schema:
    """Return the fields that the metadata of every object has."""
    return _of_model(models.METADATA)


def blank(fields: Schema) -> Obj:
    """Return an object of a built-in type before anything is said about it: its empty structs."""
    properties = fields.get("properties", {})
    return {
        name: blank(field) if field["type"] == "object" else None
        for name, field in properties.items()
        if field.get(STRUCT)
    }


_made: dict[Model, Schema] = {}
"""They refer to each other: JSONSchemaProps holds itself."""


def _of_model(model: Model) -> Schema:
    made = _made.get(model)
    if made is not None:
        return made
    properties: dict[str, Schema] = {}
    new = _made[model] = {"type": "object", "properties": properties, GO_TYPE: model.name}
    if model.name in merging.ATOMIC:
        new["x-kubernetes-map-type"] = "atomic"
    for field in model.fields:
        properties[field.key] = _annotated(f"{model.name}.{field.key}", _of_type(field))
    return new


def _of_type(field: Field) -> Schema:
    """Return the schema of a field's type."""
    found = _of_model(field.model) if field.model else _SCALARS.get(field.scalar, _ANYTHING)
    return {"type": "array", "items": found} if field.many else found


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

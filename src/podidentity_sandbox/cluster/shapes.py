"""JSON types of the fields of built-in kinds: enough that no hook ever meets a string for a list.

A real server decodes a built-in object into a Go struct and refuses what does not fit. These
shapes name the fields that this server or its kubelets read; other fields pass as they are.
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.cluster import Json, schema
from podidentity_sandbox.cluster.schema import Schema

Shape = Any
"""`str`, `int`, `float`, `bool`, INT_OR_STRING, `[shape]`, `{"field": shape}`, `{"*": shape}`."""
INT_OR_STRING = "int-or-string"
GO_TYPE = "x-go-type"
"""Names the Go struct that an object is decoded into."""

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_GO = {"string": "string", "number": "float64", "boolean": "bool"}
_JSON = {"integer": "number", "boolean": "bool"}


def compiled(shape: Shape) -> Schema:
    """Return the schema that checks a shape."""
    if isinstance(shape, list):
        return {"type": "array", "items": compiled(shape[0])}
    if shape == INT_OR_STRING:
        return {"type": "string", "x-kubernetes-int-or-string": True}
    if not isinstance(shape, dict):
        return {"type": _NAMES[shape]}
    if "*" in shape:
        return {"type": "object", "additionalProperties": compiled(shape["*"])}
    fields = {name: compiled(field) for name, field in shape.items()}
    return {"type": "object", "properties": fields}


def without_nulls(value: Json) -> Json:
    """Return JSON without null fields: to a Go struct they are as good as absent."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value if item is not None]
    return value


def misfit(shape: Schema, value: Json, fields: Schema | None = None) -> str:
    """Return the Go decoder's words for the first field of the wrong type; "" if all fit.

    `fields` are those of the whole type, with the names of its structs.
    """
    for fault in schema.validate(shape, value, root=False):
        found = fault.message.rsplit('"', 2)[-2]
        struct, path, wanted = _place(fields or shape, fault.field)
        return (
            f"json: cannot unmarshal {_JSON.get(found, found)} into Go struct field "
            f"{struct}.{path} of type {wanted}"
        )
    return ""


def _place(fields: Schema, path: str) -> tuple[str, str, str]:
    """Return struct, field and Go type of a place, which may be an item of a list or a map."""
    struct, at, names = "", fields, []
    for step in filter(None, path.replace("[", ".[").split(".")):
        if step.startswith("["):
            at = at.get("items", {})
        elif step in at.get("properties", {}):
            struct, at = at.get(GO_TYPE, ""), at["properties"][step]
            names.append(step)
        else:
            extra = at.get("additionalProperties")
            at = extra if isinstance(extra, dict) else {"type": "string"}
    return struct, ".".join(names), _go_type(at)


def _go_type(fields: Schema) -> str:
    kind = fields.get("type", "")
    if kind == "array":
        return "[]" + _go_type(fields.get("items", {}))
    if kind == "object" and GO_TYPE in fields:
        return f"v1.{fields[GO_TYPE]}"
    if kind == "object" and "additionalProperties" in fields:
        return "map[string]string"
    return str(fields.get("format", "int64")) if kind == "integer" else _GO.get(kind, "struct")

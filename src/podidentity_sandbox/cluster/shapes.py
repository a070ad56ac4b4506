"""JSON types of the fields of built-in kinds: enough that no hook ever meets a string for a list.

A real server decodes a built-in object into a Go struct and refuses what does not fit. These
shapes name the fields that this server or its kubelets read; other fields pass as they are.
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.cluster import schema
from podidentity_sandbox.cluster.jsontypes import Json
from podidentity_sandbox.cluster.schema import Schema

Shape = Any
"""`str`, `int`, `float`, `bool`, INT_OR_STRING, `[shape]`, `{"field": shape}`, `{"*": shape}`."""
INT_OR_STRING = "int-or-string"

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_GO = {"string": "string", "integer": "int64", "number": "float64", "boolean": "bool"}
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


def misfit(shape: Schema, value: Json) -> str:
    """Return the Go decoder's words for the first field of the wrong type; "" if all fit."""
    for fault in schema.validate(shape, value, root=False):
        wanted = _type_at(shape, fault.field)
        found = fault.message.rsplit('"', 2)[-2]
        return (
            f"json: cannot unmarshal {_JSON.get(found, found)} into Go struct field "
            f".{fault.field} of type {wanted}"
        )
    return ""


def _type_at(shape: Schema, path: str) -> str:
    for step in filter(None, path.replace("[", ".[").split(".")):
        if step.startswith("["):
            shape = shape["items"]
        else:
            shape = shape.get("properties", {}).get(step) or shape["additionalProperties"]
    if shape["type"] == "array":
        return "[]" + _GO.get(shape["items"]["type"], "struct")
    return _GO.get(shape["type"], "struct")

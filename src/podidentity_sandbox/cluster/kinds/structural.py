"""What the schema of a custom resource must look like before `schema` may work with it.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from podidentity_sandbox.cluster import shapes, status
from podidentity_sandbox.cluster.jsontypes import Json
from podidentity_sandbox.cluster.schema import Schema
from podidentity_sandbox.cluster.status import Cause

_FREE = ("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields")
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_NODE = shapes.compiled(
    {
        "type": str,
        "format": str,
        "pattern": str,
        "nullable": bool,
        "required": [str],
        "properties": {"*": {}},
        "items": {},
        "minimum": float,
        "maximum": float,
        "exclusiveMinimum": bool,
        "exclusiveMaximum": bool,
        "multipleOf": float,
        "minLength": int,
        "maxLength": int,
        "minItems": int,
        "maxItems": int,
        "maxProperties": int,
        "uniqueItems": bool,
        "allOf": [{}],
        "anyOf": [{}],
        "oneOf": [{}],
        "not": {},
        "x-kubernetes-int-or-string": bool,
        "x-kubernetes-preserve-unknown-fields": bool,
        "x-kubernetes-embedded-resource": bool,
    }
)


def faults(schema: Schema, where: str, *, logical: bool = False) -> Iterator[Cause]:
    """Yield what is wrong with a schema at the path `where`.

    A `logical` schema is one inside allOf, anyOf, oneOf or not: it constrains, and names no type.
    """
    misfit = shapes.misfit(_NODE, schema)
    if misfit:
        yield status.invalid(where, "", misfit)
        return
    if not logical:
        yield from _type_faults(schema, where)
    if schema.get("x-kubernetes-validations"):
        detail = "this sandbox evaluates no CEL rules, and would let through what they refuse"
        yield status.forbidden_field(f"{where}.x-kubernetes-validations", detail)
    yield from _value_faults(schema, where)
    for path, child, inside in _children(schema, where):
        yield from faults(child, path, logical=logical or inside)


def _type_faults(schema: Schema, where: str) -> Iterator[Cause]:
    kind = schema.get("type")
    if kind is None and not any(schema.get(word) for word in _FREE):
        yield status.required(f"{where}.type", "must not be empty for specified object fields")
    if kind is not None and kind not in _TYPES:
        yield status.unsupported(f"{where}.type", kind, _TYPES)


def _value_faults(schema: Schema, where: str) -> Iterator[Cause]:
    pattern = schema.get("pattern", "")
    try:
        re.compile(pattern)
    except re.error as error:
        yield status.invalid(f"{where}.pattern", pattern, f"must be a valid regex: {error}")
    if not isinstance(schema.get("enum", []), list):
        yield status.invalid(f"{where}.enum", schema["enum"], "must be an array")
    if schema.get("multipleOf", 1) <= 0:
        yield status.invalid(f"{where}.multipleOf", schema["multipleOf"], "must be positive")
    extra = schema.get("additionalProperties")
    if not isinstance(extra, bool | dict | None):
        yield status.invalid(
            f"{where}.additionalProperties", extra, "must be a schema or a boolean"
        )


def _children(schema: Schema, where: str) -> Iterator[tuple[str, Json, bool]]:
    """Yield (path, schema, whether it is inside a logical word) of each schema inside this one."""
    for name, child in schema.get("properties", {}).items():
        yield f"{where}.properties[{name}]", child, False
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield f"{where}.{word}", schema[word], False
    if "not" in schema:
        yield f"{where}.not", schema["not"], True
    for word in ("allOf", "anyOf", "oneOf"):
        for index, child in enumerate(schema.get(word, [])):
            yield f"{where}.{word}[{index}]", child, True

"""Structural schemas of custom resources: what they prune, fill in and refuse.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
`crds` refuses what is not evaluated here, so that nothing is silently let through; list types count
where objects are applied.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from podidentity_sandbox.cluster import Json, status
from podidentity_sandbox.cluster.status import Cause

Schema = dict[str, Any]
"""An openAPIV3Schema as JSON."""

_EMBEDDED = ("apiVersion", "kind", "metadata")
KEEP = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_EMBED = "x-kubernetes-embedded-resource"
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_BOUNDS = {
    **dict.fromkeys(("minLength", "minItems", "minimum"), True),
    **dict.fromkeys(("maxLength", "maxItems", "maximum"), False),
}
"""Words that bound a value, and whether from below."""
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def prune(schema: Schema, value: Json, path: str = "", *, root: bool = True) -> list[str]:
    """Remove the fields that the schema does not name; return the paths of the removed ones."""
    if isinstance(value, list):
        items = schema.get("items", {})
        found = (
            prune(items, item, f"{path}[{n}]", root=False) for n, item in enumerate(value) if items
        )
        return [one for each in found for one in each]
    if not isinstance(value, dict):
        return []
    kept = _EMBEDDED if root or schema.get(_EMBED) else ()
    properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
    removed: list[str] = []
    for key in list(value):
        where = f"{path}.{key}" if path else key
        if key in kept:
            continue
        if key in properties:
            removed += prune(properties[key], value[key], where, root=False)
        elif extra or schema.get(KEEP):
            removed += (
                prune(extra, value[key], where, root=False) if isinstance(extra, dict) else []
            )
        else:
            del value[key]
            removed.append(where)
    return removed


def inside(schema: Schema, value: Json, path: str) -> Iterator[tuple[str, Schema, Json]]:
    """Yield path, schema and value of each item and field of a value that has a schema."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield f"{path}[{number}]", schema.get("items", {}), item
    elif isinstance(value, dict):
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if isinstance(child := properties.get(key, extra), dict):
                yield f"{path}.{key}" if path else key, child, item


def default(schema: Schema, value: Json) -> None:
    """Fill in the schema's defaults where `value` has nothing, or a null that is not allowed.

    A null that is not allowed, and for which there is no default, is as good as absent.
    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#defaulting-and-nullable
    """
    if isinstance(value, dict):
        for key, child in schema.get("properties", {}).items():
            if "default" in child and (key not in value or _is_void(child, value[key])):
                value[key] = copy.deepcopy(child["default"])
        for key, child, item in list(inside(schema, value, "")):
            if _is_void(child, item):
                del value[key]
    for _, child, item in inside(schema, value, ""):
        default(child, item)


def _is_void(schema: Schema, value: Json) -> bool:
    return value is None and not schema.get("nullable")


def validate(schema: Schema, value: Json, path: str = "", *, root: bool = True) -> list[Cause]:
    """Return the faults of `value`, in the words of the real server."""
    return list(_faults(schema, value, path, root=root))


def _faults(schema: Schema, value: Json, path: str, *, root: bool) -> Iterator[Cause]:
    wrong = _type_fault(schema, value, path)
    if wrong is not None:
        yield wrong
    if wrong is not None or value is None:
        return
    if "enum" in schema and value not in schema["enum"]:
        yield status.unsupported(path, value, schema["enum"])
    yield from _combined(schema, value, path)
    if (check := _CHECKS.get(json_type(value))) is not None:
        yield from check(schema, value, path)
    apart = f"{path}.metadata".lstrip(".") if root or schema.get(_EMBED) else ""
    for where, child, item in inside(schema, value, path):
        if where != apart:  # metadata has rules of its own
            yield from _faults(child, item, where, root=False)


def _in_body(path: str, value: Json, rule: str, *, kind: str = "Invalid") -> Cause:
    return status.invalid(path, value, f"{path} in body {rule}", kind=kind)


def json_type(value: Json) -> str:
    """Return the JSON type's name, `integer` for a whole number."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return {str: "string", int: "integer", list: "array", dict: "object"}[type(value)]


def _type_fault(schema: Schema, value: Json, path: str) -> Cause | None:
    """Return the fault of a value of the wrong type; it shows the type found, as the real does."""
    wanted, found = schema.get("type"), json_type(value)
    if schema.get(_INT_OR_STRING):
        fits = found in ("integer", "string")
        wanted = "integer,string"
    else:
        fits = wanted is None or found == wanted or (wanted, found) == ("number", "integer")
    if found == "null":
        fits = bool(schema.get("nullable")) or wanted is None
    if fits:
        return None
    if "format" in schema and found not in ("string", "array", "null"):
        # kube-openapi/pkg/validation/validate/type.go compares formats first
        wanted, found = schema["format"], "double" if found == "number" else ""
    return _in_body(path, found, f'must be of type {wanted}: "{found}"', kind="TypeInvalid")


def _bounded(schema: Schema, value: Json, path: str) -> Iterator[Cause]:
    """Yield the bounds that a value breaks: a number itself, others by their length."""
    number = isinstance(value, int | float)
    size = value if number else len(value)
    for word, low in _BOUNDS.items():
        if word in schema and (size < schema[word] if low else size > schema[word]):
            yield status.invalid(path, value, f"{path}: {word} is {schema[word]}")
    least, most = _RANGES.get(schema.get("format", ""), (-math.inf, math.inf))
    if number and not least <= size <= most:
        yield status.invalid(path, value, f"{path} must be of format {schema['format']}")


def _string(schema: Schema, value: str, path: str) -> Iterator[Cause]:
    yield from _bounded(schema, value, path)
    if schema.get("format") == "date-time" and not _DATE_TIME.fullmatch(value):
        rule = f'must be of type date-time: "{value}"'
        yield _in_body(path, value, rule, kind="TypeInvalid")
    if "pattern" in schema and not compiled(schema["pattern"]).search(value):
        yield _in_body(path, value, f"should match '{schema['pattern']}'")


def _object(schema: Schema, value: dict[str, Any], path: str) -> Iterator[Cause]:
    for name in schema.get("required", ()):
        if name not in value:
            yield status.required(f"{path}.{name}" if path else name)


_CHECKS: dict[str, Callable[[Schema, Any, str], Iterator[Cause]]] = {
    "string": _string,
    "array": _bounded,
    "object": _object,
    "integer": _bounded,
    "number": _bounded,
}
_COMBINED: dict[str, tuple[Callable[[int, int], bool], str]] = {
    "allOf": (lambda good, total: good == total, "must validate all the schemas (allOf)"),
    "anyOf": (lambda good, _: good > 0, "must validate at least one schema (anyOf)"),
    "oneOf": (lambda good, _: good == 1, "must validate one and only one schema (oneOf)"),
}


def _combined(schema: Schema, value: Json, path: str) -> Iterator[Cause]:
    for word in _COMBINED.keys() & schema.keys():
        holds, rule = _COMBINED[word]
        good = sum(not validate(each, value, path, root=False) for each in schema[word])
        if schema[word] and not holds(good, len(schema[word])):
            yield status.invalid(path, value, f'"{path}" {rule}')


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern of Go's, to be searched for; raise re.error. There `$` is the text's end."""
    return re.compile(re.sub(r"(?<!\\)\$(?=$|\||\))", r"\\Z", pattern))

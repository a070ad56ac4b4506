"""What Go's decoder refuses: fields that are not of the type that their kind gives them.

A real server decodes a built-in object, a question or options into a Go struct, and refuses what
does not fit; so no hook here ever meets a string for a list.
"""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster import Json
from podidentity_sandbox.cluster.schema import Schema, inside, json_type

GO_TYPE = "x-go-type"
"""Names the Go struct that an object is decoded into."""
QUANTITY: Schema = {"x-kubernetes-int-or-string": True, "format": "quantity"}
"""An amount, such as 2, 0.5 or "500m"."""
_GO = {"string": "string", "number": "float64", "boolean": "bool"}
_JSON = {"integer": "number", "boolean": "bool"}


def without_nulls(value: Json) -> Json:
    """Return JSON without null fields: to a Go struct they are as good as absent."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value if item is not None]
    return value


def misfit(fields: Schema, value: Json) -> str:
    """Return the decoder's words for the first field of the wrong type; "" if all fit."""
    return next(_misfits(fields, value, "", ""), "")


def _misfits(fields: Schema, value: Json, struct: str, path: str) -> Iterator[str]:
    """Yield the words for each misfit at or below `path`, which is a field of that struct."""
    found = json_type(value)
    if not _fits(fields, found):
        place = f"struct field {struct}.{path}" if path else "value"
        said = f"json: cannot unmarshal {_JSON.get(found, found)} into Go {place}"
        yield f"{said} of type {_go_type(fields)}"
        return
    named = fields.get("properties", {}) if isinstance(value, dict) else {}
    for key, child, item in inside(fields, value, ""):
        below = (f"{path}.{key}" if path else key) if key in named else path
        yield from _misfits(child, item, fields.get(GO_TYPE, "") if key in named else struct, below)


def _fits(fields: Schema, found: str) -> bool:
    wanted = fields.get("type")
    if fields.get("x-kubernetes-int-or-string"):
        return found in ("integer", "string") or (found == "number" and "format" in fields)
    return wanted is None or found == wanted or (wanted, found) == ("number", "integer")


def _go_type(fields: Schema) -> str:
    if fields.get("x-kubernetes-int-or-string"):
        return str(fields.get("format", "string"))
    kind = fields.get("type", "")
    if kind == "array":
        return "[]" + _go_type(fields.get("items", {}))
    if kind == "object" and GO_TYPE in fields:
        return f"v1.{fields[GO_TYPE]}"
    if isinstance(values := fields.get("additionalProperties"), dict):
        return "map[string]" + _go_type(values)
    return str(fields.get("format", "int64")) if kind == "integer" else _GO.get(kind, "struct")

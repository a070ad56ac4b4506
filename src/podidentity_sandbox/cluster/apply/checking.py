"""Whether a configuration can be applied: each field known, of its type, and each item told apart.

The words are those of
https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/typed/validate.go
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from podidentity_sandbox.cluster.apply.fieldsets import shown_step
from podidentity_sandbox.cluster.apply.typed import NoKey, child, granular, step_of
from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.schema import Schema


def faults(schema: Schema, value: Json, path: str = "") -> Sequence[tuple[str, str]]:
    """Return what keeps a configuration from being applied: (path, words) pairs."""
    return tuple(_faults(schema, value, path))


_SCALARS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "string": (str, "string"),
    "integer": ((int, float), "numeric (int or float)"),
    "number": ((int, float), "numeric (int or float)"),
    "boolean": (bool, "boolean"),
}
_GO = {str: "string", bool: "bool", int: "int64", float: "float64"}


def _faults(schema: Schema, value: Json, path: str) -> Iterator[tuple[str, str]]:
    kind = schema.get("type")
    if value is None or kind is None:
        return
    if kind in ("object", "array"):
        if not isinstance(value, dict if kind == "object" else list):
            yield path, f"expected {'map' if kind == 'object' else 'list'}, got {_shown(value)}"
        elif isinstance(value, dict):
            yield from _map_faults(schema, value, path)
        else:
            yield from _list_faults(schema, value, path)
        return
    wanted, word = _SCALARS[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "boolean"):
        yield path, f"expected {word}, got {_shown(value, kind)}"


def _shown(value: Json, kind: str = "") -> str:
    """Return a value as the message for that kind prints it: its type, its struct or itself."""
    if kind in ("integer", "number"):
        return _GO.get(type(value), "map[string]interface {}")
    if kind == "string":
        return f"&value.valueUnstructured{{Value:{value}}}"
    return str(value)


def _map_faults(schema: Schema, value: Obj, path: str) -> Iterator[tuple[str, str]]:
    named = schema.get("properties", {})
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    opened = not named or schema.get("additionalProperties") or keeps
    for name, item in value.items():
        place = f"{path}.{name}"
        if not opened and name not in named:
            yield place, "field not declared in schema"
            return
        yield from _faults(child(schema, name), item, place)


def _list_faults(schema: Schema, value: list[Any], path: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for index, item in enumerate(value):
        place = f"{path}[{index}]"
        if granular(schema, value):
            try:
                step = step_of(schema, item)
            except NoKey as error:
                yield path, f"element {index}: {error}"
                return
            place = path + shown_step(step)
            if step in seen:
                yield path, f"duplicate entries for key {shown_step(step)}"
            seen.add(step)
        yield from _faults(schema.get("items", {}), item, place)

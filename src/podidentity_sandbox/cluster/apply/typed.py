"""The fields of an object that can be owned: by its type's schema, or else by its form.

Structs and maps fall into their fields, lists into their items where the type names a key or calls
them a set; everything else is one leaf. The rules are those of
https://github.com/kubernetes-sigs/structured-merge-diff/tree/master/typed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from podidentity_sandbox.cluster import Json
from podidentity_sandbox.cluster.apply.fieldsets import (
    EMPTY,
    FieldSet,
    Path,
    below,
    field_step,
    key_step,
    shown_step,
    value_step,
)
from podidentity_sandbox.cluster.schema import KEEP, Schema, inside

MISSING: Any = object()
"""Stands for no value: null is one."""


class NoKey(Exception):
    """An item that nothing tells apart from the others of its list."""


def child(schema: Schema, key: str) -> Schema:
    """Return the schema of a field; {}, which says nothing, where there is none."""
    found = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
    return found if isinstance(found, dict) else {}


def granular(schema: Schema, value: Json) -> bool:
    """Whether a value falls into fields or items of their own, rather than being one leaf."""
    if isinstance(value, dict):
        return schema.get("x-kubernetes-map-type") != "atomic"
    return isinstance(value, list) and schema.get("x-kubernetes-list-type") in ("map", "set")


def step_of(schema: Schema, item: Json) -> str:
    """Return the step to an item of a granular list; raise NoKey where it has no key."""
    if schema["x-kubernetes-list-type"] == "set":
        if isinstance(item, dict | list) or item is None:
            raise NoKey("associative list without keys has an element that's a map type")
        return value_step(item)
    if not isinstance(item, dict):
        raise NoKey("associative list with keys may not have non-map elements")
    key = {}
    for name in schema["x-kubernetes-list-map-keys"]:
        value = item.get(name, child(schema.get("items", {}), name).get("default"))
        if value is None:
            raise NoKey(
                f'associative list with keys has an element that omits key field "{name}" '
                "(and doesn't have default value)"
            )
        key[name] = value
    return key_step(key)


def parts(schema: Schema, value: Json) -> Iterator[tuple[str, Schema, Json]]:
    """Yield step, schema and value of each part of a granular value; keyless items are left out."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield field_step(name), child(schema, name), item
        return
    for item in value:
        try:
            yield step_of(schema, item), schema.get("items", {}), item
        except NoKey:
            continue


def field_set(schema: Schema, value: Json, path: Path = ()) -> FieldSet:
    """Return the fields that an applier of `value` owns."""
    if not granular(schema, value):
        return frozenset([path])
    found: set[Path] = set()
    named = schema.get("properties", {})
    for step, inner, item in parts(schema, value):
        place = (*path, step)
        found |= field_set(inner, item, place)
        listed = isinstance(value, list) or step[2:] not in named
        if listed or item is None or item == {}:
            found.add(place)
    return frozenset(found)


@dataclass(slots=True)
class Comparison:
    """The changes of the fields of an object. No field is in two of the sets."""

    added: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)

    @property
    def written(self) -> FieldSet:
        """The fields that a write owns after it."""
        return frozenset(self.added | self.modified)


def compare(schema: Schema, old: Json, new: Json) -> Comparison:
    """Return how `new` differs from `old`."""
    found = Comparison()
    _compare(schema, old, new, (), found)
    for paths in (found.added, found.modified, found.removed):
        paths.discard(())
    return found


def _compare(schema: Schema, old: Json, new: Json, path: Path, found: Comparison) -> None:
    if old is MISSING:
        _whole(schema, new, path, found.added)
        return
    if new is MISSING:
        _whole(schema, old, path, found.removed)
        return
    fall = granular(schema, new if old is None else old)
    alike = old is None or new is None or type(old) is type(new)
    if not fall or not alike or not (_content(old) or _content(new)):
        if old != new:
            found.modified.add(path)
        return
    before, after = _indexed(schema, old), _indexed(schema, new)
    for step in {**before, **after}:
        _compare_items(before.get(step), after.get(step), (*path, step), found)


def _whole(schema: Schema, value: Json, path: Path, found: set[Path]) -> None:
    """Note a value that only one object has, and all that is in it."""
    found.add(path)
    if not value or not granular(schema, value):
        return
    places = list(parts(schema, value))
    counts = Counter(step for step, _, _ in places) if isinstance(value, list) else {}
    for step, inner, item in places:
        if counts.get(step, 1) > 1:
            found.add((*path, step))
        else:
            _whole(inner, item, (*path, step), found)


_Items = list[tuple[Schema, Json]]


def _compare_items(
    before: _Items | None, after: _Items | None, path: Path, found: Comparison
) -> None:
    """Compare what stands at one step; items of the same key are one leaf together."""
    schema = (before or after or [({}, None)])[0][0]
    if any(items is not None and len(items) > 1 for items in (before, after)):
        schema, old, new = {}, before or MISSING, after or MISSING
    else:
        old = before[0][1] if before else MISSING
        new = after[0][1] if after else MISSING
    _compare(schema, old, new, path, found)


def _content(value: Json) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _indexed(schema: Schema, value: Json) -> dict[str, _Items]:
    found: dict[str, _Items] = {}
    if _content(value):
        for step, inner, item in parts(schema, value):
            found.setdefault(step, []).append((inner, item))
    return found


def with_named_fields(schema: Schema, fields: FieldSet) -> FieldSet:
    """Return the set with the structs' fields that lead to its members, but no keys of maps."""
    found = set(fields)
    for path in fields:
        at = schema
        for depth, step in enumerate(path[:-1], 1):
            if step.startswith("f:"):
                if step[2:] in at.get("properties", {}):
                    found.add(path[:depth])
                at = child(at, step[2:])
            else:
                at = at.get("items", {})
    return frozenset(found)


# ---- Validation of a configuration: each field is known and of its type, each item has its key
#
# The words, but those about types, are those of
# https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/typed/validate.go


def faults(schema: Schema, value: Json, path: str = "") -> Iterator[str]:
    """Yield what keeps a configuration, whose fields are of their types, from being applied."""
    named, extra = schema.get("properties"), schema.get("additionalProperties")
    if isinstance(value, dict) and named and not extra and not schema.get(KEEP):
        for name in (name for name in value if name not in named):
            yield f"{path}.{name}: field not declared in schema"
    steps = Counter[str]()
    for where, inner, item in inside(schema, value, ""):
        place = f"{path}{where}" if isinstance(value, list) else f"{path}.{where}"
        if isinstance(value, list) and granular(schema, value):
            try:
                step = step_of(schema, item)
            except NoKey as error:
                yield f"{path}: element {where[1:-1]}: {error}"
                continue
            steps[step] += 1
            place = path + shown_step(step)
            if steps[step] == 2:
                yield f"{path}: duplicate entries for key {shown_step(step)}"
        yield from faults(inner, item, place)


# ---- Lays one configuration over an object, and takes fields out of one.
#
# The order in which the items of two lists come together is that of
# https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/typed/merge.go


def merged(schema: Schema, live: Json, config: Json) -> Json:
    """Return `live` with what `config` says; neither is changed."""
    if config is MISSING:
        return live
    if live is MISSING or live is None or not granular(schema, config):
        return live if config is None and granular(schema, live) and live else config
    if isinstance(live, dict) and isinstance(config, dict):
        names = {**live, **config}
        return {
            name: merged(child(schema, name), live.get(name, MISSING), config.get(name, MISSING))
            for name in names
        }
    if isinstance(live, list) and isinstance(config, list):
        return _merged_lists(schema, live, config)
    return config


def _merged_lists(schema: Schema, live: list[Any], config: list[Any]) -> list[Any]:
    """Return two lists together: the applied order holds, what is only live stays about."""
    inner = schema.get("items", {})
    before = [(step_of(schema, item), item) for item in live]
    wishes = [(step_of(schema, item), item) for item in config]
    counts = Counter(step for step, _ in before)
    by_step = {step: None if counts[step] > 1 else item for step, item in before}
    applied = {step for step, _ in wishes}
    shared = [step for step, _ in wishes if step in by_step]
    found: list[Any] = []
    done: set[str] = set()
    left, right = 0, 0
    while left < len(before) or right < len(wishes):
        step, item = before[left] if left < len(before) else ("", None)
        wanted, wish = wishes[right] if right < len(wishes) else ("", None)
        if wanted and step != wanted and step in applied and shared and shared[0] != step:
            left += 1  # in both, but not its turn
            continue
        if step and step not in applied:
            found.append(item)
            left += 1
            continue
        if step and (step in done or step == wanted):
            left += 1
        if not wanted:
            continue
        found.append(merged(inner, by_step.get(wanted, MISSING), wish))
        done.add(wanted)
        shared = shared[1:] if shared[:1] == [wanted] else shared
        right += 1
    return found


def without(schema: Schema, value: Json, fields: FieldSet) -> Json:
    """Return `value` without the fields of the set; null where nothing is left of it."""
    if not isinstance(value, dict | list) or not fields:
        return value
    if not granular(schema, value):
        return None
    tops, deeper = {path[0] for path in fields if len(path) == 1}, below(fields)
    if isinstance(value, dict):
        steps = ((name, field_step(name), item) for name, item in value.items())
        return {
            name: without(child(schema, name), item, deeper.get(step, EMPTY))
            for name, step, item in steps
            if step not in tops
        } or None
    inner = schema.get("items", {})
    placed = ((step_of(schema, item), item) for item in value)
    return [
        without(inner, item, deeper.get(step, EMPTY)) for step, item in placed if step not in tops
    ] or None

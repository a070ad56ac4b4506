"""Strategic merge patches: lists of the built-in types are merged item by item, by their key.

The algorithm, its directives and its errors are those of
https://github.com/kubernetes/apimachinery/blob/master/pkg/util/strategicpatch/patch.go, for a
patch that a server applies (MergeParallelList and IgnoreUnmatchedNulls). A patch that cannot be
applied raises Unfit in its words. Originals and patches are changed in place.
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.patching.gofmt import go_value
from podidentity_sandbox.cluster.schema import Schema

Items = list[Any]
DIRECTIVE = "$patch"
RETAIN = "$retainKeys"
ORDER = "$setElementOrder/"
DELETE = "$deleteFromPrimitiveList/"
BAD_RETAIN = "invalid patch format of retainKeys"
BAD_ORDER = "invalid patch format of setElementOrder list"
BAD_PRIMITIVE = "invalid patch format of primitive list"


class Unfit(Exception):
    """A patch that cannot be applied, with the reason in the server's words."""


def merge(original: Obj, patch: Obj, schema: Schema) -> Obj:
    """Return the original changed by the patch; raise Unfit."""
    if DIRECTIVE in patch:
        return _directed(patch)
    _retain(original, patch)
    for key in [key for key in patch if key.startswith(ORDER)]:
        _ordered(original, patch, key, schema)
    for key, value in patch.items():
        if key.startswith(DELETE):
            _delete(original, key.removeprefix(DELETE), value)
        elif value is None:
            original.pop(key, None)
        else:
            _set(original, key, value, schema)
    return original


def _directed(patch: Obj) -> Obj:
    """Return what a map becomes whose patch says `$patch`."""
    directive = patch.pop(DIRECTIVE)
    if directive == "replace":
        return patch
    if directive == "delete":
        return {}
    shown = go_value({DIRECTIVE: directive, **patch})
    raise Unfit(f"unknown patch type: {go_value(directive)} in map: {shown}")


def _retain(original: Obj, patch: Obj) -> None:
    """Take from the original what `$retainKeys` does not name."""
    if RETAIN not in patch:
        return
    kept = patch.pop(RETAIN)
    if not isinstance(kept, list):
        raise Unfit(BAD_RETAIN)
    for key, value in patch.items():
        if value is not None and not key.startswith((DELETE, ORDER)) and key not in kept:
            raise Unfit(BAD_RETAIN)
    for key in [key for key in original if key not in kept]:
        del original[key]


def _delete(original: Obj, key: str, gone: Json) -> None:
    """Take scalars out of a list."""
    if not isinstance(gone, list):
        raise Unfit(BAD_PRIMITIVE)
    if isinstance(original.get(key), list):
        original[key] = [item for item in original[key] if item not in gone]


def _set(original: Obj, key: str, value: Json, schema: Schema) -> None:
    """Merge one field that is no list of scalars to delete."""
    present = original.get(key)
    field = _field(schema, key)
    if isinstance(present, dict) and isinstance(value, dict):
        original[key] = merge(present, value, field)
    elif isinstance(present, list) and isinstance(value, list):
        original[key] = merge_lists(present, value, field) if _merges(field) else value
    elif isinstance(value, dict) and DIRECTIVE in value:
        original.pop(key, None)
    else:
        original[key] = without_directives(value)


def _field(schema: Schema, key: str) -> Schema:
    found = schema.get("properties", {}).get(key)
    return found if isinstance(found, dict) else {}


def _merges(field: Schema) -> bool:
    return "merge" in str(field.get("x-kubernetes-patch-strategy", "")).split(",")


def without_directives(value: Json) -> Json:
    """Return new content without nulls and without what carries a directive."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if v is not None and not _marked(v)}
        return {key: without_directives(item) for key, item in kept.items()}
    if isinstance(value, list):
        return [without_directives(item) for item in value if not _marked(item)]
    return value


def _marked(value: Json) -> bool:
    return isinstance(value, dict) and DIRECTIVE in value


def merge_lists(original: Items, patch: Items, field: Schema) -> Items:
    """Return a list merged by the key of its items, or as a set of scalars."""
    if not original and not patch:
        return original
    key = _key(original, patch, field)
    before = list(original)
    if not key:
        merged = list(dict.fromkeys([*original, *patch]))
    else:
        original, patch = _special(original, patch, key)
        merged = _merge_maps(original, patch, key, field.get("items", {}))
    return _arranged(merged, patch, before, key)


def _key(original: Items, patch: Items, field: Schema) -> str:
    """Return the merge key, "" for scalars; refuse lists that mix."""
    kinds = {type(item) for item in (*original, *patch)}
    if len(kinds) > 1:
        raise Unfit("list element types are not identical: " + _kinds(kinds))
    if list in kinds:
        raise Unfit("lists of lists are not supported")
    return str(field.get("x-kubernetes-patch-merge-key", "")) if dict in kinds else ""


def _kinds(kinds: set[type]) -> str:
    names = {dict: "map", list: "slice", str: "string", int: "int64", bool: "bool"}
    return ", ".join(sorted(names.get(kind, kind.__name__) for kind in kinds))


def _special(original: Items, patch: Items, key: str) -> tuple[Items, Items]:
    """Obey the items that carry a directive; return both lists without them."""
    plain, replace = [], False
    for item in patch:
        directive = item.get(DIRECTIVE)
        if DIRECTIVE not in item:
            plain.append(item)
        elif directive == "delete":
            wanted = _value(item, key)
            original = [each for each in original if each.get(key) != wanted]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise Unfit("merging lists cannot yet be specified in the patch")
        else:
            raise Unfit(f"unknown patch type: {go_value(directive)} in map: {go_value(item)}")
    return (plain, []) if replace else (original, plain)


def _value(item: Obj, key: str) -> Json:
    if key not in item:
        raise Unfit(f"map: {go_value(item)} does not contain declared merge key: {key}")
    return item[key]


def _merge_maps(original: Items, patch: Items, key: str, schema: Schema) -> Items:
    merged = list(original)
    for item in patch:
        wanted = _value(item, key)
        at = next((n for n, each in enumerate(merged) if each.get(key) == wanted), None)
        if at is None:
            merged.append(without_directives(item))
        else:
            merged[at] = merge(merged[at], item, schema)
    return merged


def _ordered(original: Obj, patch: Obj, directive: str, schema: Schema) -> None:
    """Merge the list that a `$setElementOrder/` names, and put it in that order."""
    order, name = patch.pop(directive), directive.removeprefix(ORDER)
    present, change = original.get(name), patch.get(name)
    if not isinstance(order, list) or any(
        not isinstance(x, list | None) for x in (present, change)
    ):
        raise Unfit(BAD_ORDER)
    if present is None and change is None:
        return
    before, field = list(present or ()), _field(schema, name)
    key = _key(order, [], field)
    _check_order(change or [], order, key)
    if present is None:
        merged = without_directives(change)
    elif change is None:
        merged = present
    else:
        merged = merge_lists(present, change, field) if _merges(field) else change
    patch.pop(name, None)
    original[name] = _arranged(merged, order, before, key)


def _check_order(patch: Items, order: Items, key: str) -> None:
    """Refuse a patch whose items the order does not name, or not in this order."""
    if not patch or not order:
        return
    rest = iter([_place(item, key) for item in order])
    for item in patch:
        if not _marked(item) and _place(item, key) not in rest:
            raise Unfit(
                f"The order in patch list:\n{go_value(patch)}\n doesn't match "
                f"$setElementOrder list:\n{go_value(order)}\n"
            )


def _place(item: Json, key: str) -> Json:
    return _value(item, key) if key else item


def _arranged(merged: Items, order: Items, before: Items, key: str) -> Items:
    """Return the list in the patch's order; what only the server has stays where it was."""
    wanted = [_place(item, key) for item in order]
    live = [_place(item, key) for item in before]
    named = [item for item in merged if _place(item, key) in wanted]
    named.sort(key=lambda item: wanted.index(_place(item, key)))
    others = [item for item in merged if _place(item, key) not in wanted]
    others.sort(key=lambda item: _index(live, _place(item, key)))
    arranged: Items = []
    while named and others:
        left = _index(live, _place(others[0], key))
        first = -1 < left < _index(live, _place(named[0], key))
        arranged.append((others if first else named).pop(0))
    return [*arranged, *named, *others]


def _index(places: Items, place: Json) -> int:
    return places.index(place) if place in places else -1

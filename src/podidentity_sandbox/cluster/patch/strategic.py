"""Strategic merge patches: lists of the built-in types are merged item by item, by their key.

The algorithm, its directives and its errors are those of
https://github.com/kubernetes/apimachinery/blob/master/pkg/util/strategicpatch/patch.go, for a
patch that a server applies (MergeParallelList and IgnoreUnmatchedNulls). A patch that cannot be
applied raises Unfit in its words. Originals and patches are changed in place.
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.cluster import Json, Obj
from podidentity_sandbox.cluster.schema import Schema

# ---- Values as Go prints them: some refusals of the API server show a value by %v of fmt


def go_value(value: Json) -> str:
    """Return a decoded JSON value as `%v` of Go prints it: `map[a:1 b:[x y]]`, keys sorted."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{go_value(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(go_value, value))}]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


# ---- The order of a list that two sides have a hand in: the patch's, and where live items stood.
#
# As normalizeElementOrder in
# https://github.com/kubernetes/apimachinery/blob/master/pkg/util/strategicpatch/patch.go

Items = list[Any]
DIRECTIVE = "$patch"


class Unfit(Exception):
    """A patch that cannot be applied, with the reason in the server's words."""


class BadForm(Unfit):
    """A directive that is not of its form: the server's code for it is 400, for all others 500."""


def marked(value: Json) -> bool:
    """Whether an item is a directive."""
    return isinstance(value, dict) and DIRECTIVE in value


def key_of(item: Json, key: str) -> Json:
    """Return what tells an item apart; raise Unfit where it does not say it."""
    if not isinstance(item, dict):
        raise bad_type("map[string]interface {}", item)
    if key not in item:
        raise Unfit(f"map: {go_value(item)} does not contain declared merge key: {key}")
    return item[key]


_GO_TYPES: dict[type, str] = {
    dict: "map[string]interface {}",
    list: "[]interface {}",
    str: "string",
    bool: "bool",
    int: "int64",
    float: "float64",
    type(None): "%!s(<nil>)",
}


def bad_type(wanted: str, found: Json) -> Unfit:
    """Return the refusal of a value that is not of the Go type wanted."""
    return Unfit(f"expected a {wanted}, but received a {_GO_TYPES[type(found)]}")


def check_order(patch: Items, order: Items, key: str) -> None:
    """Refuse a patch whose items the order does not name, or not in this order."""
    items = [item for item in patch if not marked(item) or item[DIRECTIVE] != "delete"]
    if not patch or not order:
        return
    at, rest = 0, list(order)
    while at < len(items) and rest:
        if marked(items[at]) or _place(items[at], key) == _place(rest.pop(0), key):
            at += 1
    if at < len(items) and not rest:
        raise Unfit(
            f"The order in patch list:\n{go_value(patch)}\n doesn't match "
            f"$setElementOrder list:\n{go_value(order)}\n"
        )


def _place(item: Json, key: str) -> Json:
    return key_of(item, key) if key else item


def arranged(merged: Items, order: Items, before: Items, key: str) -> Items:
    """Return the list in the patch's order; what only the server has stays where it was."""
    wanted = [_place(item, key) for item in order]
    live = [_place(item, key) for item in before]
    named = [item for item in merged if _place(item, key) in wanted]
    named.sort(key=lambda item: wanted.index(_place(item, key)))
    others = [item for item in merged if _place(item, key) not in wanted]
    others.sort(key=lambda item: _index(live, _place(item, key)))
    both: Items = []
    while named and others:
        stood = _index(live, _place(others[0], key))
        first = -1 < stood < _index(live, _place(named[0], key))
        both.append((others if first else named).pop(0))
    return [*both, *named, *others]


def _index(places: Items, place: Json) -> int:
    return places.index(place) if place in places else -1


def left(present: Items, change: Items, key: str) -> Items:
    """Return the live list as the real server has it in hand after a merge.

    It removes items in place, so that added items stand where the list ended before.
    """
    if not key or not all(isinstance(item, dict) for item in (*present, *change)):
        return present
    gone = [item.get(key) for item in change if item.get(DIRECTIVE) == "delete"]
    kept = [item for item in present if item.get(key) not in gone]
    names = [item.get(key) for item in kept]
    added = [item for item in change if not marked(item) and item.get(key) not in names]
    return [*kept, *added][: len(present)]


# ---- The patches

RETAIN = "$retainKeys"
ORDER = "$setElementOrder/"
DELETE = "$deleteFromPrimitiveList/"


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
    said = [k for k, v in patch.items() if v is not None and not k.startswith((DELETE, ORDER))]
    if not isinstance(kept, list) or not set(said) <= {key for key in kept if key in said}:
        raise BadForm("invalid patch format of retainKeys")
    for key in [key for key in original if key not in kept]:
        del original[key]


def _delete(original: Obj, key: str, gone: Json) -> None:
    """Take scalars out of a list."""
    if not isinstance(gone, list):
        raise BadForm("invalid patch format of primitive list")
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
        kept = {k: v for k, v in value.items() if v is not None and not marked(v)}
        return {key: without_directives(item) for key, item in kept.items()}
    if isinstance(value, list):
        return [without_directives(item) for item in value if not marked(item)]
    return value


def merge_lists(original: Items, patch: Items, field: Schema) -> Items:
    """Return a list merged by the key of its items, or as a set of scalars."""
    if not original and not patch:
        return original
    key = _key(original, patch, field)
    if not key:
        merged = list(dict.fromkeys([*original, *patch]))
    else:
        original, patch = _special(original, patch, key)
        merged = _merge_maps(original, patch, key, field.get("items", {}))
    return arranged(merged, patch, original, key)


def _key(original: Items, patch: Items, field: Schema) -> str:
    """Return the merge key, "" for scalars; refuse lists that mix."""
    kinds = {type(item) for item in (*original, *patch)}
    if len(kinds) > 1:
        named = ", ".join(sorted(_KINDS.get(kind, kind.__name__) for kind in kinds))
        raise Unfit(f"list element types are not identical: {named}")
    if list in kinds:
        raise Unfit("lists of lists are not supported")
    return str(field.get("x-kubernetes-patch-merge-key", "")) if dict in kinds else ""


_KINDS = {dict: "map", list: "slice", str: "string", int: "int64", bool: "bool"}


def _special(original: Items, patch: Items, key: str) -> tuple[Items, Items]:
    """Obey the items that carry a directive; return both lists without them."""
    plain, replace = [], False
    for item in patch:
        directive = item.get(DIRECTIVE)
        if DIRECTIVE not in item:
            plain.append(item)
        elif directive == "delete":
            wanted = key_of(item, key)
            original = [each for each in original if each.get(key) != wanted]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise Unfit("merging lists cannot yet be specified in the patch")
        else:
            raise Unfit(f"unknown patch type: {go_value(directive)} in map: {go_value(item)}")
    return (plain, []) if replace else (original, plain)


def _merge_maps(original: Items, patch: Items, key: str, schema: Schema) -> Items:
    merged = list(original)
    for item in patch:
        wanted = key_of(item, key)
        at = next((n for n, each in enumerate(merged) if each.get(key) == wanted), None)
        if at is None:
            merged.append(without_directives(item))
        else:
            merged[at] = merge(merged[at], item, schema)
    return merged


def _ordered(original: Obj, patch: Obj, directive: str, schema: Schema) -> None:
    """Merge the list that a `$setElementOrder/` names, and put it in that order."""
    order, name = patch.pop(directive), directive.removeprefix(ORDER)
    present, change = _list(original, name), _list(patch, name)
    if not isinstance(order, list):
        raise bad_type("[]interface {}", order)
    if name not in original and name not in patch:
        return
    field = _field(schema, name)
    key = str(field.get("x-kubernetes-patch-merge-key", ""))
    check_order(change, order, key)
    if name not in original:
        merged = without_directives(change)
    elif name not in patch:
        merged = present
    else:
        merged = merge_lists(present, change, field) if _merges(field) else change
    if not present and not change:
        raise Unfit("no elements in any of the given slices")
    patch.pop(name, None)
    original[name] = arranged(merged, order, left(present, change, key), key)


def _list(holder: Obj, name: str) -> Items:
    found = holder.get(name, [])
    if not isinstance(found, list):
        raise bad_type("[]interface {}", found)
    return found

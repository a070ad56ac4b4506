"""The order of a list that two sides have a hand in: the patch's, and where live items stood.

As normalizeElementOrder in
https://github.com/kubernetes/apimachinery/blob/master/pkg/util/strategicpatch/patch.go
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.cluster.jsontypes import Json
from podidentity_sandbox.cluster.patching.gofmt import go_value

Items = list[Any]
DIRECTIVE = "$patch"


class Unfit(Exception):
    """A patch that cannot be applied, with the reason in the server's words."""


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


def bad_type(wanted: str, found: Json) -> Unfit:
    """Return the refusal of a value that is not of the Go type wanted."""
    names = {dict: "map[string]interface {}", list: "[]interface {}", str: "string", bool: "bool"}
    numbers = {int: "int64", float: "float64", type(None): "%!s(<nil>)"}
    named = {**names, **numbers}[type(found)]
    return Unfit(f"expected a {wanted}, but received a {named}")


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

    It takes items out in place, so that what is added then stands where the list ended before.
    """
    if not key or not all(isinstance(item, dict) for item in (*present, *change)):
        return present
    gone = [item.get(key) for item in change if item.get(DIRECTIVE) == "delete"]
    kept = [item for item in present if item.get(key) not in gone]
    names = [item.get(key) for item in kept]
    added = [item for item in change if not marked(item) and item.get(key) not in names]
    return [*kept, *added][: len(present)]

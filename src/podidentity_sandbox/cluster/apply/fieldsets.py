"""Sets of field paths, and FieldsV1, the form that metadata.managedFields holds them in.

A path is a tuple of steps, written as FieldsV1 writes them: `f:spec`, `k:{"name":"c"}` for the item
of a list with that key, `v:"x"` for a value of a set. The same as
https://github.com/kubernetes-sigs/structured-merge-diff/tree/master/fieldpath
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from podidentity_sandbox.cluster import Json, Obj

Path = tuple[str, ...]
FieldSet = frozenset[Path]
EMPTY: FieldSet = frozenset()
_ORDER = {".": 0, "f": 0, "k": 1, "v": 2, "i": 3}


class NoFields(Exception):
    """A value that is no FieldsV1."""


def field_step(name: str) -> str:
    """Return the step to a field of a map or struct."""
    return f"f:{name}"


def key_step(key: Mapping[str, Json]) -> str:
    """Return the step to the list item with this key."""
    return f"k:{_text(dict(sorted(key.items())))}"


def value_step(value: Json) -> str:
    """Return the step to a value of a set."""
    return f"v:{_text(value)}"


def _text(value: Json) -> str:
    return msgspec.json.encode(value).decode()


def encode(fields: Iterable[Path]) -> Obj:
    """Return FieldsV1 of a set."""
    tree: Obj = {}
    for path in fields:
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node["."] = {}
    return {step: _tidy(tree[step]) for step in sorted(tree, key=_rank)}


def _rank(step: str) -> tuple[int, str]:
    return _ORDER.get(step[:1], 9), step


def _tidy(node: Obj) -> Obj:
    """Return a node in order, without the mark of a member where nothing stands below it."""
    if len(node) == 1 and "." in node:
        return {}
    ordered = sorted(node, key=_rank)
    return {step: {} if step == "." else _tidy(node[step]) for step in ordered}


def decode(tree: Json, base: Path = ()) -> FieldSet:
    """Return the set that FieldsV1 holds; raise NoFields where it is not of that form."""
    if not isinstance(tree, dict):
        raise NoFields(f"{tree!r} is no set of fields")
    found: set[Path] = set()
    for step, child in tree.items():
        if step == ".":
            found.add(base)
            continue
        if step[:2] not in ("f:", "k:", "v:", "i:"):
            raise NoFields(f"{step!r} is no step of a path")
        path = (*base, step)
        found |= decode(child, path) if child else {path}
    return frozenset(found)


def below(fields: FieldSet) -> dict[str, FieldSet]:
    """Return, for each first step, the rest of the paths that are longer."""
    found: dict[str, set[Path]] = {}
    for path in fields:
        if len(path) > 1:
            found.setdefault(path[0], set()).add(path[1:])
    return {step: frozenset(rest) for step, rest in found.items()}


def outside(fields: Iterable[Path], prefixes: Sequence[Path]) -> FieldSet:
    """Return the set without what lies at or below one of the prefixes."""
    lengths = {len(prefix) for prefix in prefixes}
    return frozenset(p for p in fields if not any(p[:length] in prefixes for length in lengths))


def shown(path: Path) -> str:
    """Return a path as messages show it: `.spec.containers[name="c"].image`."""
    return "".join(map(shown_step, path))


def shown_step(step: str) -> str:
    """Return one step as messages show it."""
    kind, text = step[:1], step[2:]
    if kind == "f":
        return f".{text}"
    if kind == "k":
        key = msgspec.json.decode(text)
        return f"[{','.join(f'{name}={_text(value)}' for name, value in key.items())}]"
    return f"[={text}]" if kind == "v" else f"[{text}]"


def in_order(fields: FieldSet) -> list[Path]:
    """Return the paths in the order of a walk: members first, then those below them."""

    def rank(path: Path) -> list[tuple[int, int, str]]:
        last = len(path) - 1
        return [(int(at != last), *_rank(step)) for at, step in enumerate(path)]

    return sorted(fields, key=rank)

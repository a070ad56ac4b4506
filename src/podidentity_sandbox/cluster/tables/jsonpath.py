"""The JSONPaths of printer columns: `.spec.type`, `.status.conditions[?(@.type=="Ready")].status`.

What a definition may use of https://kubernetes.io/docs/reference/kubectl/jsonpath/: fields,
indices, `[*]` and a comparison of a field with a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from podidentity_sandbox.cluster.jsontypes import Json

_STEP = re.compile(
    r"""\.?\[\?\(@\.(?P<of>[\w.-]+)\s*==\s*["'](?P<text>[^"']*)["']\)\]"""
    r"""|\.?\[(?P<index>-?\d+)\]|\.?\[(?P<all>\*)\]|\.?\['(?P<quoted>[^']+)'\]"""
    r"""|\.(?P<field>(?:\\.|[^.\[\]\\])+)"""
)
Step = tuple[str, str, str]
"""What kind of step, and its one or two words."""


@lru_cache(maxsize=1024)
def parse(path: str) -> tuple[Step, ...]:
    """Return the steps of a path; raise ValueError for one that is not read here."""
    steps, at = [], 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            raise ValueError(f"invalid path {path!r}")
        at = found.end()
        kind = str(found.lastgroup)
        if kind == "text":
            steps.append(("filter", found["of"], found["text"]))
        elif kind in ("field", "quoted"):
            steps.append(("field", re.sub(r"\\(.)", r"\1", found[kind]), ""))
        else:
            steps.append((kind, found[kind], ""))
    return tuple(steps)


def readable(path: str) -> bool:
    """Say whether a path is one that is read here."""
    try:
        return bool(parse(path))
    except ValueError:
        return False


def find(path: str, value: Json) -> list[Json]:
    """Return what stands at the path, in order; nothing where a step leads nowhere."""
    found = [value]
    for step in parse(path):
        found = [after for before in found for after in _follow(step, before)]
    return found


def _follow(step: Step, value: Json) -> Iterator[Json]:
    kind, word, text = step
    if isinstance(value, dict) and kind == "field" and word in value:
        yield value[word]
    if isinstance(value, dict) and kind == "all":
        yield from value.values()
    if not isinstance(value, list):
        return
    if kind == "all":
        yield from value
    elif kind == "index" and -len(value) <= int(word) < len(value):
        yield value[int(word)]
    elif kind == "filter":
        yield from (item for item in value if text in find(f".{word}", item))

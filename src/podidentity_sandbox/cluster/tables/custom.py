"""The columns of custom resources: those that their definition names.

As in https://github.com/kubernetes/kubernetes/blob/v1.32.3/staging/src/k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache

from podidentity_sandbox.cluster import Json, Obj
from podidentity_sandbox.cluster.tables.columns import AGE, NAME, Cell, Column, since

# ---- The JSONPaths of printer columns
#
# Such as `.spec.type` and `.status.conditions[?(@.type=="Ready")].status`.
# What a definition may use of https://kubernetes.io/docs/reference/kubectl/jsonpath/: fields,
# indices, `[*]` and a comparison of a field with a text.

_STEP = re.compile(
    r"""\.?\[\?\(@\.(?P<of>[\w.-]+)\s*==\s*["'](?P<text>[^"']*)["']\)\]"""
    r"""|\.?\[(?P<index>-?\d+)\]|\.?\[(?P<all>\*)\]|\.?\['(?P<quoted>[^']+)'\]"""
    r"""|\.(?P<field>(?:\\.|[^.\[\]\\])+)"""
)
Step = tuple[str, str, str]
"""The kind of step, and its one or two words."""


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


# ---- The columns


def columns(defined: Sequence[Obj]) -> Sequence[Column]:
    """Return the columns for additionalPrinterColumns; name and age where there are none."""
    if not defined:
        return NAME, AGE
    return NAME, *(_column(each) for each in defined)


def _column(defined: Obj) -> Column:
    path, kind = defined["jsonPath"], defined["type"]
    otherwise = f"Custom resource definition column (in JSONPath format): {path}"
    return Column(
        defined["name"],
        _cell(path, kind),
        type=kind,
        format=defined.get("format", ""),
        description=defined.get("description") or otherwise,
        wide=bool(defined.get("priority")),
    )


def _cell(path: str, kind: str) -> Cell:
    def cell(obj: Obj, now: datetime) -> Json:
        found = find(path, obj)
        return _shown(kind, found[0], now) if found else None

    return cell


def _shown(kind: str, value: Json, now: datetime) -> Json:
    """Return a value in a column of a type; None, an empty cell, where it does not fit."""
    match kind, value:
        case "string", str():
            return value
        case "string", _:
            return json.dumps(value, separators=(",", ":"), sort_keys=True)
        case "date", str():
            return since(value, now)
        case (("integer" | "number"), (int() | float())) if not isinstance(value, bool):
            return int(value) if kind == "integer" else value
        case "boolean", bool():
            return value
    return None

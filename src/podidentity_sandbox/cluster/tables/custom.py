"""The columns of custom resources: those that their definition names.

As in https://github.com/kubernetes/kubernetes/blob/v1.32.3/staging/src/k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime

from podidentity_sandbox.cluster import Json, Obj
from podidentity_sandbox.cluster.tables.columns import AGE, NAME, Cell, Column, since

# ---- The JSONPaths of printer columns
#
# Such as `.spec.type` and `.status.conditions[?(@.type=="Ready")].status`.
# What a definition may use of https://kubernetes.io/docs/reference/kubectl/jsonpath/: fields, all
# items, and those of which a field is a text; others are refused with it.

_STEP = re.compile(
    r"""\.?\[\?\(@\.(?P<of>[\w-]+)\s*==\s*["'](?P<text>[^"']*)["']\)\]"""
    r"""|\.?\[(?P<all>\*)\]|\.(?P<field>(?:\\.|[^.\[\]\\])+)"""
)


def readable(path: str) -> bool:
    """Say whether a path is one that is read here."""
    return re.fullmatch(f"(?:{_STEP.pattern})+", path) is not None


def find(path: str, value: Json) -> list[Json]:
    """Return what stands at the path, in order; nothing where a step leads nowhere."""
    found = [value]
    for step in _STEP.finditer(path):
        if name := step["field"]:
            name = re.sub(r"\\(.)", r"\1", name)
            found = [each[name] for each in found if isinstance(each, dict) and name in each]
            continue
        found = [item for each in found if isinstance(each, list) for item in each]
        if key := step["of"]:
            found = [i for i in found if isinstance(i, dict) and i.get(key) == step["text"]]
    return found


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

"""The columns of custom resources: those that their definition names.

As in https://github.com/kubernetes/kubernetes/blob/v1.32.3/staging/src/k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.tables.ages import since
from podidentity_sandbox.cluster.tables.columns import AGE, CREATED, NAME, Cell, Column
from podidentity_sandbox.cluster.tables.jsonpath import find

_CREATED_PATH = ".metadata.creationTimestamp"


def columns(defined: Sequence[Obj]) -> Sequence[Column]:
    """Return the columns for additionalPrinterColumns; name and age where there are none."""
    if not defined:
        return NAME, AGE
    return NAME, *(_column(each) for each in defined)


def _column(defined: Obj) -> Column:
    path, kind = defined["jsonPath"], defined["type"]
    otherwise = f"Custom resource definition column (in JSONPath format): {path}"
    return Column(
        name=defined["name"],
        type=kind,
        format=defined.get("format", ""),
        description=defined.get("description") or (CREATED if path == _CREATED_PATH else otherwise),
        wide=bool(defined.get("priority")),
        cell=_cell(path, kind),
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

"""Columns of tables, the cells that many kinds have, and ages as the real server words them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any

from podidentity_sandbox.cluster import Json, Obj, selectors
from podidentity_sandbox.cluster.storage import field_of

# ---- Ages: `12s`, `5m3s`, `7d`, as the real server prints them
#
# The steps are those of HumanDuration in
# https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/duration/duration.go

UNKNOWN = "<unknown>"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "y": 365 * 24 * 3600}
"""Seconds."""
_STEPS = (
    *((120, "s", ""), (600, "m", "s"), (3 * 3600, "m", "")),
    *((8 * 3600, "h", "m"), (2 * _UNITS["d"], "h", ""), (8 * _UNITS["d"], "d", "h")),
    *((2 * _UNITS["y"], "d", ""), (8 * _UNITS["y"], "y", "d"), (math.inf, "y", "")),
)
"""Up to how many seconds a duration is said in which unit, and which smaller one beside it."""


def since(stamp: Json, now: datetime) -> str:
    """Return the time from an RFC 3339 stamp to now, UNKNOWN where there is none."""
    if not isinstance(stamp, str):
        return UNKNOWN
    try:
        return lasting((now - datetime.fromisoformat(stamp)).total_seconds())
    except (ValueError, TypeError):
        return "<invalid>"


def lasting(seconds: float) -> str:
    """Return a duration in words, rounded down."""
    if int(seconds) < -1:
        return "<invalid>"
    whole = max(0, int(seconds))
    _, unit, smaller = next(step for step in _STEPS if whole < step[0])
    first, rest = divmod(whole, _UNITS[unit])
    second = rest // _UNITS[smaller] if smaller else 0
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


# ---- Columns

Cell = Callable[[Obj, datetime], Json]
"""The cell of an object at a time."""
NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column, as a TableColumnDefinition; of built-in kinds without a description."""

    name: str
    cell: Cell
    _: KW_ONLY
    type: str = "string"
    format: str = ""
    description: str = ""
    wide: bool = False
    """Shown with `-o wide` only."""

    def definition(self) -> dict[str, Any]:
        """Return the column's definition for the client."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": int(self.wide),
        }


def text(name: str, path: str, *, wide: bool = False, absent: str = "") -> Column:
    """Return a column of one field's text."""
    return Column(name, lambda obj, _: field_of(obj, path) or absent, wide=wide)


def count(name: str, path: str) -> Column:
    """Return a column of one field's number; 0 where the field is not there."""
    return Column(name, lambda obj, _: field_of(obj, path) or 0, type="integer")


def joined(labels: Json) -> str:
    """Return `a=b,c=d`, or <none>, as labels.FormatLabels does."""
    if not isinstance(labels, Mapping) or not labels:
        return NONE
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def selector(found: Json) -> str:
    """Return a label selector as text, as metav1.FormatLabelSelector does."""
    return selectors.text(found or {}) or NONE


NAME = Column("Name", lambda obj, _: field_of(obj, "metadata.name") or "", format="name")
AGE = Column("Age", lambda obj, now: since(field_of(obj, "metadata.creationTimestamp"), now))
CREATED_AT = Column(
    "Created At", lambda obj, _: field_of(obj, "metadata.creationTimestamp") or "", type="date"
)
DEFAULT = (NAME, CREATED_AT)
"""Columns of a kind that has none of its own: roles and definitions."""

"""Columns of tables, the cells that many kinds have, and ages as the real server words them."""

from __future__ import annotations

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
_DAY = 24
_YEAR = 365 * _DAY
"""Hours."""


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
    if seconds < 0:
        return "0s"
    if seconds < 2 * 60:
        return f"{int(seconds)}s"
    minutes = int(seconds / 60)
    if minutes < 3 * 60:
        return _two(minutes, "m", int(seconds) % 60, "s") if minutes < 10 else f"{minutes}m"
    hours = int(seconds / 3600)
    if hours < 8 * _DAY:
        return _some_hours(hours, minutes)
    if hours < 2 * _YEAR:
        return f"{hours // _DAY}d"
    if hours < 8 * _YEAR:
        return _two(hours // _YEAR, "y", hours // _DAY % 365, "d")
    return f"{hours // _YEAR}y"


def _some_hours(hours: int, minutes: int) -> str:
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 2 * _DAY:
        return f"{hours}h"
    return _two(hours // _DAY, "d", hours % _DAY, "h")


def _two(first: int, unit: str, second: int, smaller: str) -> str:
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

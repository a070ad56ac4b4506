"""The row of an object, as tests of tables read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from podidentity_sandbox.cluster.tables.kinds import COLUMNS

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
READY = [{"type": "Ready", "status": "True"}]


def cells(key: str, obj: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of an object's row by the names of their columns."""
    obj.setdefault("metadata", {"name": "a"})
    return {column.name: column.cell(obj, NOW) for column in COLUMNS[key]}

"""Requests as they came, in memory: what leaked, and what was asked too often, is seen here."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

KEPT = 50_000


class Journal:
    """The last 50,000 requests, each with what was answered."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def open(self, **what: object) -> dict[str, Any]:
        """Record a request as it comes in; its status is 0 until it is answered."""
        entry: dict[str, Any] = {**what, "status": 0}
        self._entries.append(entry)
        return entry

    def entries(self) -> list[Mapping[str, Any]]:
        """Return all entries, the oldest first."""
        return list(self._entries)

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()

"""Every request for a token that reached Entra: who asked for what, never with which secret."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

KEPT = 50_000


class Journal:
    """The last 50,000 requests, each with what was answered."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def open(
        self, form: Mapping[str, str], *, host: str, tenant: str, source: str, now: float
    ) -> dict[str, Any]:
        """Record a request as it comes in; its status is 0 until it is answered."""
        entry: dict[str, Any] = {
            "time": now,
            "source": source,
            "host": host,
            "tenant": tenant,
            "grant_type": form.get("grant_type", ""),
            "client_id": form.get("client_id", ""),
            "credential": _credential(form),
            "scope": form.get("scope") or form.get("resource", ""),
            "status": 0,
            "code": 0,
        }
        self._entries.append(entry)
        return entry

    def entries(self) -> list[Mapping[str, Any]]:
        """Return all entries, the oldest first."""
        return list(self._entries)

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()


def _credential(form: Mapping[str, str]) -> str:
    if form.get("client_assertion"):
        return "assertion"
    return "secret" if form.get("client_secret") else ""

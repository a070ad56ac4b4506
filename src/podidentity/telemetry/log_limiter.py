"""A rate limiter of log lines: a client that asks in a loop must not fill the log.

Of one client and kind, a few lines are written in a window of time, and at its end how many more
there were. No client silences another: each may have so many kinds, and those beyond are counted as
one; clients beyond the capacity share one place, in which a few lines are written, too.
"""

from __future__ import annotations

from dataclasses import dataclass

LINES = 5
"""Of a client and a kind, in a window, where nothing else is said."""
WINDOW = 10.0
"""Seconds, from the first line."""
CLIENTS = 512
"""Clients that are told apart."""
KINDS = 16
"""Kinds of one client that are told apart."""
OTHERS = "others"
"""All clients, or kinds, that are not told apart."""


@dataclass(slots=True)
class _Window:
    until: float
    lines: int = 0


class LogLimiter:
    """Counts lines by client and kind; times are of a clock that never goes back."""

    def __init__(self, lines: int = LINES) -> None:
        self._lines = lines
        self._clients: dict[str, dict[str, _Window]] = {}

    def allows(self, client: str, kind: str, now: float) -> bool:
        kinds = self._clients.get(client)
        if kinds is None:
            if len(self._clients) >= CLIENTS:
                self._drop_ended(now)
            if len(self._clients) >= CLIENTS:
                client = OTHERS
            kinds = self._clients.setdefault(client, {})
        if kind not in kinds and len(kinds) >= KINDS:
            kind = OTHERS
        window = kinds.get(kind)
        if window is None or (window.until <= now and window.lines <= self._lines):
            window = kinds[kind] = _Window(now + WINDOW)
        window.lines += 1
        return window.lines <= self._lines

    def pending(self) -> bool:
        """Return whether lines were suppressed whose number is not told yet."""
        return any(
            each.lines > self._lines for kinds in self._clients.values() for each in kinds.values()
        )

    def ended(self, now: float) -> list[tuple[str, str, int]]:
        """Pop the windows that have ended; return client, kind and number of suppressed lines."""
        suppressed: list[tuple[str, str, int]] = []
        for client, kinds in list(self._clients.items()):
            for kind in [kind for kind, each in kinds.items() if each.until <= now]:
                more = kinds.pop(kind).lines - self._lines
                if more > 0:
                    suppressed.append((client, kind, more))
            if not kinds:
                del self._clients[client]
        return suppressed

    def _drop_ended(self, now: float) -> None:
        """Make room; windows with suppressed lines stay until their number is told."""
        for client, kinds in list(self._clients.items()):
            kept = {
                kind: each
                for kind, each in kinds.items()
                if each.until > now or each.lines > self._lines
            }
            if kept:
                self._clients[client] = kept
            else:
                del self._clients[client]

"""How often the same thing is said: a pod that asks in a loop must not fill the log.

Of the same thing a few are said in a window of time, and how many more there were at its end.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

SAID = 5
WINDOW = 10.0
"""Seconds, from the first of a kind."""
KINDS = 1000
"""Kinds that are told apart in a window; of more nothing is said."""

_K = TypeVar("_K", bound=Hashable)


@dataclass(slots=True)
class _Count:
    until: float
    all: int = 0


class Repeats(Generic[_K]):
    """Counts what is said, by kind."""

    def __init__(self) -> None:
        self._counts: dict[_K, _Count] = {}

    def says(self, kind: _K, now: float) -> bool:
        """Return whether to say it, at `now` of a clock that never goes back."""
        count = self._counts.get(kind)
        if count is None or (count.until <= now and count.all <= SAID):
            if count is None and not self._has_room(now):
                return False
            count = self._counts[kind] = _Count(now + WINDOW)
        count.all += 1
        return count.all <= SAID

    def _has_room(self, now: float) -> bool:
        if len(self._counts) < KINDS:
            return True
        self._counts = {
            kind: count
            for kind, count in self._counts.items()
            if count.until > now or count.all > SAID
        }
        return len(self._counts) < KINDS

    def pending(self) -> bool:
        """Return whether something was left unsaid."""
        return any(count.all > SAID for count in self._counts.values())

    def ended(self, now: float) -> list[tuple[_K, int]]:
        """Return how often what was left unsaid, of the windows that have ended; forget them."""
        over = [kind for kind, count in self._counts.items() if count.until <= now]
        counts = [(kind, self._counts.pop(kind).all - SAID) for kind in over]
        return [(kind, more) for kind, more in counts if more > 0]

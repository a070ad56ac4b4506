"""How often something may be done: counters that say how long to wait, and never wait themselves.

Times are `Clock.monotonic` seconds: a clock that is set must neither open a quota nor close it.
"""

from __future__ import annotations

from collections import deque
from math import inf


class Window:
    """At most `most` events in any `seconds`, wherever these begin: how a metered service counts.

    A bucket that refills would let almost twice as many into one such span.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._events: deque[float] = deque()
        self._paused = -inf

    def wait(self, now: float, *, leaving: int = 0) -> float:
        """Return the seconds until one more may be, `leaving` being still free after it."""
        while self._events and self._events[0] + self._seconds <= now:
            self._events.popleft()
        too_many = len(self._events) + 1 + leaving - self._most
        until = self._events[too_many - 1] + self._seconds if too_many > 0 else now
        return max(0.0, until - now, self._paused - now)

    def take(self, now: float) -> None:
        """Count one; it is the caller's that `wait` has said 0."""
        self._events.append(now)

    def pause(self, until: float) -> None:
        """Let none be before `until`: whoever is asked has said so."""
        self._paused = max(self._paused, until)


class Bucket:
    """So many at once, and so many a second in the long run."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, now: float) -> float:
        """Take one and return 0; or return the seconds until there is one, taking none."""
        self._refill(now)
        if self._level < 1:
            return (1 - self._level) / self._rate
        self._level -= 1
        return 0.0

    def full(self, now: float) -> bool:
        """Return whether it is as good as new, and need not be remembered."""
        self._refill(now)
        return self._level >= self._burst

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now

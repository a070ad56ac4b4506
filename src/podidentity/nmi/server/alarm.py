"""A time-out that moves with each request, and costs nothing when it does.

A timer of the event loop for each request would be most of a request's work. So one timer is kept:
when it rings too early, because the time-out has moved meanwhile, it is wound again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf


class Alarm:
    """Calls `ring` once, when the time that was set last is over."""

    __slots__ = ("_due", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._due = inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Ring in so many seconds, and at no time that was set before."""
        due = self._due = self._loop.time() + seconds
        timer = self._timer
        if timer is None or timer.when() > due:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(due, self._rung)

    def stop(self) -> None:
        """Ring no more."""
        self._due = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rung(self) -> None:
        self._timer = None
        due = self._due
        if due <= self._loop.time():
            self._due = inf
            self._ring()
        elif due < inf:
            self._timer = self._loop.call_at(due, self._rung)

"""Azure's patience: when the next call of a kind may go to a subscription, and whose it is.

Azure throttles by subscription and kind of operation, and says for how long. Behind a gate the
hosts wait in one queue, first come, first served, so that none starves. After a `Retry-After` has
ended they do not all run at once: the rate starts below the one that was refused, and grows with
each success. Where calls fail one after the other the subscription is sick: one call at a time
finds out when it is well again.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Any

from podidentity.backoff import backoff

_LEAST = 1.0
"""Calls a second, at least, after a refusal."""
_SLOWER, _FASTER = 0.7, 1.0
"""The part of the rate that a refusal leaves, and the calls a second that each second adds."""
_UNLIMITED = 200.0
"""Calls a second from which on there is no limit of ours."""
_MEASURED = 2.0
"""Seconds over which the rate before the first refusal is measured."""
_SICK = 3
"""Failures in a row that make a subscription sick."""
_LONGEST = 60.0
_UNKNOWN = 10.0
"""Seconds to wait where Azure refuses and does not say how long."""


class Gate:
    """One kind of call to one subscription; times are those of the controller, in seconds."""

    def __init__(self) -> None:
        self.waiting: dict[Any, None] = {}
        """Who waits, in order."""
        self.closed_until = -inf
        """When the next call may go at the earliest; -inf where Azure never refused one."""
        self._rate = inf
        self._next = -inf
        """When the rate allows the next call."""
        self._begun = -inf
        self._passed = 0
        """Successes since `_begun`, to measure the rate."""
        self._failures = 0
        self._probe: Hashable | None = None

    def opens(self) -> float:
        """Return when the next call may go; inf while the result of another is awaited."""
        if self._probe is not None:
            return inf
        return max(self.closed_until, self._next)

    def closed(self, now: float) -> bool:
        return now < self.closed_until

    @property
    def sick(self) -> bool:
        return self._failures >= _SICK

    def admit(self, who: Hashable, now: float) -> bool:
        """Whether `who` may call now; otherwise it waits in the queue, once."""
        is_first = not self.waiting or next(iter(self.waiting)) == who
        if not is_first or self.opens() > now:
            self.waiting[who] = None
            return False
        self.waiting.pop(who, None)
        if self._rate < inf:
            self._next = max(self._next, now) + 1 / self._rate
        if self.sick:
            self._probe = who
        return True

    def leave(self, who: Hashable) -> None:
        """Take `who` out of the queue: it does not want to call any more."""
        self.waiting.pop(who, None)
        if self._probe == who:
            self._probe = None

    def forget(self) -> None:
        """Take that results of calls under way will not come; what Azure asked for stays."""
        self.waiting.clear()
        self._probe = None

    def succeeded(self, now: float) -> None:
        self._failures, self._probe = 0, None
        if self._rate < inf:
            self._rate += _FASTER / self._rate
            if self._rate > _UNLIMITED:
                self._rate, self._next = inf, -inf
        elif now - self._begun > _MEASURED:
            self._begun, self._passed = now, 1
        else:
            self._passed += 1

    def throttled(self, now: float, retry_after: float) -> None:
        """Take that Azure refuses calls for `retry_after` seconds."""
        self._failures, self._probe = 0, None
        until = now + (retry_after or _UNKNOWN)
        if self._rate == inf:
            self._rate = max(_LEAST, _SLOWER * self._passed / _MEASURED)
        elif now >= self.closed_until:
            # Calls that were sent before it closed are refused as well: that counts once.
            self._rate = max(_LEAST, self._rate * _SLOWER)
        self.closed_until = max(self.closed_until, until)

    def failed(self, now: float) -> None:
        """Take that a call had no answer, or none that makes sense."""
        self._failures, self._probe = self._failures + 1, None
        if self.sick:
            pause = backoff(1.0, self._failures - _SICK + 1, _LONGEST)
            self.closed_until = max(self.closed_until, now + pause)

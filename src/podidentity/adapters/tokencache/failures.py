"""Why there was no token a moment ago: repeated to whoever asks, instead of asking again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import ceil

from podidentity.adapters.tokencache.kept import Key
from podidentity.core.caching import remembered
from podidentity.core.errors import TokenThrottled, TokenUnavailable

CAPACITY = 1000
FORGOTTEN = 60.0
"""Seconds after which a failure is no longer the last one's successor."""


@dataclass(frozen=True, slots=True)
class _Failure:
    error: TokenUnavailable
    until: float
    times: int


class Failures:
    """The last failure of each key; times are `Clock.monotonic` seconds."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._all: OrderedDict[Key, _Failure] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def remember(self, key: Key, error: TokenUnavailable, now: float) -> None:
        """Let `error` be repeated for as long as its kind deserves."""
        last = self._all.pop(key, None)
        times = last.times if last and now < last.until + FORGOTTEN else 0
        # Its words say all. What it was raised from holds frames, and these hold answers.
        error.__cause__ = error.__context__ = error.__traceback__ = None
        self._all[key] = _Failure(error, now + remembered(error, times), times + 1)
        if len(self._all) > self._capacity:
            self._all.popitem(last=False)

    def recall(self, key: Key, now: float) -> TokenUnavailable | None:
        """Return the failure that still counts, to be raised."""
        failure = self._all.get(key)
        if failure is None or now >= failure.until:
            return None
        if isinstance(failure.error, TokenThrottled):
            return TokenThrottled(str(failure.error), retry_after=ceil(failure.until - now))
        # Each raise would add to the one that is kept.
        return failure.error.with_traceback(None)

    def forget(self, key: Key) -> None:
        """A token came."""
        self._all.pop(key, None)

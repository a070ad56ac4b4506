"""How often each pod may make somebody be asked: a loop in one pod is not the node's trouble.

What is kept costs nothing, however often it is asked for.
"""

from __future__ import annotations

from math import ceil

from podidentity.core.errors import TokenThrottled
from podidentity.core.rate_limits import TokenBucket

RATE = 2.0
BURST = 10.0
"""A pod that starts asks for a few audiences of a few identities at once."""
_MANY = 256


class Budgets:
    """A budget for each pod, by its uid; times are `Clock.monotonic` seconds."""

    def __init__(self, *, rate: float = RATE, burst: float = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}
        self._many = _MANY

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, uid: str, now: float) -> None:
        """Count one; raise TokenThrottled where the pod has had enough for now."""
        bucket = self._buckets.get(uid)
        if bucket is None:
            self._forget(now)
            bucket = self._buckets[uid] = TokenBucket(self._rate, self._burst, now)
        wait = bucket.take(now)
        if wait > 0:
            raise TokenThrottled(
                "The pod asks for new tokens too often; those that it has had are answered.",
                retry_after=ceil(wait),
                of_caller=True,
            )

    def _forget(self, now: float) -> None:
        """Drop those that are full again, whenever there are twice as many as were left."""
        if len(self._buckets) >= self._many:
            left = {uid: each for uid, each in self._buckets.items() if not each.full(now)}
            self._buckets = left
            self._many = max(_MANY, 2 * len(left))

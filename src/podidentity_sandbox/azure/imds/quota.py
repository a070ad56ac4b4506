"""The limits that IMDS sets for each virtual machine: so many requests a second, so many at once.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#rate-limiting
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from podidentity_sandbox.azure.imds.rules import ImdsError

IDENTITY_RATE = 20
IDENTITY_AT_ONCE = 5
GENERAL_RATE = 5


class Quota:
    """The requests of one machine in the last second, and those under way."""

    def __init__(self, rate: int, at_once: int | None = None) -> None:
        self._rate = rate
        self._at_once = at_once
        self._served: deque[float] = deque()
        self._under_way = 0

    @contextmanager
    def request(self, now: float) -> Iterator[None]:
        """Hold one place while a request is served; raise ImdsError 429 where there is none."""
        while self._served and self._served[0] <= now - 1:
            self._served.popleft()
        busy = self._at_once is not None and self._under_way >= self._at_once
        if busy or len(self._served) >= self._rate:
            raise ImdsError(429, "too_many_requests", "Too many requests")
        self._served.append(now)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

"""What IMDS allows a node, kept by construction: whoever would exceed it waits his turn.

All pods of a node share one quota, and a 429 of IMDS would be the answer to a pod that did nothing
wrong. So a node that starts with all its pods at once asks at the pace that IMDS allows, in the
order of their requests, and refuses by itself only what could not be answered in time.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#rate-limiting
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#retry-guidance
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil

from podidentity.core.errors import TokenThrottled
from podidentity.core.pacing import Window
from podidentity.core.ports import Clock

RATE = 20
"""Token requests in a second."""
AT_ONCE = 5
GENERAL_RATE = 5
"""Other requests in a second."""
SPAN = 1.1
"""Seconds that we take for one: two requests arrive closer together than they were sent."""
MOST_WAITING = 150
"""At the pace above the last one's turn comes in time for its client's ten seconds."""


class Quota:
    """So many requests a second, so many at once, in the order of their asking."""

    def __init__(self, rate: int, clock: Clock, *, most_waiting: int = MOST_WAITING) -> None:
        self._clock = clock
        self._window = Window(rate, SPAN)
        self._reserve = rate // 2
        self._places = asyncio.Semaphore(AT_ONCE)
        self._row = asyncio.Lock()
        self._most_waiting = most_waiting
        self._waiting = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @asynccontextmanager
    async def turn(self, patience: float) -> AsyncIterator[None]:
        """Hold a place while IMDS is asked, at the moment from which that is allowed.

        Raises TokenThrottled at once where that is not within `patience` seconds.
        """
        self._refuse_what_comes_too_late(patience)
        await self._wait()
        try:
            yield
        finally:
            self._places.release()

    def pause(self, seconds: float) -> None:
        """IMDS has said that it wants no request for so long."""
        self._window.pause(self._clock.monotonic() + seconds)

    async def spare(self) -> None:
        """Return when nobody waits and half of a second's requests are left."""
        while True:
            await self._quiet.wait()
            wait = self._window.wait(self._clock.monotonic(), leaving=self._reserve)
            if wait <= 0:
                return
            await self._clock.sleep(wait)

    def _refuse_what_comes_too_late(self, patience: float) -> None:
        wait = self._window.wait(self._clock.monotonic())
        if self._waiting >= self._most_waiting or wait > patience:
            raise TokenThrottled(
                "The node's pods ask IMDS for more than it allows a node.",
                retry_after=max(1, ceil(wait)),
            )

    async def _wait(self) -> None:
        """Take a place, and then a request of this second's; first come, first served."""
        self._waiting += 1
        self._quiet.clear()
        try:
            await self._places.acquire()
            try:
                await self._count()
            except BaseException:
                self._places.release()
                raise
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._quiet.set()

    async def _count(self) -> None:
        async with self._row:
            while (wait := self._window.wait(self._clock.monotonic())) > 0:
                await self._clock.sleep(wait)
            self._window.take(self._clock.monotonic())

"""IMDS's rate limit for a node, shared fairly by the node's namespaces and pods.

All pods of a node share one limit, and IMDS would answer 429 to a pod that did nothing wrong. So
requests are queued and sent at the rate that IMDS allows. Namespaces take turns, and within a
namespace its pods: a tenant with many pods delays a neighbour by one turn. A request is refused at
once only if it could not be answered in time, or if its pod or namespace has too many in the queue.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#rate-limiting
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#retry-guidance
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil

from podidentity.core.errors import TokenThrottled
from podidentity.core.ports import Clock
from podidentity.core.rate_limits import FairQueue, Flow, SlidingWindow

RATE = 20
"""Token requests in a second."""
AT_ONCE = 5
GENERAL_RATE = 5
"""Other requests in a second."""
SPAN = 1.1
"""Seconds of the window; 10 % more than IMDS's second, because requests may arrive closer together
than they were sent."""
MOST_OF_POD = 30
"""Queued requests of one pod. Its budget of cache misses is ten at once, and two a second."""
MOST_OF_NAMESPACE = 150
"""Queued requests of one namespace: at the rate above they take eight seconds."""


FOR_TURN = 0.9
"""Part of a request's time in which its turn must come; the rest is for the answer."""


class Quota:
    """A limit of requests a second and at once, with a fair queue."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._clock = clock
        self._window = SlidingWindow(rate, SPAN)
        self._reserve = rate // 2
        self._places = AT_ONCE
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(
            most_of_pod=MOST_OF_POD, most_of_namespace=MOST_OF_NAMESPACE
        )
        self._idle = asyncio.Event()
        """Set while nothing waits."""
        self._idle.set()
        self._timer: asyncio.Task[None] | None = None
        """Sleeps until the window has room again."""

    async def close(self) -> None:
        """Cancel the timer; no queued request is sent any more."""
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)

    @asynccontextmanager
    async def turn(self, flow: Flow, seconds: float) -> AsyncIterator[None]:
        """Wait in the queue for a turn of `flow`, and hold it during the block.

        Raises TokenThrottled if the turn does not come early enough to get an answer within
        `seconds`; at once, if that is known at the start.
        """
        seconds *= FOR_TURN
        turn = self._enqueued(flow, seconds)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.cancelled():
                self._queue.remove(flow, turn)
                self._mark_idle()
            else:
                # It came in this very moment.
                self._release()
            if isinstance(error, TimeoutError):
                raise _too_much(seconds) from None
            raise
        try:
            yield
        finally:
            self._release()

    def pause(self, seconds: float) -> None:
        """Send nothing for `seconds`: IMDS has asked for it."""
        self._window.pause(self._clock.monotonic() + seconds)

    async def spare(self) -> None:
        """Return when the queue is empty and half of a second's requests are left."""
        while True:
            await self._idle.wait()
            wait = self._window.wait(self._clock.monotonic(), leaving=self._reserve)
            if wait <= 0:
                return
            await self._clock.sleep(wait)

    def _enqueued(self, flow: Flow, seconds: float) -> asyncio.Future[None]:
        turns = self._queue.ahead(flow) / self._window.rate
        wait = self._window.wait(self._clock.monotonic()) + turns
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if wait > seconds or not self._queue.put(flow, turn):
            raise _too_much(wait)
        self._idle.clear()
        self._dispatch()
        return turn

    def _release(self) -> None:
        self._places += 1
        self._dispatch()

    def _dispatch(self) -> None:
        """Give turns to queued requests; set the timer if the window is full."""
        while self._places and len(self._queue):
            now = self._clock.monotonic()
            wait = self._window.wait(now)
            if wait > 0:
                self._wake_in(wait)
                return
            turn = self._queue.pop()
            self._mark_idle()
            # Its request may have been cancelled at this moment.
            if not turn.cancelled():
                self._window.take(now)
                self._places -= 1
                turn.set_result(None)

    def _wake_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.create_task(self._sleep(seconds))

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer = None
        self._dispatch()

    def _mark_idle(self) -> None:
        if not len(self._queue):
            self._idle.set()


def _too_much(wait: float) -> TokenThrottled:
    return TokenThrottled(
        "The pod, and its namespace, ask IMDS for more than their share.",
        retry_after=max(1, ceil(wait)),
        of_caller=True,
    )

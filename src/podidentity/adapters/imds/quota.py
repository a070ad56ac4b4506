"""What IMDS allows a node, kept by construction and shared by the node's namespaces and pods.

All pods of a node share one quota, and a 429 of IMDS would be the answer to a pod that did nothing
wrong. So a node that starts with all its pods at once asks at the pace that IMDS allows. Namespaces
take turns, and within a namespace its pods: a tenant delays a neighbour by a turn, with however
many pods it asks. Refused at once is only what could not be answered in time, and what a pod or a
namespace asks for beyond its bound.

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
"""Requests of one pod that wait. Its budget lets it begin ten at once, and two a second."""
MOST_OF_NAMESPACE = 150
"""Requests of one namespace that wait: at the pace above, what is answered within eight seconds."""


FOR_TURN = 0.9
"""Part of a request's time in which its turn must come; the rest is for the answer."""


class Quota:
    """So many requests a second and so many at once, by turns."""

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
        """End the timer; nothing is let through any more."""
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)

    @asynccontextmanager
    async def turn(self, flow: Flow, seconds: float) -> AsyncIterator[None]:
        """Hold a place while IMDS is asked, from the moment on at which `flow` may ask.

        Raises TokenThrottled if that moment does not come early enough within `seconds` for an
        answer; at once, if that can be told.
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
        """IMDS has said that it wants no request for so long."""
        self._window.pause(self._clock.monotonic() + seconds)

    async def spare(self) -> None:
        """Return when nothing waits and half of a second's requests are left."""
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
        """Let through what may ask now; come back when more may."""
        while self._places and len(self._queue):
            now = self._clock.monotonic()
            wait = self._window.wait(now)
            if wait > 0:
                self._wake_in(wait)
                return
            turn = self._queue.pop()
            self._mark_idle()
            # It may have left in this very moment.
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

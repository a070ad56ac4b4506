"""Waiting for what the watch has not told us yet, on the clock that a test can turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from podidentity.core.ports import Clock, Cluster

_T = TypeVar("_T")


async def within(event: Coroutine[Any, Any, object], clock: Clock, seconds: float) -> None:
    """Return when `event` has come, or after so many seconds; `event` ends with that."""
    waits = {asyncio.ensure_future(event), asyncio.ensure_future(clock.sleep(seconds))}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def change_within(cluster: Cluster, clock: Clock, seconds: float) -> None:
    """Return at the next change of the cluster, or after so many seconds."""
    await within(cluster.changed(), clock, seconds)


async def awaited(
    look: Callable[[], _T | None], cluster: Cluster, clock: Clock, seconds: float
) -> _T | None:
    """Return what `look` finds, at once or after a change; None if nothing in so many seconds."""
    deadline = clock.monotonic() + seconds
    while not (found := look()):
        left = deadline - clock.monotonic()
        if left <= 0:
            return None
        await change_within(cluster, clock, left)
    return found

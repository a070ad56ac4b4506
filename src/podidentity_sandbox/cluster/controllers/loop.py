"""The queue of changes, and the one task that hands each to every controller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Change, Storage

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0


class Controller(Protocol):
    """Reacts to changes. It never waits: it acts at once, or at a later change."""

    def react(self, change: Change) -> None:
        """Do what follows from a change; of types that do not concern it, nothing."""


Later = Callable[[float, Callable[[], None]], None]
"""Does something after so many seconds."""


def later(seconds: float, what: Callable[[], None]) -> None:
    """Do something after so many seconds; never in a cluster that is only stepped through."""
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop().call_later(seconds, what)


class Loop:
    """Takes changes from the storage as they happen, and lets the controllers react."""

    def __init__(self, storage: Storage, controllers: Sequence[Controller]) -> None:
        self._queue: asyncio.Queue[Change] = asyncio.Queue()
        self._controllers = controllers
        storage.observers.append(self._queue.put_nowait)

    async def run(self) -> None:
        while True:
            self._react(await self._queue.get())
            await asyncio.sleep(0)  # a chain of reactions must not keep the clients waiting

    def settle(self) -> None:
        """React to all that has happened, and to what follows from it, before anything else."""
        while not self._queue.empty():
            self._react(self._queue.get_nowait())

    def _react(self, change: Change) -> None:
        for controller in self._controllers:
            try:
                controller.react(change)
            except (AttributeError, KeyError, TypeError, ValueError):
                # Of an object in which a field is of another type than its own.
                log.exception("on %s %s", change.key, change.record.name)
            except StatusError as error:
                # Such as a namespace that began to terminate: the next change brings it right.
                name = type(controller).__name__
                log.info("%s on %s %s: %s", name, change.key, change.record.name, error)
                if error.code >= 500:  # no space: nothing more may change until it is tried again
                    later(RETRY_SECONDS, partial(self._queue.put_nowait, change))

"""Told to stop, `net` and `serve` end in an order in which no request is lost.

`serve` is a raw client here, and what guards the rules is a fake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from podidentity.net import main as ending
from podidentity.wire import net as wire
from tests.net.talk import Net, RawClient, net


class FakeLock:
    """Holds the lock of the rules; another agent may be there to take it back."""

    def __init__(self, *, holds: bool = True, goes_back: bool = False) -> None:
        self.holds = holds
        self.goes_back = goes_back
        self.ends = False

    def take_no_more(self) -> None:
        self.ends = True


class FakeGuard:
    """Notes when the rules went that lead pods here."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def release(self) -> None:
        self.released.set()


class Ending:
    """A `net` that was told to stop, and its `serve`."""

    def __init__(self, running: Net, serve: RawClient, lock: FakeLock, *, removes: bool) -> None:
        self.serve = serve
        self.lock = lock
        self.guard = FakeGuard()
        self._server = running.server
        kept: Any = self.guard
        locked: Any = lock
        self.task = asyncio.create_task(
            ending.end_in_order(running.server, kept, locked, self._tell, removes=removes)
        )

    def _tell(self) -> None:
        self._server.tell(wire.State(removed=True))

    async def serve_ends(self) -> bool:
        """Have `serve` end; return whether the rules are to go now."""
        self.serve.socket.close()
        async with asyncio.timeout(60):
            return await self.task


@asynccontextmanager
async def told_to_stop(
    folder: Path, lock: FakeLock | None = None, *, removes: bool = True
) -> AsyncIterator[Ending]:
    async with net(folder) as running:
        serve = running.client()
        await serve.greet()
        found = Ending(running, serve, lock or FakeLock(), removes=removes)
        try:
            yield found
        finally:
            found.task.cancel()


async def answered(serve: RawClient) -> None:
    """Return when `net` has read all that it was told."""
    await serve.say(wire.Questions((wire.Question(1, "10.244.0.2", 40000),)))
    while not isinstance(await serve.hear(), wire.FactsAnswers):
        pass


async def test_rules_go_before_serve_ends_and_it_is_told(tmp_path: Path) -> None:
    async with told_to_stop(tmp_path) as stopped:
        await answered(stopped.serve)
        assert not stopped.guard.released.is_set(), "serve may know who follows"
        await stopped.serve.say(wire.Leaving())
        assert await stopped.serve.hear() == wire.State(removed=True)
        assert stopped.guard.released.is_set()
        await answered(stopped.serve)
        assert not stopped.task.done(), "what serve has in its hands is proved"
        assert stopped.lock.ends
        assert await stopped.serve_ends()


async def test_without_a_serve_they_go_at_once(tmp_path: Path) -> None:
    async with told_to_stop(tmp_path) as stopped:
        assert await stopped.serve_ends()
        assert stopped.guard.released.is_set()


async def test_a_serve_that_says_nothing_has_them_stay_while_its_time_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "LAST_SECONDS", 0.05)
    async with told_to_stop(tmp_path) as stopped:
        assert await stopped.task
        assert not stopped.guard.released.is_set(), "they go when guarding has ended"


@pytest.mark.parametrize(
    ("lock", "removes"),
    [
        (FakeLock(), False),
        (FakeLock(holds=False), True),
        (FakeLock(goes_back=True), True),
    ],
    ids=["as nobody said otherwise", "they are the next agent's", "the agent before takes them"],
)
async def test_they_stay(tmp_path: Path, lock: FakeLock, *, removes: bool) -> None:
    async with told_to_stop(tmp_path, lock, removes=removes) as stopped:
        await stopped.serve.say(wire.Leaving())
        await answered(stopped.serve)
        assert not await stopped.serve_ends()
        assert not stopped.guard.released.is_set()


async def test_what_serve_says_removes_nothing_before_net_is_told_to_stop(tmp_path: Path) -> None:
    async with net(tmp_path) as running:
        serve = running.client()
        await serve.greet()
        await serve.say(wire.Leaving())
        await answered(serve)
        found = Ending(running, serve, FakeLock(), removes=True)
        assert not found.guard.released.is_set()
        async with asyncio.timeout(60):
            await found.guard.released.wait()
        assert await found.serve_ends()


async def test_of_a_serve_that_was_started_again_nothing_is_known(tmp_path: Path) -> None:
    """It was told to stop alone; the next one may leave to a successor."""
    async with net(tmp_path) as running:
        first = running.client()
        await first.greet()
        await first.say(wire.Leaving())
        await answered(first)
        second = running.client()
        await second.greet()
        first.socket.close()
        async with asyncio.timeout(60):
            while len(running.server._clients) > 1:  # noqa: ASYNC110 - it has no event for that
                await asyncio.sleep(0)
        found = Ending(running, second, FakeLock(), removes=True)
        await answered(second)
        assert not found.guard.released.is_set()
        found.task.cancel()

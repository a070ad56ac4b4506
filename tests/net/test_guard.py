"""The rules of the node are guarded while that is wanted, by fakes of what guards them."""

from __future__ import annotations

import asyncio
from typing import Any

from podidentity.net.main import Guard
from tests.fakes import FakeClock


class FakeGuard:
    """Stands for the interception and for the source guard; notes what becomes of it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = asyncio.Event()

    def install(self) -> None:
        self.events.append("installed")

    async def guard(self) -> None:
        await asyncio.Event().wait()

    def refresh(self) -> None:
        self.events.append("refreshed")

    async def run(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("ended")

    def close(self) -> None:
        self.events.append("closed")


async def guarding() -> tuple[FakeGuard, Guard, asyncio.Task[None]]:
    fake: Any = FakeGuard()
    guard = Guard(fake, FakeClock())
    guard.sources = lambda: fake
    running = asyncio.create_task(guard.run())
    await guard.begin()
    await fake.begun.wait()
    return fake, guard, running


ALL = ["installed", "refreshed", "ended", "closed"]


async def test_told_to_stop_it_closes_what_talks_to_the_kernel_after_that_has_ended() -> None:
    fake, _, running = await guarding()
    running.cancel()
    await asyncio.wait({running})
    assert fake.events == ALL


async def test_rules_that_go_to_another_agent_are_guarded_no_more() -> None:
    fake, guard, running = await guarding()
    await guard.end()
    assert fake.events == ALL
    fake.begun.clear()
    await guard.begin()
    await fake.begun.wait()
    assert fake.events == [*ALL, "installed", "refreshed"]
    running.cancel()
    await asyncio.wait({running})
    assert fake.events == [*ALL, *ALL]

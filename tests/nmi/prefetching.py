"""A node on which pods appear, and what is fetched for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.token_cache import TokenCache
from podidentity.core.resources import IdentityType
from podidentity.nmi.sync.prefetch import Prefetcher, PrefetchPolicy
from tests.fakes import FakeClock, FakePermissions, FakeTokenSource, binding, cluster, identity


class World:
    """A node on which pods appear."""

    def __init__(self, *objects: Any, synced: bool = True, **policy: Any) -> None:
        self.clock = FakeClock()
        self.cluster = cluster(self.clock, *objects) if synced else WatchedCluster(self.clock)
        self.source = FakeTokenSource()
        self.cache = TokenCache(dict.fromkeys(IdentityType, self.source), self.clock)
        self.permissions = FakePermissions()
        self.spared = asyncio.Event()
        self.spared.set()
        self.looked = 0
        self.prefetcher = Prefetcher(
            cluster=self.cluster,
            tokens=self.cache,
            permissions=self.permissions,
            spare=self.spare,
            clock=self.clock,
            policy=PrefetchPolicy(**policy),
        )
        self.cluster.follow(self.prefetcher.changed)

    async def spare(self) -> None:
        self.looked += 1
        await self.spared.wait()

    async def fetched(self) -> list[str]:
        """Return the audiences that were asked for, all that is due being done."""
        for _ in range(100):
            await asyncio.sleep(0)
        return [resource for _, resource, _ in self.source.asked]


@asynccontextmanager
async def running(*objects: Any, **policy: Any) -> AsyncIterator[World]:
    world = World(*(objects or (identity(), binding())), **policy)
    task = asyncio.create_task(world.prefetcher.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await world.cache.close()

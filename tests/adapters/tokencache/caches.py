"""A cache with a fake clock and a scripted issuer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from podidentity.adapters.tokencache import TokenCache
from podidentity.core.tokens import Grant, Origin
from tests.fakes import VAULT, FakeClock, FakeTokenSource, grant

HOUR = 3600


@dataclass
class World:
    """A cache with its clock and issuer."""

    cache: TokenCache
    clock: FakeClock
    source: FakeTokenSource

    async def fetch(
        self, resource: str = VAULT, *, of: Grant | None = None, bypass: bool = False
    ) -> tuple[str, Origin]:
        """Return the text of a token, and where it came from."""
        found = await self.cache.fetch(of or grant(), resource, bypass_cache=bypass)
        return found.token.value, found.origin


@asynccontextmanager
async def caching(
    *, life: int = HOUR, jitter: Callable[[], float] = lambda: 0.0, **options: Any
) -> AsyncIterator[World]:
    """Run a cache before a source whose tokens have that life."""
    clock, source = FakeClock(), FakeTokenSource(life=life)
    source.now = clock.time
    cache = TokenCache(source, clock, jitter=jitter, **options)
    try:
        yield World(cache, clock, source)
    finally:
        await cache.close()

"""What a node's pods cost those who issue tokens."""

from __future__ import annotations

import asyncio

from podidentity.core.ids import ClientId
from podidentity.core.ports import Origin
from podidentity.core.tokens import Grant
from tests.adapters.tokencache.caches import HOUR, caching
from tests.fakes import OTHER_CLIENT, VAULT, grant, identity, pod

IDENTITIES = [
    identity(f"i{number}", client_id=ClientId.parse(f"{number:08d}" + OTHER_CLIENT[8:]))
    for number in range(20)
]
PODS = [grant(IDENTITIES[n % 20], pod=pod(f"p{n}")) for n in range(110)]

# Each of them, again and again, in an order that mixes them.
REQUESTS = [PODS[n * 37 % 110] for n in range(10_000)]


async def asked_for(grants: list[Grant], *, life: int, seconds: float) -> int:
    """Return how many tokens were issued to those who asked one after the other in that time."""
    async with caching(life=life, jitter=lambda: 0.5) as world:
        for each in grants:
            await world.fetch(VAULT, of=each)
            await world.cache.settled()
            world.clock.advance(seconds / len(grants))
    return len(world.source.asked)


async def test_ten_thousand_requests_of_twenty_identities_cost_twenty_tokens_an_hour() -> None:
    assert await asked_for(REQUESTS, life=24 * HOUR, seconds=HOUR) == 20
    assert await asked_for(REQUESTS, life=HOUR, seconds=0.9 * 3000) == 20


async def test_a_day_costs_a_token_for_each_half_life() -> None:
    assert await asked_for(REQUESTS, life=24 * HOUR, seconds=24 * HOUR) == 60


async def test_a_node_that_starts_all_its_pods_at_once_asks_once_for_each_identity() -> None:
    async with caching() as world:
        answers = await asyncio.gather(*(world.fetch(VAULT, of=each) for each in PODS))
    assert len(world.source.asked) == 20
    assert sum(origin is Origin.SHARED for _, origin in answers) == 90

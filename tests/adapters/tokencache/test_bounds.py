"""No pod takes from the others: neither memory, nor the issuers' patience."""

from __future__ import annotations

import pytest

from podidentity.core.errors import TokenThrottled
from podidentity.core.tokens import Origin
from tests.adapters.tokencache.caches import World, caching
from tests.fakes import grant, pod

QUIET = grant(pod=pod("quiet"))
GREEDY = grant(pod=pod("greedy"))


async def slowly(world: World, resource: str) -> Origin:
    """Ask for something at a pace that no budget minds."""
    world.clock.advance(0.5)
    return (await world.fetch(resource, of=GREEDY))[1]


async def test_what_was_not_used_for_longest_makes_room() -> None:
    async with caching(capacity=3) as world:
        for resource in ("a", "b", "c", "a", "d"):
            await slowly(world, resource)
        assert await slowly(world, "a") is Origin.CACHE
        assert await slowly(world, "b") is Origin.IMDS


async def test_a_pod_that_asks_for_a_thousand_audiences_loses_its_own() -> None:
    async with caching(capacity_of_pod=8) as world:
        for number in range(4):
            await world.fetch(f"quiet-{number}", of=QUIET)
        for number in range(1000):
            await slowly(world, f"greedy-{number}")
        assert len(world.cache) == 4 + 8
        for number in range(4):
            assert (await world.fetch(f"quiet-{number}", of=QUIET))[1] is Origin.CACHE


async def test_many_pods_together_stay_within_the_whole() -> None:
    async with caching(capacity=50) as world:
        for number in range(500):
            await world.fetch(f"r{number}", of=grant(pod=pod(f"p{number}")))
        assert len(world.cache) == 50


async def test_who_renews_what_another_fetched_does_not_take_it_over() -> None:
    async with caching(capacity_of_pod=2) as world:
        await world.fetch("shared", of=QUIET)
        await world.fetch("shared", of=GREEDY, bypass=True)
        for number in range(5):
            await slowly(world, f"r{number}")
        assert (await world.fetch("shared", of=QUIET))[1] is Origin.CACHE


async def test_misses_beyond_the_budget_are_that_pods_trouble_alone() -> None:
    async with caching() as world:
        for number in range(10):
            await world.fetch(f"r{number}", of=GREEDY)
        with pytest.raises(TokenThrottled, match="too often") as found:
            await world.fetch("one more", of=GREEDY)
        assert found.value.retry_after == 1
        assert (await world.fetch("one more", of=QUIET))[1] is Origin.IMDS
        world.clock.advance(0.5)
        assert (await world.fetch("another", of=GREEDY))[1] is Origin.IMDS


async def test_hits_count_for_nothing() -> None:
    async with caching() as world:
        for _ in range(1000):
            await world.fetch("r", of=GREEDY)
        for number in range(9):
            await world.fetch(f"r{number}", of=GREEDY)


async def test_bypassing_is_within_the_budget() -> None:
    async with caching() as world:
        for number in range(10):
            await world.fetch(f"r{number}", of=GREEDY, bypass=True)
        with pytest.raises(TokenThrottled):
            await world.fetch("one more", of=GREEDY, bypass=True)
    assert len(world.source.asked) == 10


async def test_what_must_be_read_first_is_within_the_budget_and_counts_once() -> None:
    async with caching() as world:
        world.source.unread = True
        for number in range(10):
            await world.fetch(f"r{number}", of=GREEDY)
        with pytest.raises(TokenThrottled):
            await world.fetch("one more", of=GREEDY)

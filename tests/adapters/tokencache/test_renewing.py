"""A token in use is renewed in the background; a jump of the clock prolongs none."""

from __future__ import annotations

import pytest

from podidentity.core.errors import TokenRefused, TokenSourceDown, TokenThrottled
from podidentity.core.tokens import Origin
from tests.adapters.tokencache.caches import HOUR, World, caching
from tests.fakes import NOW, VAULT, grant

DAY = 24 * HOUR


async def test_a_token_of_a_day_is_renewed_at_half_of_it_while_its_user_has_the_old_one() -> None:
    async with caching(life=DAY) as world:
        await world.fetch()
        world.clock.advance(DAY / 2 - 1)
        assert await world.fetch() == ("token-1", Origin.CACHE)
        assert len(world.source.asked) == 1
        world.clock.advance(1)
        assert await world.fetch() == ("token-1", Origin.CACHE)
        await world.cache.settled()
        assert await world.fetch() == ("token-2", Origin.CACHE)


async def test_a_token_of_an_hour_is_renewed_before_its_users_would_refuse_it() -> None:
    async with caching() as world:
        await world.fetch()
        world.clock.advance(HOUR - 600)
        assert await world.fetch() == ("token-1", Origin.CACHE)
        await world.cache.settled()
        assert await world.fetch() == ("token-2", Origin.CACHE)


async def test_what_nobody_uses_is_not_renewed() -> None:
    async with caching() as world:
        await world.fetch()
        for _ in range(100):
            world.clock.advance(HOUR)
            await world.cache.settled()
        assert len(world.source.asked) == 1


async def test_a_token_with_less_than_five_minutes_is_fetched_first() -> None:
    async with caching() as world:
        await world.fetch()
        world.clock.advance(HOUR - 300)
        assert await world.fetch() == ("token-2", Origin.IMDS)


async def test_tokens_that_came_at_once_are_not_renewed_at_once() -> None:
    draws = iter([0.0, 1.0])
    async with caching(life=DAY, jitter=lambda: next(draws)) as world:
        await world.fetch("a")
        await world.fetch("b")
        kept = [world.cache.cached(grant(), resource) for resource in ("a", "b")]
    assert [one.fresh_until for one in kept if one] == [DAY / 2, 0.9 * DAY / 2]


async def test_a_renewal_that_fails_is_tried_again_after_half_a_minute_and_no_sooner() -> None:
    async with caching(life=DAY) as world:
        await world.fetch()
        world.clock.advance(DAY / 2)
        for _ in range(3):
            world.source.failures.append(TokenSourceDown("away"))
        for _ in range(90):
            assert await world.fetch() == ("token-1", Origin.CACHE)
            await world.cache.settled()
            world.clock.advance(1)
        assert len(world.source.asked) == 1 + 3


async def test_a_renewal_waits_as_long_as_the_source_has_said() -> None:
    async with caching(life=DAY) as world:
        await world.fetch()
        world.clock.advance(DAY / 2)
        world.source.failures.append(TokenThrottled("slow down", retry_after=100))
        for _ in range(100):
            await world.fetch()
            await world.cache.settled()
            world.clock.advance(1)
        assert len(world.source.asked) == 2


async def test_a_refused_renewal_leaves_the_token_as_long_as_it_is_good() -> None:
    async with caching() as world:
        await world.fetch()
        world.clock.advance(HOUR - 600)
        world.source.failures.append(TokenRefused("no", status=400, error="invalid_request"))
        assert await world.fetch() == ("token-1", Origin.CACHE)
        await world.cache.settled()
        assert await world.fetch() == ("token-1", Origin.CACHE)


async def test_what_is_fresh_says_until_when_on_both_clocks() -> None:
    async with caching(life=DAY) as world:
        assert world.cache.cached(grant(), VAULT) is None
        await world.fetch()
        kept = world.cache.cached(grant(), VAULT)
        assert kept is not None
        assert (kept.fresh_until, kept.fresh_until_time) == (DAY / 2, NOW + DAY / 2)
        world.clock.advance(DAY / 2)
        assert world.cache.cached(grant(), VAULT) is None


async def test_what_was_replaced_is_fresh_no_more() -> None:
    async with caching() as world:
        await world.fetch()
        kept = world.cache.cached(grant(), VAULT)
        await world.fetch(bypass=True)
        assert kept is not None
        assert kept.fresh_until < 0
        assert kept.fresh_until_time < 0


async def last_answers(world: World, jump: float) -> list[str]:
    """Return the answers of each minute of three hours after a jump of the clock."""
    answers = []
    await world.fetch()
    world.clock.jump(jump)
    for _ in range(180):
        answers.append((await world.fetch())[0])
        await world.cache.settled()
        world.clock.advance(60)
    return answers


@pytest.mark.parametrize("jump", [-DAY, -HOUR, -60.0, 0.0, 60.0, HOUR, DAY])
async def test_however_the_clock_jumps_no_token_is_given_longer_than_it_lives(jump: float) -> None:
    async with caching() as world:
        answers = await last_answers(world, jump)
    most = HOUR // 60 - 5
    assert all(answers.count(each) <= most for each in set(answers))
    assert len(world.source.asked) in {4, 5}

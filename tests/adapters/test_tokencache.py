from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from podidentity.adapters.tokencache import TokenCache
from podidentity.core.errors import TokenRefused, TokenSourceDown, TokenThrottled, TokenUnavailable
from podidentity.core.ids import ClientId
from podidentity.core.ports import Origin
from tests.fakes import OTHER_CLIENT, VAULT, FakeClock, FakeTokenSource, grant, identity

HOUR = 3600


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def source(clock: FakeClock) -> FakeTokenSource:
    source = FakeTokenSource(life=HOUR)
    source.now = clock.time
    return source


@pytest.fixture
async def cache(clock: FakeClock, source: FakeTokenSource) -> AsyncIterator[TokenCache]:
    cache = TokenCache(source, clock, capacity=3)
    yield cache
    await cache.close()


async def fetch(cache: TokenCache, resource: str = VAULT) -> tuple[str, Origin]:
    token, origin = await cache.fetch(grant(), resource)
    return token.value, origin


async def test_a_second_request_is_answered_from_memory(cache: TokenCache) -> None:
    assert await fetch(cache) == ("token-1", Origin.IMDS)
    assert await fetch(cache) == ("token-1", Origin.CACHE)


async def test_another_resource_or_client_is_another_token(cache: TokenCache) -> None:
    other = identity(client_id=ClientId.parse(OTHER_CLIENT))
    assert await fetch(cache) == ("token-1", Origin.IMDS)
    assert await fetch(cache, VAULT + "/") == ("token-2", Origin.IMDS)
    assert (await cache.fetch(grant(other), VAULT))[0].value == "token-3"


async def test_a_token_with_less_than_five_minutes_is_fetched_anew(
    cache: TokenCache, clock: FakeClock
) -> None:
    await fetch(cache)
    clock.advance(HOUR - 301)
    assert await fetch(cache) == ("token-1", Origin.CACHE)
    clock.advance(1)
    assert await fetch(cache) == ("token-2", Origin.IMDS)


async def test_a_token_of_a_short_life_is_kept_for_half_of_it(
    cache: TokenCache, clock: FakeClock, source: FakeTokenSource
) -> None:
    source.life = 60
    await fetch(cache)
    clock.advance(29)
    assert await fetch(cache) == ("token-1", Origin.CACHE)
    clock.advance(1)
    assert await fetch(cache) == ("token-2", Origin.IMDS)


async def test_all_who_ask_at_once_share_one_fetch(
    cache: TokenCache, source: FakeTokenSource
) -> None:
    source.open.clear()
    asking = [asyncio.ensure_future(fetch(cache)) for _ in range(50)]
    await asyncio.sleep(0)
    source.open.set()
    answers = await asyncio.gather(*asking)
    assert len(source.asked) == 1
    assert sorted(set(answers)) == [("token-1", Origin.IMDS), ("token-1", Origin.SHARED)]


async def test_a_client_that_leaves_takes_nothing_from_the_others(
    cache: TokenCache, source: FakeTokenSource
) -> None:
    source.open.clear()
    first, second = asyncio.ensure_future(fetch(cache)), asyncio.ensure_future(fetch(cache))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    source.open.set()
    assert await second == ("token-1", Origin.SHARED)


async def test_a_fetch_that_everybody_left_is_kept_for_the_next(
    cache: TokenCache, source: FakeTokenSource
) -> None:
    source.open.clear()
    only = asyncio.ensure_future(fetch(cache))
    await asyncio.sleep(0)
    only.cancel()
    source.open.set()
    assert await fetch(cache) == ("token-1", Origin.SHARED)


async def test_a_failure_that_nobody_waits_for_is_no_complaint(
    cache: TokenCache, source: FakeTokenSource
) -> None:
    source.open.clear()
    source.failures.append(TokenSourceDown("away"))
    only = asyncio.ensure_future(fetch(cache))
    await asyncio.sleep(0)
    only.cancel()
    source.open.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await fetch(cache))[0] == "token-2"


async def test_a_failure_goes_to_all_who_share_it_and_is_not_kept(
    cache: TokenCache, source: FakeTokenSource
) -> None:
    source.open.clear()
    source.failures.append(TokenRefused("no", status=400, error="invalid_resource"))
    asking = [asyncio.ensure_future(fetch(cache)) for _ in range(3)]
    await asyncio.sleep(0)
    source.open.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers] == [TokenRefused] * 3
    assert await fetch(cache) == ("token-2", Origin.IMDS)


@pytest.mark.parametrize(
    "failure", [TokenSourceDown("away"), TokenThrottled("slow down", retry_after=1)], ids=repr
)
async def test_while_the_source_is_down_a_token_is_given_as_long_as_it_lives(
    cache: TokenCache, clock: FakeClock, source: FakeTokenSource, failure: TokenUnavailable
) -> None:
    await fetch(cache)
    clock.advance(HOUR - 31)
    source.failures.append(failure)
    assert await fetch(cache) == ("token-1", Origin.CACHE)
    clock.advance(1)
    source.failures.append(failure)
    with pytest.raises(type(failure)):
        await fetch(cache)


async def test_a_refusal_is_not_hidden_by_an_old_token(
    cache: TokenCache, clock: FakeClock, source: FakeTokenSource
) -> None:
    await fetch(cache)
    clock.advance(HOUR - 100)
    source.failures.append(TokenRefused("no", status=400, error="invalid_request"))
    with pytest.raises(TokenRefused):
        await fetch(cache)


async def test_bypass_asks_the_source_and_renews_what_is_kept(
    cache: TokenCache, source: FakeTokenSource
) -> None:
    await fetch(cache)
    token, origin = await cache.fetch(grant(), VAULT, bypass_cache=True)
    assert (token.value, origin) == ("token-2", Origin.IMDS)
    assert source.asked[-1][2] is True
    assert await fetch(cache) == ("token-2", Origin.CACHE)


async def test_bypass_is_not_answered_by_an_old_token(
    cache: TokenCache, source: FakeTokenSource
) -> None:
    await fetch(cache)
    source.failures.append(TokenSourceDown("away"))
    with pytest.raises(TokenSourceDown):
        await cache.fetch(grant(), VAULT, bypass_cache=True)


async def test_what_was_not_asked_for_longest_makes_room(cache: TokenCache) -> None:
    for resource in ("a", "b", "c"):
        await fetch(cache, resource)
    await fetch(cache, "a")
    await fetch(cache, "d")
    assert (await fetch(cache, "a"))[1] is Origin.CACHE
    assert (await fetch(cache, "b"))[1] is Origin.IMDS


async def test_closing_ends_the_fetches_under_way(
    clock: FakeClock, source: FakeTokenSource
) -> None:
    cache = TokenCache(source, clock)
    source.open.clear()
    asking = asyncio.ensure_future(fetch(cache))
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await asking

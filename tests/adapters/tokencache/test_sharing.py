"""One fetch at a time for each token, shared by all its requests and cancelled by none."""

from __future__ import annotations

import asyncio

import pytest

from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.resources import ClientId, Entra, IdentityType, Tenant
from podidentity.core.tokens import Grant, Origin
from tests.adapters.tokencache.caches import HOUR, World, caching
from tests.fakes import OTHER_CLIENT, VAULT, grant, identity, pod


async def begun(world: World, count: int = 1) -> list[asyncio.Task[tuple[str, Origin]]]:
    """Return requests that wait for a source that does not answer yet."""
    world.source.open.clear()
    asking = [asyncio.create_task(world.fetch()) for _ in range(count)]
    await world.source.begun.wait()
    return asking


async def test_a_second_request_is_answered_from_memory() -> None:
    async with caching() as world:
        assert await world.fetch() == ("token-1", Origin.IMDS)
        assert await world.fetch() == ("token-1", Origin.CACHE)
        assert await world.fetch(of=grant(pod=pod("other"))) == ("token-1", Origin.CACHE)


async def test_another_resource_or_client_is_another_token() -> None:
    other = grant(identity(client_id=ClientId.parse(OTHER_CLIENT)))
    async with caching() as world:
        assert await world.fetch() == ("token-1", Origin.IMDS)
        assert await world.fetch(VAULT + "/") == ("token-2", Origin.IMDS)
        assert await world.fetch(of=other) == ("token-3", Origin.IMDS)


async def test_a_token_that_is_not_of_the_node_comes_from_entra() -> None:
    async with caching() as world:
        found = await world.fetch(of=grant(identity(type=IdentityType.FEDERATED)))
    assert found == ("token-1", Origin.ENTRA)


async def test_all_who_ask_at_once_share_one_fetch() -> None:
    async with caching() as world:
        asking = await begun(world, 50)
        world.source.open.set()
        answers = await asyncio.gather(*asking)
    assert len(world.source.asked) == 1
    assert sorted(set(answers)) == [("token-1", Origin.IMDS), ("token-1", Origin.SHARED)]


async def test_a_client_that_leaves_takes_nothing_from_the_others() -> None:
    async with caching() as world:
        first, second = await begun(world, 2)
        first.cancel()
        await asyncio.sleep(0)
        world.source.open.set()
        assert await second == ("token-1", Origin.SHARED)


async def test_a_fetch_that_everybody_left_is_kept_for_the_next() -> None:
    async with caching() as world:
        (only,) = await begun(world)
        only.cancel()
        world.source.open.set()
        assert await world.fetch() == ("token-1", Origin.SHARED)


async def test_a_failure_that_nobody_waits_for_is_no_complaint() -> None:
    async with caching() as world:
        world.source.failures.append(TokenSourceDown("away"))
        (only,) = await begun(world)
        only.cancel()
        world.source.open.set()
        await world.cache.settled()
        world.clock.advance(1)
        assert (await world.fetch())[0] == "token-2"


async def test_a_failure_goes_to_all_who_share_it() -> None:
    async with caching() as world:
        world.source.failures.append(TokenRefused("no", status=400, error="invalid_resource"))
        asking = await begun(world, 3)
        world.source.open.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers] == [TokenRefused] * 3
    assert len(world.source.asked) == 1


async def test_bypass_asks_the_source_and_renews_what_is_kept() -> None:
    async with caching() as world:
        await world.fetch()
        assert await world.fetch(bypass=True) == ("token-2", Origin.IMDS)
        assert world.source.asked[-1][2] is True
        assert await world.fetch() == ("token-2", Origin.CACHE)


async def test_those_who_bypass_within_a_second_share_what_the_first_got() -> None:
    async with caching() as world:
        await world.fetch(bypass=True)
        world.clock.advance(0.9)
        assert await world.fetch(bypass=True) == ("token-1", Origin.SHARED)
        world.clock.advance(0.1)
        assert await world.fetch(bypass=True) == ("token-2", Origin.IMDS)


async def test_bypass_does_not_take_what_was_fetched_without_it() -> None:
    async with caching() as world:
        await world.fetch()
        world.source.open.clear()
        plain = asyncio.create_task(world.fetch("another"))
        await asyncio.sleep(0)
        past = asyncio.create_task(world.fetch("another", bypass=True))
        await asyncio.sleep(0)
        world.source.open.set()
        assert (await plain)[1] is (await past)[1] is Origin.IMDS


async def test_bypass_is_not_answered_by_an_old_token() -> None:
    async with caching() as world:
        await world.fetch()
        world.source.failures.append(TokenSourceDown("away"))
        with pytest.raises(TokenSourceDown):
            await world.fetch(bypass=True)


async def test_closing_ends_the_fetches_under_way() -> None:
    async with caching() as world:
        (asking,) = await begun(world)
        await world.cache.close()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_secret_may_have_the_name_of_its_identity() -> None:
    entra = Entra(tenant=Tenant("contoso.com"), secret=identity().ref)
    async with caching() as world:
        await world.fetch(of=grant(identity(type=IdentityType.SERVICE_PRINCIPAL, entra=entra)))
        world.source.unread = True
        world.cache.changed(identity().ref)
        assert len(world.cache) == 0


OF_ONE_POD = [
    TokenThrottled("its share", retry_after=9, of_caller=True),
    NotYetKnown("the pod is gone", status=401, error="invalid_client", of_caller=True),
]


@pytest.mark.parametrize("failure", OF_ONE_POD, ids=["share", "gone"])
async def test_a_failure_of_one_pod_is_told_to_no_other(failure: TokenUnavailable) -> None:
    async with caching() as world:
        world.source.failures.append(failure)
        with pytest.raises(type(failure)):
            await world.fetch(of=grant(pod=pod("a")))
        assert (await world.fetch(of=grant(pod=pod("b"))))[1] is Origin.IMDS


@pytest.mark.parametrize("failure", OF_ONE_POD, ids=["share", "gone"])
async def test_those_who_share_a_fetch_that_fails_for_its_pod_alone_fetch_for_themselves(
    failure: TokenUnavailable,
) -> None:
    async with caching() as world:
        world.source.open.clear()
        names = ("a", "b", "c", "a")
        asking = [asyncio.create_task(world.fetch(of=grant(pod=pod(name)))) for name in names]
        await asyncio.sleep(0)
        world.source.failures.append(failure)
        world.source.open.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(each, type(failure)) for each in found] == [True, False, False, False]
    assert len(world.source.asked) == 2


async def test_a_failure_of_one_pod_is_repeated_to_that_pod() -> None:
    async with caching() as world:
        world.source.failures.append(OF_ONE_POD[0])
        for _ in range(3):
            with pytest.raises(TokenThrottled):
                await world.fetch()
        assert len(world.source.asked) == 1


IDENTITIES = [
    identity(f"i{number}", client_id=ClientId.parse(f"{number:08d}" + OTHER_CLIENT[8:]))
    for number in range(20)
]
PODS = [grant(IDENTITIES[n % 20], pod=pod(f"p{n}")) for n in range(110)]

# Each of them, again and again, in an order that mixes them.
REQUESTS = [PODS[n * 37 % 110] for n in range(10_000)]


async def asked_for(grants: list[Grant], *, life: int, seconds: float) -> int:
    """Return how many tokens were issued to requests one after the other in that time."""
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

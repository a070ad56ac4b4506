from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.adapters.token_cache import (
    FORGOTTEN,
    NEGATIVE_CAPACITY,
    NegativeCache,
    Schedule,
    TokenCache,
    negative_ttl,
    schedule,
)
from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.resources import (
    AccessToken,
    AzureIdentity,
    ClientId,
    Entra,
    Grant,
    IdentityType,
    ObjectRef,
    Origin,
    Tenant,
)
from tests.fakes import NOW, OTHER_CLIENT, VAULT, FakeClock, FakeTokenSource, grant, identity, pod

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
    cache = TokenCache(dict.fromkeys(IdentityType, source), clock, jitter=jitter, **options)
    try:
        yield World(cache, clock, source)
    finally:
        await cache.close()


# One fetch at a time for each token, shared by all its requests and cancelled by none.


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


async def until_late(world: World, until: float, **how: Any) -> Exception:
    """Return what is told to a request that is answered at `until` and not before."""
    asking = asyncio.create_task(world.cache.fetch(grant(), VAULT, until=until, **how))
    await world.clock.somebody_sleeps()
    assert world.clock.slept[-1] == until - world.clock.monotonic()
    world.clock.advance(until - world.clock.monotonic() - 0.001)
    await asyncio.sleep(0)
    assert not asking.done()
    world.clock.advance(0.001)
    (told,) = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(told, Exception), told
    return told


@pytest.mark.parametrize("bypass", [False, True])
async def test_a_request_is_answered_at_its_time_and_the_fetch_goes_on(*, bypass: bool) -> None:
    async with caching() as world:
        world.source.open.clear()
        for until in (9, 12):  # the second joins the fetch of the first
            told = await until_late(world, until, bypass_cache=bypass)
            assert str(told) == "IMDS did not answer in time"
            assert isinstance(told, TokenSourceDown)
        world.source.open.set()
        await world.cache.settled()
        assert await world.fetch() == ("token-1", Origin.CACHE)
        assert len(world.source.asked) == 1


async def test_at_its_time_a_request_gets_the_old_token_if_that_is_good() -> None:
    async with caching() as world:
        await world.fetch()
        world.clock.advance(HOUR - 100)
        world.source.open.clear()
        until = world.clock.monotonic() + 9
        asking = asyncio.create_task(world.cache.fetch(grant(), VAULT, until=until))
        await world.clock.somebody_sleeps()
        world.clock.advance(9)
        found = await asking
    assert (found.token.value, found.origin) == ("token-1", Origin.CACHE)


async def test_who_did_not_answer_in_time_is_named() -> None:
    federated = grant(identity(type=IdentityType.FEDERATED))
    async with caching() as world:
        world.source.open.clear()
        asking = asyncio.create_task(world.cache.fetch(federated, VAULT, until=9))
        await world.clock.somebody_sleeps()
        world.clock.advance(9)
        with pytest.raises(TokenSourceDown, match=r"^Entra did not answer in time$"):
            await asking


async def test_a_request_whose_time_is_over_waits_no_more() -> None:
    async with caching() as world:
        world.clock.advance(10)
        world.source.open.clear()
        asking = asyncio.create_task(world.cache.fetch(grant(), VAULT, until=9))
        await world.clock.somebody_sleeps()
        assert world.clock.slept == [0.0]
        world.clock.advance(0)
        with pytest.raises(TokenSourceDown, match="did not answer in time"):
            await asking


async def test_a_request_that_is_answered_in_time_waits_for_nothing_more() -> None:
    async with caching() as world:
        await world.cache.fetch(grant(), VAULT, until=9.0)
        await asyncio.sleep(0)
        assert world.clock._sleepers == []


async def test_a_secret_that_is_not_read_in_time_is_not_waited_for() -> None:
    async with caching() as world:
        before = asyncio.all_tasks()
        world.source.unread = True
        world.source.readable.clear()
        assert isinstance(await until_late(world, 9), TokenSourceDown)
        assert world.source.asked == []
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before, "nobody waits on"
        world.source.readable.set()
        assert await world.fetch() == ("token-1", Origin.IMDS)


async def test_a_token_is_prepared_once_and_is_no_audience_before_a_pod_requests_it() -> None:
    async with caching() as world:
        await world.cache.prepare(grant(), VAULT)
        await world.cache.prepare(grant(), VAULT)
        assert world.cache.audiences(identity().ref) == []
        assert await world.fetch() == ("token-1", Origin.CACHE)
        assert world.cache.audiences(identity().ref) == [VAULT]
        assert len(world.source.asked) == 1


async def test_a_token_that_is_stale_is_prepared_anew() -> None:
    async with caching() as world:
        await world.cache.prepare(grant(), VAULT)
        world.clock.advance(HOUR - 301)
        await world.cache.prepare(grant(), VAULT)
        assert len(world.source.asked) == 1
        world.clock.advance(1)
        await world.cache.prepare(grant(), VAULT)
        assert await world.fetch() == ("token-2", Origin.CACHE)


async def test_what_failed_a_moment_ago_is_not_prepared() -> None:
    async with caching() as world:
        world.source.failures.append(DOWN)
        with pytest.raises(TokenSourceDown):
            await world.cache.prepare(grant(), VAULT)
        await world.cache.prepare(grant(), VAULT)
        assert len(world.source.asked) == 1
        world.clock.advance(1)
        await world.cache.prepare(grant(), VAULT)
        assert await world.fetch() == ("token-2", Origin.CACHE)


async def test_what_must_be_read_first_is_prepared_once_it_is_read() -> None:
    async with caching() as world:
        world.source.unread = True
        world.source.readable.clear()
        preparing = asyncio.create_task(world.cache.prepare(grant(), VAULT))
        await asyncio.sleep(0)
        assert world.source.asked == []
        world.source.unread = False
        world.source.readable.set()
        await preparing
        assert await world.fetch() == ("token-1", Origin.CACHE)


async def test_what_is_known_is_prepared_without_waiting_for_what_is_read() -> None:
    async with caching() as world:
        world.source.readable.clear()
        async with asyncio.timeout(60):
            await world.cache.prepare(grant(), VAULT)
        assert await world.fetch() == ("token-1", Origin.CACHE)


async def test_who_prepares_shares_a_fetch_and_leaves_it_to_the_others() -> None:
    async with caching() as world:
        world.source.open.clear()
        preparing = asyncio.create_task(world.cache.prepare(grant(), VAULT))
        await world.source.begun.wait()
        asking = asyncio.create_task(world.fetch())
        await asyncio.sleep(0)
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
        world.source.open.set()
        assert await asking == ("token-1", Origin.SHARED)


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


async def test_each_request_to_an_issuer_is_told_with_its_end_and_its_seconds() -> None:
    told: list[tuple[str, str, float]] = []

    def note(of: AzureIdentity, word: str, seconds: float) -> None:
        told.append((of.ref.name, word, seconds))

    async with caching(told=note) as world:
        for failures in ([TokenSourceDown("away")], []):
            world.clock.advance(100)
            world.source.failures = [*failures]
            world.source.begun.clear()
            (asking,) = await begun(world)
            world.clock.advance(3)
            world.source.open.set()
            await asyncio.gather(asking, return_exceptions=True)
        await world.fetch()
    assert told == [("orders", "TokenSourceDown", 3.0), ("orders", "ok", 3.0)]


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


async def test_what_is_stale_within_that_second_is_shared_with_nobody_who_does_not_bypass() -> None:
    async with caching(life=1) as world:
        await world.fetch(bypass=True)
        world.clock.advance(0.6)
        assert await world.fetch() == ("token-2", Origin.IMDS)


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
        assert world.cache._flights == {}
        with pytest.raises(asyncio.CancelledError):
            await asking


@pytest.mark.parametrize("changed", ["orders", "secret"])
async def test_a_token_ends_with_the_change_of_its_identity_or_of_its_secret(changed: str) -> None:
    secret = ObjectRef(identity().ref.namespace, "secret")
    entra = Entra(tenant=Tenant("contoso.com"), secret=secret)
    async with caching() as world:
        await world.fetch(of=grant(identity(type=IdentityType.SERVICE_PRINCIPAL, entra=entra)))
        ref = ObjectRef(secret.namespace, changed)
        world.cache.changed(ref)
        assert len(world.cache) == 1, "its credential is the same"
        world.source.unread = True
        world.cache.changed(ObjectRef(secret.namespace, "another"))
        assert len(world.cache) == 1
        world.cache.changed(ref)
        assert len(world.cache) == 0


async def test_what_is_kept_can_be_looked_at() -> None:
    async with caching() as world:
        await world.fetch("a")
        await world.fetch("b")
        assert [each.key[1] for each in world.cache.entries()] == ["a", "b"]
        assert world.cache.audiences(identity().ref) == ["a", "b"]


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


# A token in use is renewed in the background; a jump of the clock prolongs none.


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


@pytest.mark.parametrize("jump", [-60, 60])
async def test_of_two_clocks_the_one_that_is_ahead_ends_what_is_fresh(jump: float) -> None:
    async with caching(life=DAY) as world:
        await world.fetch()
        world.clock.jump(jump)
        world.clock.advance(DAY / 2 - max(0, jump) - 1)
        assert world.cache.cached(grant(), VAULT) is not None
        world.clock.advance(1)
        assert world.cache.cached(grant(), VAULT) is None


async def test_a_token_is_as_old_as_it_is_since_it_came() -> None:
    async with caching() as world:
        world.clock.advance(HOUR)
        await world.fetch()
        world.clock.advance(HOUR - 301)
        assert await world.fetch() == ("token-1", Origin.CACHE)


async def test_of_two_clocks_the_one_that_is_ahead_says_how_old_a_token_is() -> None:
    async with caching() as world:
        await world.fetch()
        world.clock.jump(-HOUR)
        world.clock.advance(HOUR - 300)
        assert await world.fetch() == ("token-2", Origin.IMDS)


async def test_a_renewal_that_fails_leaves_nothing_fresh_that_is_stale() -> None:
    async with caching() as world:
        await world.fetch()
        world.clock.advance(HOUR - 310)
        world.source.failures.append(DOWN)
        assert await world.fetch() == ("token-1", Origin.CACHE)
        await world.cache.settled()
        world.clock.advance(10)
        assert await world.fetch() == ("token-3", Origin.IMDS)


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


# During an outage of the issuer cached tokens are given while they live; failures are cached.


DOWN = TokenSourceDown("away")


@pytest.mark.parametrize("failure", [DOWN, TokenThrottled("slow", retry_after=1)], ids=repr)
async def test_while_the_source_is_down_a_token_is_given_as_long_as_it_lives(
    failure: TokenUnavailable,
) -> None:
    async with caching() as world:
        await world.fetch()
        world.clock.advance(HOUR - 31)
        world.source.failures = [failure, failure]
        assert await world.fetch() == ("token-1", Origin.CACHE)
        world.clock.advance(1)
        with pytest.raises(type(failure)):
            await world.fetch()


async def test_a_refusal_is_not_hidden_by_an_old_token() -> None:
    async with caching() as world:
        await world.fetch()
        world.clock.advance(HOUR - 100)
        world.source.failures.append(TokenRefused("no", status=400, error="invalid_request"))
        with pytest.raises(TokenRefused):
            await world.fetch()


async def test_an_expired_token_is_never_given_whatever_its_issuer_says_of_an_outage() -> None:
    """Entra's `ext_expires_in` is for services, and they read only `exp`."""
    async with caching() as world:
        issue = world.source.issue

        async def longer(grant: Grant, resource: str, *, bypass_cache: bool = False) -> AccessToken:
            token = await issue(grant, resource, bypass_cache=bypass_cache)
            return replace(token, ext_expires_in=24 * HOUR)

        world.source.issue = longer  # type: ignore[method-assign]
        await world.fetch()
        world.source.failures = [DOWN] * 3
        world.clock.advance(HOUR - 31)
        found = await world.cache.fetch(grant(), VAULT)
        assert found.token.expires_on == NOW + HOUR
        for _ in range(2):
            world.clock.advance(HOUR)
            with pytest.raises(TokenSourceDown):
                await world.fetch()


async def asked_in(world: World, seconds: int) -> list[int]:
    """Return at which seconds the source was asked by a pod that asks ten times in each."""
    times = []
    for tenth in range(10 * seconds):
        before = len(world.source.asked)
        with pytest.raises(TokenUnavailable):
            await world.fetch()
        if len(world.source.asked) > before:
            times.append(tenth // 10)
        world.clock.advance(0.1)
    return times


@pytest.mark.parametrize(
    ("failure", "times"),
    [
        (TokenRefused("no", status=400, error="invalid_resource"), [0, 60]),
        (TokenRefused("no", status=401, error="invalid_client"), [0, 10, 20, 30, 40, 50, 60]),
        (TokenThrottled("slow", retry_after=30), [0, 30, 60]),
        (DOWN, [0, 1, 3, 7, 15, 25, 35, 45, 55]),
    ],
    ids=["request", "login", "throttled", "down"],
)
async def test_a_failure_is_repeated_without_asking(
    failure: TokenUnavailable, times: list[int]
) -> None:
    async with caching() as world:
        world.source.failures = [failure] * 1000
        found = await asked_in(world, 61)
    assert found == pytest.approx(times, abs=1)
    assert len(found) == len(times)


async def test_what_may_be_a_moment_old_is_asked_for_twice_a_second_at_first() -> None:
    async with caching() as world:
        world.source.failures = [NotYetKnown("no", status=400, error="invalid_request")] * 100
        assert await asked_in(world, 8) == [0, 0, 1, 3, 5, 7]


async def test_a_remembered_429_says_how_long_is_left_of_it() -> None:
    async with caching() as world:
        world.source.failures = [TokenThrottled("slow", retry_after=30)]
        for left in (30, 20):
            with pytest.raises(TokenThrottled) as found:
                await world.fetch()
            assert found.value.retry_after == left
            world.clock.advance(10)


async def test_a_token_ends_what_was_remembered_and_the_next_outage_begins_anew() -> None:
    async with caching() as world:
        world.source.failures = [DOWN, DOWN]
        with pytest.raises(TokenSourceDown):
            await world.fetch()
        world.clock.advance(1)
        with pytest.raises(TokenSourceDown):
            await world.fetch()
        world.clock.advance(2)
        await world.fetch()
        world.source.failures = [DOWN]
        with pytest.raises(TokenSourceDown):
            await world.fetch(bypass=True)
        world.clock.advance(1)
        assert (await world.fetch(bypass=True))[1] is Origin.IMDS


async def test_who_bypasses_learns_whether_a_refusal_still_stands_but_presses_no_outage() -> None:
    async with caching() as world:
        world.source.failures = [TokenRefused("no", status=400, error="invalid_resource")]
        with pytest.raises(TokenRefused):
            await world.fetch()
        assert (await world.fetch(bypass=True))[1] is Origin.IMDS
        world.source.failures = [DOWN]
        for _ in range(2):
            with pytest.raises(TokenSourceDown):
                await world.fetch("other", bypass=True)
    assert len(world.source.asked) == 3


async def test_a_failure_that_is_kept_holds_nothing_but_its_words() -> None:
    source = FakeTokenSource()
    failure = TokenSourceDown("away")
    source.failures = [failure]
    async with caching() as world:
        world.source.failures = [failure]
        for _ in range(20):
            with pytest.raises(TokenSourceDown):
                await world.fetch()
    depth, trace = 0, failure.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 10
    assert failure.__cause__ is failure.__context__ is None


# No pod takes from the others: neither memory, nor the issuers' patience.


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


def in_namespace(namespace: str, name: str) -> Grant:
    """Return a grant to a pod of that namespace."""
    return grant(pod=pod(name, ref=ObjectRef(namespace, name)))


async def test_a_new_token_stays_though_all_others_are_in_use() -> None:
    async with caching(capacity=4) as world:
        crowd = [(in_namespace("crowd", f"p{n % 2}"), f"r{n}") for n in range(4)]
        newcomer = in_namespace("other", "newcomer")
        for _ in range(2):
            for of, resource in crowd:
                world.clock.advance(0.5)
                await world.fetch(resource, of=of)
        await world.fetch("new", of=newcomer)
        assert (await world.fetch("new", of=newcomer))[1] is Origin.CACHE


async def test_a_namespace_that_fills_the_cache_evicts_its_own_tokens() -> None:
    async with caching(capacity=8) as world:
        quiet = in_namespace("quiet", "q")
        for number in range(3):
            await world.fetch(f"quiet-{number}", of=quiet)
        for number in range(100):
            world.clock.advance(0.5)
            await world.fetch(f"r{number}", of=in_namespace("greedy", f"p{number % 32}"))
        assert len(world.cache) == 8
        for number in range(3):
            assert (await world.fetch(f"quiet-{number}", of=quiet))[1] is Origin.CACHE


async def test_a_namespace_with_long_tokens_evicts_its_own_tokens() -> None:
    async with caching(capacity=400) as world:
        quiet = in_namespace("quiet", "q")
        for number in range(30):
            world.clock.advance(0.5)
            await world.fetch(f"quiet-{number}", of=quiet)
        world.source.padding = 20_000
        for number in range(300):
            world.clock.advance(0.5)
            await world.fetch(f"r{number}", of=in_namespace("greedy", f"p{number % 32}"))
        assert sum(len(each.token.value) for each in world.cache.entries()) < 400 * 1024
        for number in range(30):
            assert (await world.fetch(f"quiet-{number}", of=quiet))[1] is Origin.CACHE


async def test_the_failures_of_one_namespace_end_none_of_another() -> None:
    async with caching() as world:
        world.source.failures = [TokenRefused("no", status=400, error="invalid_resource")]
        with pytest.raises(TokenRefused):
            await world.fetch("quiet", of=in_namespace("quiet", "q"))
        for number in range(NEGATIVE_CAPACITY + 1):
            world.source.failures.append(DOWN)
            with pytest.raises(TokenSourceDown):
                await world.fetch(f"r{number}", of=in_namespace("greedy", f"p{number}"))
        asked = len(world.source.asked)
        with pytest.raises(TokenRefused):
            await world.fetch("quiet", of=in_namespace("quiet", "q"))
        assert len(world.source.asked) == asked


async def test_what_is_given_while_no_new_one_can_be_fetched_is_used() -> None:
    async with caching(capacity=2) as world:
        await slowly(world, "a")
        await slowly(world, "b")
        world.clock.advance(HOUR - 600)
        world.source.failures.append(DOWN)
        assert await slowly(world, "a") is Origin.CACHE
        await world.cache.settled()
        await slowly(world, "c")
        assert sorted(each.key[1] for each in world.cache.entries()) == ["a", "c"]


async def test_of_a_pods_tokens_the_newest_stays_though_nobody_has_requested_it_yet() -> None:
    async with caching(capacity_of_pod=2) as world:
        await slowly(world, "a")
        await slowly(world, "b")
        await world.cache.prepare(GREEDY, "c")
        assert [each.key[1] for each in world.cache.entries()] == ["b", "c"]


async def test_a_pod_that_asks_for_a_thousand_audiences_loses_its_own() -> None:
    async with caching(capacity_of_pod=8) as world:
        for number in range(4):
            await world.fetch(f"quiet-{number}", of=QUIET)
        for number in range(1000):
            await slowly(world, f"greedy-{number}")
        assert len(world.cache) == 4 + 8
        for number in range(4):
            assert (await world.fetch(f"quiet-{number}", of=QUIET))[1] is Origin.CACHE


async def test_what_is_dropped_leaves_nothing_of_its_pod_or_its_identity_behind() -> None:
    async with caching(capacity=1, current=lambda _: ()) as world:
        for number in range(3):
            await world.fetch(of=grant(IDENTITIES[number], pod=pod(f"p{number}")))
        assert len(world.cache) == 0
        entries = world.cache._entries
        assert (entries._by_pod, entries._sizes, entries._by_object) == ({}, {}, {})
    async with caching(capacity=1) as world:
        for number in range(3):
            await world.fetch(of=grant(IDENTITIES[number], pod=pod(f"p{number}")))
        entries = world.cache._entries
        assert (list(entries._by_pod), list(entries._by_object)) == (
            [ObjectRef("shop", pod("p2").uid)],
            [IDENTITIES[2].ref],
        )


async def test_a_token_whose_identity_has_gone_meanwhile_answers_nobody_else() -> None:
    async with caching(current=lambda _: ()) as world:
        found = await world.cache.fetch(grant(), VAULT)
        assert found.token.value == "token-1"
        assert found.entry.fresh_until < 0
        assert len(world.cache) == 0


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
        assert found.value.of_caller
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


# How long a token answers, and how long a failure is believed.


@pytest.mark.parametrize(
    ("life", "expected"),
    [
        (DAY, Schedule(renew=DAY / 2, stale=DAY - 300, last=DAY - 30)),
        (7200, Schedule(renew=3600, stale=6900, last=7170)),
        (3600, Schedule(renew=3000, stale=3300, last=3570)),
        (600, Schedule(renew=225, stale=300, last=570)),
        (60, Schedule(renew=22.5, stale=30, last=30)),
        (1, Schedule(renew=0.375, stale=0.5, last=0.5)),
    ],
)
def test_a_token_is_renewed_ahead_then_fetched_first_then_gone(
    life: float, expected: Schedule
) -> None:
    assert schedule(life) == expected


@given(
    life=st.integers(1, 10 * DAY),
    jitter=st.floats(0, 1),
)
def test_ages_come_in_their_order_and_none_beyond_what_the_token_has(
    life: int, jitter: float
) -> None:
    found = schedule(life, jitter=jitter)
    assert 0 < found.renew <= found.stale <= found.last < life
    assert found.stale <= life - min(300, life / 2)


@given(life=st.integers(1, 10 * DAY))
def test_jitter_only_ever_renews_earlier_and_by_a_tenth_at_most(life: int) -> None:
    plain, early = schedule(life), schedule(life, jitter=1.0)
    assert early.renew == pytest.approx(0.9 * plain.renew)
    assert (early.stale, early.last) == (plain.stale, plain.last)


def refused(status: int) -> TokenRefused:
    return TokenRefused("no", status=status, error="invalid")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (refused(400), [60, 60, 60]),
        (refused(401), [10, 10, 10]),
        (refused(403), [10, 10, 10]),
        (NotYetKnown("no", status=400, error="invalid"), [0.5, 1, 2, 2]),
        (TokenSourceDown("away"), [1, 2, 4, 8, 10, 10]),
        (TokenUnavailable("hm"), [1, 2, 4, 8, 10]),
        (TokenThrottled("slow", retry_after=7), [7, 7]),
        (TokenThrottled("slow", retry_after=999_999), [3600]),
    ],
    ids=["request", "login", "forbidden", "new", "down", "unknown", "throttled", "for-weeks"],
)
def test_a_failure_is_believed_for_as_long_as_its_kind_deserves(
    error: TokenUnavailable, seconds: list[float]
) -> None:
    assert [negative_ttl(error, before) for before in range(len(seconds))] == seconds


def test_a_failure_that_lasts_for_weeks_has_a_number_still() -> None:
    assert negative_ttl(TokenSourceDown("away"), 10**6) == 10


KEY = ("credential", VAULT)
ANYBODY = ObjectRef("shop", "any")


@pytest.mark.parametrize(("later", "seconds"), [(FORGOTTEN - 1, 2), (FORGOTTEN, 1)])
def test_a_failure_a_minute_after_the_end_of_another_is_the_first_again(
    later: float, seconds: float
) -> None:
    failures = NegativeCache()
    failures.put(KEY, ANYBODY, DOWN, 0.0)
    second = negative_ttl(DOWN, 0) + later
    failures.put(KEY, ANYBODY, DOWN, second)
    assert failures.get(KEY, "", second + seconds - 0.5) is DOWN
    assert failures.get(KEY, "", second + seconds) is None


def test_of_a_failure_that_is_kept_nothing_is_kept_that_led_to_it() -> None:
    failure, cause = TokenSourceDown("away"), ValueError("it has an answer in its frame")
    failure.__context__ = cause
    with pytest.raises(TokenSourceDown):
        raise failure from cause
    NegativeCache().put(KEY, ANYBODY, failure, 0.0)
    left: list[object] = [failure.__cause__, failure.__context__, failure.__traceback__]
    assert left == [None, None, None]


def test_of_too_many_failures_the_oldest_are_forgotten() -> None:
    failures = NegativeCache(capacity=2)
    for name in ("a", "b", "a", "c"):
        failures.put((name, VAULT), ANYBODY, DOWN, 0.0)
    kept = [name for name in "abc" if failures.get((name, VAULT), "", 0.5)]
    assert (kept, len(failures)) == (["a", "c"], 2)


def test_a_token_ends_the_failures_of_all_and_of_its_own_pod_and_of_no_other() -> None:
    failures = NegativeCache()
    failures.put(KEY, ANYBODY, DOWN, 0.0)
    for uid in ("one", "other"):
        failures.put(KEY, ObjectRef("shop", uid), OF_ONE_POD[0], 0.0)
    failures.drop(KEY, "one")
    assert failures.get(KEY, "one", 0.5) is None
    assert isinstance(failures.get(KEY, "other", 0.5), TokenThrottled)
    failures.drop(KEY, "never failed")
    assert len(failures) == 1

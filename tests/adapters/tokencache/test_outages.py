"""During an outage of the issuer cached tokens are given while they live; failures are cached."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.tokens import AccessToken, Grant, Origin
from tests.adapters.tokencache.caches import HOUR, World, caching
from tests.fakes import NOW, VAULT, FakeTokenSource, grant

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


async def asked_in(world: World, seconds: int, *, bypass: bool = False) -> list[int]:
    """Return at which seconds the source was asked by a pod that asks ten times in each."""
    times = []
    for tenth in range(10 * seconds):
        before = len(world.source.asked)
        with pytest.raises(TokenUnavailable):
            await world.fetch(bypass=bypass)
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

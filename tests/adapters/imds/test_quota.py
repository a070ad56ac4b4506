"""What IMDS allows a node is kept, whoever asks and however many at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from podidentity.adapters.imds.client import Imds
from podidentity.adapters.imds.quota import AT_ONCE, RATE, Quota
from podidentity.core.errors import TokenThrottled
from tests.adapters.scripted import answers, scripted
from tests.fakes import CLIENT, VAULT, FakeClock, ImpatientClock, grant
from tests.jwts import jwt

TOKEN = {"access_token": jwt(appid=CLIENT), "client_id": CLIENT, "expires_in": "86399"}
BUSY = answers({"error": "too_many_requests"}, 429, more="Retry-After: 3\r\n")


class Metered:
    """A service that counts as IMDS does, and says 429 to whoever exceeds it."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.last: deque[float] = deque(maxlen=RATE)
        self.busy = 0
        self.refused = 0
        self.served: list[Any] = []

    async def ask(self, quota: Quota, who: Any = None) -> None:
        async with quota.turn(10.0):
            now = self.clock.monotonic()
            crowded = len(self.last) == RATE and now - self.last[0] < 1.0
            self.refused += crowded or self.busy >= AT_ONCE
            self.last.append(now)
            self.busy += 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.busy -= 1
            self.served.append(who)


async def test_a_hundred_at_once_are_all_served_in_their_order_and_none_too_soon() -> None:
    clock = ImpatientClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    await asyncio.gather(*(imds.ask(quota, number) for number in range(100)))
    assert (imds.refused, imds.served) == (0, list(range(100)))
    assert clock.monotonic() == pytest.approx(4 * 1.1)


async def test_the_service_of_this_test_does_refuse() -> None:
    clock = FakeClock()
    imds, generous = Metered(clock), Quota(1000, clock)
    await asyncio.gather(*(imds.ask(generous) for _ in range(100)))
    assert imds.refused == 80


async def test_who_leaves_while_he_waits_takes_nobodys_place() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE):
        await imds.ask(quota)
    leaving = [asyncio.create_task(imds.ask(quota, "left")) for _ in range(2 * AT_ONCE)]
    await clock.somebody_sleeps()
    staying = asyncio.create_task(imds.ask(quota, "stayed"))
    for each in leaving:
        each.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    await clock.somebody_sleeps()
    clock.advance(1.2)
    await staying
    assert imds.served[RATE:] == ["stayed"]


async def test_what_could_not_be_answered_in_time_is_refused_at_once() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock, most_waiting=3)
    for _ in range(RATE):
        await imds.ask(quota)
    waiting = [asyncio.create_task(imds.ask(quota)) for _ in range(3)]
    await clock.somebody_sleeps()
    with pytest.raises(TokenThrottled) as found:
        await imds.ask(quota)
    assert found.value.retry_after == 2
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_pause_that_outlasts_ones_patience_is_told_at_once() -> None:
    clock = FakeClock()
    quota = Quota(RATE, clock)
    quota.pause(60)
    with pytest.raises(TokenThrottled) as found:
        await Metered(clock).ask(quota)
    assert found.value.retry_after == 60


async def test_what_nobody_waits_for_leaves_half_to_the_others() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE // 2 - 1):
        await imds.ask(quota)
    await quota.spare()
    await imds.ask(quota)
    sparing = asyncio.create_task(quota.spare())
    await clock.somebody_sleeps()
    clock.advance(1.2)
    await sparing


async def test_what_nobody_waits_for_comes_after_those_who_wait() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE):
        await imds.ask(quota)
    asking = asyncio.create_task(imds.ask(quota))
    await clock.somebody_sleeps()
    sparing = asyncio.create_task(quota.spare())
    await asyncio.sleep(0)
    assert not sparing.done()
    clock.advance(1.2)
    await asyncio.gather(asking, sparing)


async def test_a_429_is_asked_again_when_imds_wants_to_be() -> None:
    clock = ImpatientClock()
    async with scripted(BUSY, answers(TOKEN)) as server:
        imds = Imds.connect("127.0.0.1", server.port, clock=clock, user_agent="t")
        token = await imds.issue(grant(), VAULT)
        await imds.close()
    assert (token.client_id, clock.monotonic()) == (grant().identity.client_id, 3.0)


async def test_a_429_that_lasts_is_told() -> None:
    clock = ImpatientClock()
    async with scripted(BUSY) as server:
        imds = Imds.connect("127.0.0.1", server.port, clock=clock, user_agent="t")
        with pytest.raises(TokenThrottled) as found:
            await imds.issue(grant(), VAULT)
        await imds.close()
    assert found.value.retry_after == 3
    assert len(server.asked) == 4


async def test_other_metadata_has_a_limit_of_its_own() -> None:
    clock = ImpatientClock()
    async with scripted(answers(b"{}")) as server:
        imds = Imds.connect("127.0.0.1", server.port, clock=clock, user_agent="t")
        asking = [imds.metadata(f"/metadata/versions?{n}", "") for n in range(11)]
        await asyncio.gather(*asking)
        await imds.close()
    assert clock.monotonic() == pytest.approx(2 * 1.1)

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from podidentity.adapters.imds import Imds
from podidentity.adapters.imds.quota import AT_ONCE, MOST_OF_NAMESPACE, MOST_OF_POD, RATE, Quota
from podidentity.core.errors import TokenThrottled
from podidentity.core.rate_limits import Flow
from podidentity.core.resources import ObjectRef
from podidentity.core.tokens import Grant
from tests.adapters.scripted import Script, answers, scripted
from tests.fakes import CLIENT, VAULT, FakeClock, ImpatientClock, grant, pod
from tests.jwts import jwt

TOKEN = {"access_token": jwt(appid=CLIENT), "client_id": CLIENT, "expires_in": "86399"}
WEB = Flow("shop", "web")
BUSY = answers({"error": "too_many_requests"}, 429, more="Retry-After: 3\r\n")


class Metered:
    """A service that counts as IMDS does, and answers 429 beyond its limit."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.last: deque[float] = deque(maxlen=RATE)
        self.busy = 0
        self.refused = 0
        self.served: list[Any] = []

    async def ask(self, quota: Quota, who: Any = None, *, flow: Flow = WEB) -> None:
        async with quota.turn(flow, 10.0):
            now = self.clock.monotonic()
            crowded = len(self.last) == RATE and now - self.last[0] < 1.0
            self.refused += crowded or self.busy >= AT_ONCE
            self.last.append(now)
            self.busy += 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.busy -= 1
            self.served.append(who)


async def test_a_hundred_at_once_are_all_served_by_turns_and_none_too_soon() -> None:
    clock = ImpatientClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    flows = [Flow("shop", f"p{number}") for number in range(10)]
    asking = [
        imds.ask(quota, (number, flow.pod), flow=flow) for flow in flows for number in range(10)
    ]
    await asyncio.gather(*asking)
    assert imds.refused == 0
    for flow in flows:
        own = [number for number, pod in imds.served if pod == flow.pod]
        assert own == list(range(10))
    assert len(set(imds.served)) == 100
    assert clock.monotonic() == pytest.approx(4 * 1.1)


async def test_the_service_of_this_test_does_refuse() -> None:
    clock = FakeClock()
    imds, generous = Metered(clock), Quota(1000, clock)
    asking = [imds.ask(generous, flow=Flow("shop", f"p{number}")) for number in range(100)]
    await asyncio.gather(*asking)
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
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE):
        await imds.ask(quota)
    flows = [Flow(f"n{number}", f"p{pod}") for number in range(2) for pod in range(4)]
    waiting = [asyncio.create_task(imds.ask(quota, flow=flow)) for flow in flows for _ in range(20)]
    await clock.somebody_sleeps()
    await asyncio.sleep(0)
    with pytest.raises(TokenThrottled) as found:
        async with quota.turn(flows[0], 9.5):
            pass
    # 160 wait, and 20 may be asked for in 1.1 s.
    assert found.value.retry_after == 10
    newcomer = asyncio.create_task(imds.ask(quota, "newcomer", flow=Flow("n2", "p0")))
    await asyncio.sleep(0)
    clock.advance(1.2)
    await newcomer
    assert len(imds.served) < RATE + 2 * AT_ONCE
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_pause_that_outlasts_ones_timeout_is_told_at_once() -> None:
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


@pytest.mark.parametrize("pods", [1, 16])
async def test_a_pod_and_a_namespace_have_a_bound_of_what_waits(pods: int) -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    flows = [Flow("tenant", f"p{number}") for number in range(pods)]
    asking = [asyncio.create_task(imds.ask(quota, flow=flow)) for flow in flows for _ in range(50)]
    await clock.somebody_sleeps()
    refused = [each for each in asking if each.done() and each.exception() is not None]
    assert len(asking) - len(refused) - len(imds.served) <= min(
        pods * MOST_OF_POD, MOST_OF_NAMESPACE
    )
    assert all(isinstance(each.exception(), TokenThrottled) for each in refused)
    assert refused
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_a_turn_that_does_not_come_in_time_is_told_to_its_pod_alone() -> None:
    """Others of its namespace came later and went first; IMDS is not down."""
    clock = FakeClock()
    quota = Quota(RATE, clock)
    async with AsyncExitStack() as held:
        for number in range(AT_ONCE):
            await held.enter_async_context(quota.turn(Flow("shop", f"p{number}"), 10.0))
        async with asyncio.timeout(5):
            with pytest.raises(TokenThrottled) as found:
                await held.enter_async_context(quota.turn(WEB, 0.2))
    assert found.value.of_caller
    await Metered(clock).ask(quota)


async def test_a_request_that_leaves_in_the_moment_of_its_turn_takes_no_place() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE):
        await imds.ask(quota)
    leaving = [asyncio.create_task(imds.ask(quota, "left")) for _ in range(AT_ONCE)]
    staying = asyncio.create_task(imds.ask(quota, "stayed"))
    await clock.somebody_sleeps()
    clock.advance(1.2)
    for each in leaving:
        each.cancel()
    await staying
    await asyncio.gather(*leaving, return_exceptions=True)
    assert imds.served[RATE:] == ["stayed"]
    async with quota.turn(WEB, 1), quota.turn(WEB, 1), quota.turn(WEB, 1), quota.turn(WEB, 1):
        await asyncio.wait_for(imds.ask(quota, "the fifth place is free"), 1)


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
        flow = Flow("", "10.244.0.2")
        asking = [imds.metadata(f"/metadata/versions?{n}", "", flow) for n in range(11)]
        await asyncio.gather(*asking)
        await imds.close()
    assert clock.monotonic() == pytest.approx(2 * 1.1)


IDENTITY_TOKEN = {"access_token": jwt(appid=CLIENT), "client_id": CLIENT, "expires_in": "86399"}
BURST = 10
"""Tokens that a pod may ask for at once within its own budget."""


@pytest.fixture
async def service() -> AsyncIterator[Script]:
    async with scripted(answers(IDENTITY_TOKEN)) as server:
        yield server


@pytest.fixture
async def imds(service: Script) -> AsyncIterator[Imds]:
    made = Imds.connect("127.0.0.1", service.port, clock=ImpatientClock(), user_agent="t")
    yield made
    await made.close()


def of(namespace: str, name: str) -> Grant:
    return grant(pod=pod(name, ref=ObjectRef(namespace, name), uid=f"uid-{namespace}-{name}"))


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def place(service: Script, resource: str) -> int:
    """Return how many requests reached IMDS before the one for `resource`."""
    return next(n for n, each in enumerate(service.asked) if resource in each.target)


async def test_sixteen_pods_of_a_tenant_hold_a_neighbour_up_for_two_turns_at_most(
    imds: Imds, service: Script
) -> None:
    """Each of them is within its own budget; together they are 160 requests."""
    tenant = [
        asyncio.create_task(imds.issue(of("tenant", f"p{number}"), f"https://r{n}"))
        for number in range(16)
        for n in range(BURST)
    ]
    await asyncio.sleep(0)
    await imds.issue(of("shop", "web"), "https://neighbour")
    assert place(service, "neighbour") <= AT_ONCE + 2
    await ended(tenant)


async def test_pods_of_one_namespace_take_turns_as_well(imds: Imds, service: Script) -> None:
    greedy = [
        asyncio.create_task(imds.issue(of("shop", "greedy"), f"https://r{n}")) for n in range(30)
    ]
    await asyncio.sleep(0)
    await imds.issue(of("shop", "web"), "https://neighbour")
    assert place(service, "neighbour") <= AT_ONCE + 2
    await ended(greedy)


async def test_a_pod_beyond_its_share_is_refused_and_its_neighbour_is_not(imds: Imds) -> None:
    greedy = [
        asyncio.create_task(imds.issue(of("tenant", "greedy"), f"https://r{n}"))
        for n in range(1000)
    ]
    await asyncio.sleep(0)
    assert (await imds.issue(of("shop", "web"), "https://neighbour")).client_id is not None
    done = [each for each in greedy if each.done()]
    assert done
    for each in done:
        if each.exception() is not None:
            assert isinstance(each.exception(), TokenThrottled)
    await ended(greedy)


async def test_one_address_that_reads_instance_documents_in_a_loop_delays_no_other(
    imds: Imds, service: Script
) -> None:
    greedy = [
        asyncio.create_task(imds.metadata(f"/metadata/instance?{n}", "", Flow("", "10.244.0.9")))
        for n in range(180)
    ]
    await asyncio.sleep(0)
    await imds.metadata("/metadata/instance?neighbour", "", Flow("", "10.244.0.2"))
    assert place(service, "neighbour") <= AT_ONCE + 2
    await ended(greedy)

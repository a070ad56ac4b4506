"""IMDS's quota is the node's: no namespace can use it up for the others, however many its pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from podidentity.adapters.imds import Imds
from podidentity.adapters.imds.quota import AT_ONCE
from podidentity.core.errors import TokenThrottled
from podidentity.core.ids import ObjectRef
from podidentity.core.rate_limits import Flow
from podidentity.core.tokens import Grant
from tests.adapters.scripted import Script, answers, scripted
from tests.fakes import CLIENT, ImpatientClock, grant, pod
from tests.jwts import jwt

TOKEN = {"access_token": jwt(appid=CLIENT), "client_id": CLIENT, "expires_in": "86399"}
BURST = 10
"""Tokens that a pod may ask for at once within its own budget."""


@pytest.fixture
async def service() -> AsyncIterator[Script]:
    async with scripted(answers(TOKEN)) as server:
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

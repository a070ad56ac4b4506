"""The faults of IMDS as a client on the wire meets them, and the control interface."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from podidentity_sandbox.azure.client import AzureError, AzureOperator
from tests.sandbox.azure.conftest import Azure

QUERY = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"


async def status(cloud: Azure, session: aiohttp.ClientSession) -> int:
    async with session.get(f"{cloud.imds}{QUERY}", headers={"Metadata": "true"}) as response:
        await response.read()
        return response.status


async def arrived(operator: AzureOperator, count: int) -> None:
    while len(await operator.imds_requests()) < count:
        pass  # each question is a round trip, in which the requests come further


async def test_a_reset_cuts_the_connection_and_none_heals_it(
    cloud: Azure, operator: AzureOperator
) -> None:
    async with aiohttp.ClientSession() as session:
        await operator.imds_fault("reset")
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await status(cloud, session)
        await operator.imds_fault()
        assert await status(cloud, session) == 200


async def test_a_hang_lasts_until_the_client_leaves_and_frees_its_place(
    cloud: Azure, operator: AzureOperator
) -> None:
    await operator.imds_fault("hang")
    async with aiohttp.ClientSession() as session:
        waiting = [asyncio.create_task(status(cloud, session)) for _ in range(5)]
        await arrived(operator, 5)
        assert await status(cloud, session) == 429  # five are under way
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await operator.imds_fault()
        while await status(cloud, session) != 200:
            cloud.clock.now += 1
    hung = [one["status"] for one in await operator.imds_requests()][:5]
    assert hung == [0] * 5


async def test_rubbish_is_200_and_not_json(cloud: Azure, operator: AzureOperator) -> None:
    await operator.imds_fault("rubbish")
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{cloud.imds}{QUERY}", headers={"Metadata": "true"}) as response,
    ):
        assert (response.status, response.content_type) == (200, "text/html")


async def test_the_journal_is_emptied_on_request(cloud: Azure, operator: AzureOperator) -> None:
    async with aiohttp.ClientSession() as session:
        await status(cloud, session)
    assert len(await operator.imds_requests()) == 1
    await operator.clear_imds_requests()
    assert await operator.imds_requests() == []


async def test_an_order_that_makes_no_sense_is_refused(operator: AzureOperator) -> None:
    with pytest.raises(AzureError, match="'nonsense' is not a valid Mode"):
        await operator.imds_fault("nonsense")
    with pytest.raises(AzureError, match="seconds must be a number"):
        await operator.arm_delay(-1)

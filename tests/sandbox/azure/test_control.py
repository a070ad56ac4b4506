"""The control socket: faults, delays, and the requests that came, as a client meets them."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from click.testing import CliRunner, Result

from podidentity_sandbox.azure.client import AzureError, AzureOperator
from podidentity_sandbox.cli import options, sandbox
from podidentity_sandbox.plan import Plan
from tests.sandbox.azure.conftest import Azure
from tests.sandbox.azure.direct import ASK, TOKEN, Direct, ask
from tests.sandbox.azure.plans import certify

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


# ---- Azure takes its time where a test, or a person, asks it to.


async def statuses(direct: Direct, client_id: str) -> list[int]:
    """Return what each of the two nodes answers for the identity."""
    target = f"{TOKEN}?{ASK}&client_id={client_id}"
    return [
        (await ask(direct, target, source=source))[0].status
        for source in ("127.0.0.7", "127.0.1.7")
    ]


async def test_a_nodes_imds_keeps_to_the_identities_that_it_saw(direct: Direct) -> None:
    mine = direct.identity("mine")
    direct.world.identity_cache = 60
    assert await statuses(direct, mine.client_id) == [400, 400]
    direct.attach(mine)
    assert await statuses(direct, mine.client_id) == [400, 400], "the new one is not seen yet"
    direct.clock.now += 60
    assert await statuses(direct, mine.client_id) == [200, 200]
    direct.made("DELETE", mine.id)
    assert await statuses(direct, mine.client_id) == [200, 200], "the old one is still seen"
    direct.clock.now += 60
    assert await statuses(direct, mine.client_id) == [400, 400]


async def test_each_node_sees_a_change_in_its_own_time(direct: Direct) -> None:
    mine = direct.identity("mine")
    direct.world.identity_cache = 60
    target = f"{TOKEN}?{ASK}&client_id={mine.client_id}"
    assert (await ask(direct, target, source="127.0.0.7"))[0].status == 400
    direct.attach(mine)
    assert await statuses(direct, mine.client_id) == [400, 200]


def run(plan: Plan, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.setattr(options, "plan_of", lambda _: plan)
    return CliRunner().invoke(sandbox, ["delay", *words])


async def test_the_operator_and_a_person_set_the_delays(
    cloud: Azure, operator: AzureOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await operator.role_delay(7)
    await operator.identity_cache(8)
    assert (cloud.world.role_delay, cloud.world.identity_cache) == (7, 8)
    for what in ("roles", "identities", "scale-sets", "credentials"):
        done = await asyncio.to_thread(run, cloud.plan, monkeypatch, what, "1.5")
        assert (done.exit_code, done.output) == (0, f"{what}: 1.5 s\n")
    world = cloud.world
    assert {world.role_delay, world.identity_cache, world.arm_delay} == {1.5}
    assert world.credential_delay == 1.5


def test_an_azure_that_is_not_there_is_said_to_be_so(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify(direct.plan.path)
    done = run(direct.plan, monkeypatch, "roles", "1")
    assert done.exit_code == 1
    assert "Azure does not answer: try podidentity sandbox part start azure" in done.output

"""Azure takes its time where a test, or a person, asks it to."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner, Result

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.cli import options, sandbox
from podidentity_sandbox.plan import Plan
from tests.sandbox.azure.conftest import Azure
from tests.sandbox.azure.direct import Direct
from tests.sandbox.azure.imds_requests import ASK, TOKEN, ask
from tests.sandbox.azure.plans import certify


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

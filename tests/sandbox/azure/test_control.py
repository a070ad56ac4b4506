"""The control socket, and the weather of Azure as a client meets it."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from podidentity_sandbox.azure.client import AzureError, AzureOperator
from podidentity_sandbox.azure.state import RoleAssignment
from tests.sandbox.azure.conftest import Azure
from tests.sandbox.azure.direct import ASK, TOKEN, Direct, ask

QUERY = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"


async def status(cloud: Azure, session: aiohttp.ClientSession) -> int:
    async with session.get(f"{cloud.imds}{QUERY}", headers={"Metadata": "true"}) as response:
        await response.read()
        return response.status


async def arrived(operator: AzureOperator, count: int) -> None:
    while len(await operator.imds_requests()) < count:
        pass  # each question is a round trip, in which the requests come further


async def test_a_hang_lasts_until_the_client_leaves_and_frees_its_place(
    cloud: Azure, operator: AzureOperator
) -> None:
    operator.weather("imds=[{effect: hang}]")
    async with aiohttp.ClientSession() as session:
        waiting = [asyncio.create_task(status(cloud, session)) for _ in range(5)]
        await arrived(operator, 5)
        assert await status(cloud, session) == 429  # five are under way
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        operator.weather("imds=[]")
        while await status(cloud, session) != 200:
            cloud.clock.now += 1
    hung = [one["status"] for one in await operator.imds_requests()][:5]
    assert hung == [0] * 5


async def test_the_operator_asks_again_where_the_weather_refused_him(
    operator: AzureOperator,
) -> None:
    operator.weather("arm=[{effect: 503, first: 2}]", "entra=[{effect: reset, first: 1}]")
    assert (await operator.create_group("shop")).endswith("/shop")
    operator.weather("arm=[{effect: locked}]", "entra=[]")
    with pytest.raises(AzureError, match="ScopeLocked"):
        await operator.create_group("other")


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
    direct.weather("identities=60")
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
    direct.weather("identities=60")
    target = f"{TOKEN}?{ASK}&client_id={mine.client_id}"
    assert (await ask(direct, target, source="127.0.0.7"))[0].status == 400
    direct.attach(mine)
    assert await statuses(direct, mine.client_id) == [400, 200]


# ---- What was removed still counts for a while, and a change of the machines may fail.


def test_a_removed_role_counts_until_all_of_azure_has_heard_of_it(direct: Direct) -> None:
    someone = direct.world.new_principal("someone")
    group = f"{direct.world.subscription}/resourceGroups/{direct.plan.node_group}"
    direct.grant("Reader", someone.object_id, group)
    direct.weather("removed-roles=30")
    role = next(
        one for one in direct.world.all(RoleAssignment) if one.principal_id == someone.object_id
    )
    direct.made("DELETE", role.id)
    listed = direct.made("GET", role.id.rpartition("/")[0])["value"]
    assert role.id not in {one["id"] for one in listed}, "Resource Manager itself knows at once"
    assert direct.arm("GET", direct.plan.scale_set_id, principal=someone)[0] == 200
    direct.clock.now += 30
    assert direct.arm("GET", direct.plan.scale_set_id, principal=someone)[0] == 403


@pytest.mark.parametrize(
    ("word", "code", "ended"),
    [
        ("failing", "InternalExecutionError", "Failed"),
        ("preempted", "OperationPreempted", "Canceled"),
    ],
)
async def test_machines_keep_what_they_had_when_their_change_fails(
    direct: Direct, word: str, code: str, ended: str
) -> None:
    mine = direct.identity("mine")
    direct.weather(f"{word}=1")
    body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {mine.id: {}}}}
    status, _, headers = direct.arm("PATCH", direct.plan.scale_set_id, body)
    assert status == 202
    direct.clock.now += 1
    where, monitored = path_of(headers["Azure-AsyncOperation"]), path_of(headers["Location"])
    operation = direct.made("GET", where)
    assert (operation["status"], operation["error"]["code"]) == (ended, code)
    failed, answer, _ = direct.arm("GET", monitored)
    assert (failed, answer["error"]["code"]) == (409, code)
    found = direct.made("GET", direct.plan.scale_set_id)
    assert found["properties"]["provisioningState"] == "Failed"
    assert mine.id.lower() in str(found["identity"]).lower(), "it was asked for"
    assert await statuses(direct, mine.client_id) == [400, 400]
    direct.weather(f"{word}=0")
    direct.attach(mine)
    assert await statuses(direct, mine.client_id) == [200, 200]


def path_of(url: str) -> str:
    return url.removeprefix("https://management.azure.com")


# ---- What a call to Resource Manager meets; tests/adapters/test_arm.py has the other effects.


@pytest.mark.parametrize(
    ("effect", "status", "code", "words"),
    [
        ("locked", 409, "ScopeLocked", "cannot perform write operation because following scope(s)"),
        (
            "denied",
            403,
            "DenyAssignmentAuthorizationFailed",
            "denied because of the deny assignment with name 'node resource group deny assignment",
        ),
    ],
)
def test_a_lock_or_a_denial_meets_a_write_that_is_allowed_and_no_reading(
    direct: Direct, effect: str, status: int, code: str, words: str
) -> None:
    direct.weather(f"arm=[{{effect: {effect}}}]")
    body = {"identity": {"type": "SystemAssigned"}}
    found, answer, _ = direct.arm("PATCH", direct.plan.scale_set_id, body)
    assert (found, answer["error"]["code"]) == (status, code)
    assert words in answer["error"]["message"]
    assert direct.arm("GET", direct.plan.scale_set_id)[0] == 200

from __future__ import annotations

import email.utils
from collections.abc import Callable

import httpx2
import pytest

from podidentity.core.hosts import Host
from podidentity.core.resources import ResourceId
from podidentity.wire.arm import ArmError
from tests.cli.scripted import (
    CLIENT,
    IDENTITY,
    KUBELET,
    OPERATION,
    SCALE_SET,
    ScriptedArm,
    answer,
    pass_on,
)

HOST = Host.of_node(f"azure://{SCALE_SET}/virtualMachines/0")
WANTED = ResourceId.parse(IDENTITY)


async def attach(arm: ScriptedArm, *, wait: bool = True) -> bool:
    async with arm.client() as client:
        return await client.attach(HOST, WANTED, wait=wait, progress=None)


def attached(arm: ScriptedArm) -> set[str]:
    return arm.blocks[SCALE_SET.lower()]


async def test_an_identity_is_looked_up_by_its_id() -> None:
    arm = ScriptedArm()
    async with arm.client() as client:
        found = await client.identity(WANTED)
    assert str(found.client_id) == CLIENT
    (request,) = arm.requests
    assert request[:2] == (
        "GET",
        f"https://management.azure.com{IDENTITY}?api-version=2024-11-30",
    )
    assert arm.login.scopes == {"https://management.azure.com/.default"}


async def test_attaching_sends_the_difference_alone() -> None:
    arm = ScriptedArm(SCALE_SET)
    assert await attach(arm)
    assert attached(arm) == {KUBELET, IDENTITY}
    assert arm.patches() == [
        {"identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}}
    ]


async def test_what_is_attached_already_is_not_sent() -> None:
    arm = ScriptedArm(SCALE_SET, attached=(KUBELET, IDENTITY.upper()))
    assert not await attach(arm)
    assert arm.patches() == []


async def test_detaching_leaves_the_others() -> None:
    arm = ScriptedArm(SCALE_SET, attached=(KUBELET, IDENTITY.lower()))
    async with arm.client() as client:
        assert await client.detach(HOST, WANTED, progress=None)
        assert not await client.detach(HOST, WANTED, progress=None)
    assert attached(arm) == {KUBELET}


async def test_a_long_operation_is_asked_for_as_often_as_azure_allows() -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.script = [
        pass_on,
        answer(202, Azure_AsyncOperation=OPERATION, Retry_After="10"),
        answer(200, {"status": "InProgress"}, Retry_After="30"),
        answer(200, {"status": "InProgress"}),
        answer(200, {"status": "Succeeded"}),
    ]
    seen: list[float] = []
    async with arm.client() as client:
        assert await client.attach(HOST, WANTED, progress=seen.append)
    assert arm.clock.slept == [10, 30, 5]
    assert seen == [10, 40]
    assert [url for method, url, _ in arm.requests if "operations" in url] == [OPERATION] * 3


async def test_a_long_operation_may_be_known_by_its_location() -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.script = [
        pass_on,
        answer(202, Location=OPERATION),
        answer(202, Retry_After="1"),
        answer(200, {}),
    ]
    assert await attach(arm)
    assert arm.clock.slept == [5, 1]


async def test_without_waiting_it_is_enough_that_azure_accepts() -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.script = [pass_on, answer(202, Azure_AsyncOperation=OPERATION)]
    assert await attach(arm, wait=False)
    assert arm.clock.slept == []


async def test_an_operation_that_never_ends_is_given_up() -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.script = [pass_on, answer(202, Azure_AsyncOperation=OPERATION, Retry_After="100")]
    arm.script += [answer(200, {"status": "InProgress"}, Retry_After="100")] * 20
    with pytest.raises(ArmError, match=r"Timeout: Azure is not done after 1000 s"):
        await attach(arm)


async def test_an_operation_that_fails_raises_azures_reason() -> None:
    arm = ScriptedArm(SCALE_SET)
    failure = {"status": "Failed", "error": {"code": "FailedIdentityOperation", "message": "why"}}
    arm.script = [pass_on, answer(202, Azure_AsyncOperation=OPERATION), answer(200, failure)]
    with pytest.raises(ArmError, match=r"FailedIdentityOperation: why"):
        await attach(arm)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example.com/operations/1",
        "http://management.azure.com/operations/1",
        "https://evilmanagement.azure.com/operations/1",
    ],
)
async def test_the_token_goes_to_no_other_machine(target: str) -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.script = [pass_on, answer(202, Azure_AsyncOperation=target)]
    with pytest.raises(ArmError, match=r"BadAnswer"):
        await attach(arm)
    assert all(url.startswith("https://management.azure.com/") for _, url, _ in arm.requests)


@pytest.mark.parametrize(
    "conflict",
    [
        [answer(409, {"error": {"code": "Conflict", "message": "concurrent request"}})],
        [answer(202, Azure_AsyncOperation=OPERATION), answer(200, {"status": "Canceled"})],
    ],
    ids=["refused", "canceled"],
)
async def test_when_somebody_else_changes_the_host_it_looks_again(
    conflict: list[Callable[[httpx2.Request], httpx2.Response | None]],
) -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.script = [pass_on, *conflict]
    assert await attach(arm)
    assert attached(arm) == {KUBELET, IDENTITY}


async def test_a_conflict_that_stays_is_given_up() -> None:
    arm = ScriptedArm(SCALE_SET)
    conflict = answer(409, {"error": {"code": "Conflict", "message": "busy"}})
    arm.script = [pass_on, conflict] * 10
    with pytest.raises(ArmError, match=r"Conflict: busy"):
        await attach(arm)
    assert len(arm.patches()) == 4


@pytest.mark.parametrize(("after", "slept"), [("7", 7.0), ("date", 30.0)])
async def test_a_short_throttle_is_waited_for(after: str, slept: float) -> None:
    arm = ScriptedArm(SCALE_SET)
    if after == "date":
        after = email.utils.formatdate(arm.clock.now + 30, usegmt=True)
    arm.script = [answer(429, {"error": {"code": "Throttled", "message": "m"}}, Retry_After=after)]
    assert await attach(arm)
    assert arm.clock.slept == [slept]


async def test_a_long_throttle_is_an_error_at_once() -> None:
    arm = ScriptedArm(SCALE_SET)
    body = {"code": "OperationNotAllowed", "message": "too many requests"}
    arm.script = [answer(429, body, Retry_After="1200")]
    with pytest.raises(ArmError, match=r"OperationNotAllowed: too many requests") as caught:
        await attach(arm)
    assert caught.value.status == 429
    assert arm.clock.slept == []


async def test_a_refusal_is_not_repeated() -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.script = [answer(403, {"error": {"code": "AuthorizationFailed", "message": "m"}})]
    with pytest.raises(ArmError, match=r"AuthorizationFailed: m"):
        await attach(arm)
    assert len(arm.requests) == 1


async def test_an_azure_that_cannot_be_reached_is_named() -> None:
    arm = ScriptedArm(SCALE_SET)

    def fail(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("[Errno -2] Name or service not known")

    arm.script = [fail]
    with pytest.raises(
        ArmError, match=r"Unreachable: management.azure.com cannot be asked: .*not known"
    ) as caught:
        await attach(arm)
    assert "secret-token" not in repr(caught.value)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_azures_own_failure_is_waited_for(status: int) -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.script = [answer(status), pass_on, answer(status, Retry_After="7")]
    assert await attach(arm)
    assert arm.clock.slept == [5.0, 7.0]


async def test_a_failure_that_lasts_is_told() -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.script = [answer(500, {"error": {"code": "InternalServerError", "message": "m"}})] * 4
    with pytest.raises(ArmError, match=r"InternalServerError: m"):
        await attach(arm)
    assert len(arm.requests) == 4


async def test_a_connection_that_breaks_is_made_again() -> None:
    arm = ScriptedArm(SCALE_SET)

    def breaks(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("Connection reset by peer")

    arm.script = [pass_on, breaks]
    assert await attach(arm)
    assert (attached(arm), len(arm.patches())) == ({KUBELET, IDENTITY}, 2)


async def test_what_a_failed_change_lists_is_sent_again() -> None:
    """The machines lack it, although the scale set names it."""
    arm = ScriptedArm(SCALE_SET, attached=(KUBELET, IDENTITY))
    arm.states[SCALE_SET.lower()] = ["Failed", "Succeeded"]
    assert await attach(arm)
    assert len(arm.patches()) == 1


@pytest.mark.parametrize("code", ["InternalExecutionError", "OperationPreempted"])
async def test_a_change_that_fails_after_it_was_accepted_is_sent_again(code: str) -> None:
    arm = ScriptedArm(SCALE_SET)
    arm.states[SCALE_SET.lower()] = ["Succeeded", "Failed", "Succeeded"]
    failure = {"status": "Failed", "error": {"code": code, "message": "why"}}
    arm.script = [pass_on, answer(202, Azure_AsyncOperation=OPERATION), answer(200, failure)]
    assert await attach(arm)
    assert len(arm.patches()) == 2


async def test_a_change_that_is_under_way_is_waited_for_and_not_preempted() -> None:
    arm = ScriptedArm(SCALE_SET, attached=(KUBELET, IDENTITY))
    arm.states[SCALE_SET.lower()] = ["Updating", "Updating", "Succeeded"]
    assert not await attach(arm), "somebody else attached it"
    assert (arm.patches(), arm.clock.slept) == ([], [5.0, 5.0])


async def test_a_lock_is_told_and_not_tried_again() -> None:
    arm = ScriptedArm(SCALE_SET)
    locked = answer(409, {"error": {"code": "ScopeLocked", "message": "remove the lock"}})
    arm.script = [pass_on, locked]
    with pytest.raises(ArmError, match=r"ScopeLocked: remove the lock"):
        await attach(arm)
    assert len(arm.patches()) == 1

"""What the agent does while the API server does not say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from podidentity.adapters.permissions import ALLOWED, DENIED, PATIENCE, RbacPermissions
from podidentity.core.errors import NotReady
from podidentity.core.permission import Use
from podidentity.wire.kube import KubeError
from tests.adapters.permissions.reviewing import ABSENT, NIGHT, NO, USE, YES, Server
from tests.fakes import FakeClock


@pytest.mark.parametrize(
    "fault",
    [
        ABSENT,
        KubeError("The API server refused (503).", status=503),
        KubeError("The API server refused (401).", status=401),
        b"<html>",
        b"",
        b'{"status":{"allowed":"yes"}}',
        b'{"kind":"Status"}',
        {"allowed": False, "evaluationError": "webhook: context deadline exceeded"},
    ],
    ids=["absent", "503", "401", "html", "nothing", "no-bool", "no-status", "undecided"],
)
async def test_without_an_answer_the_last_decision_stands_and_none_is_guessed(
    permissions: RbacPermissions,
    server: Server,
    clock: FakeClock,
    fault: Exception | bytes | Mapping[str, Any],
) -> None:
    await permissions.ask(USE)
    server.says = fault
    with pytest.raises(NotReady):
        await permissions.ask(Use(USE.service_account, "other"))
    clock.advance(NIGHT / 2)
    assert await permissions.ask(USE) is True
    assert permissions.known(USE) is True, "nobody waits for what does not come"
    clock.advance(NIGHT / 2)
    with pytest.raises(NotReady):
        await permissions.ask(USE)
    assert permissions.known(USE) is None


async def test_a_refusal_stands_too_while_nobody_can_be_asked(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    server.says = NO
    await permissions.ask(USE)
    server.says = ABSENT
    clock.advance(DENIED)
    assert await permissions.ask(USE) is False
    server.says = YES
    clock.advance(DENIED)
    assert await permissions.ask(USE) is True


async def test_a_server_that_hangs_holds_a_request_for_seconds_only(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE)
    clock.advance(ALLOWED)
    server.open.clear()
    asking = asyncio.gather(
        permissions.ask(USE),
        permissions.ask(Use(USE.service_account, "other")),
        return_exceptions=True,
    )
    for _ in range(3):  # the loop's turns until both have begun to wait
        await asyncio.sleep(0)
    assert clock.slept[-2:] == [PATIENCE, PATIENCE]
    clock.advance(PATIENCE)
    known, unknown = await asking
    assert known is True
    assert isinstance(unknown, NotReady)


async def test_an_agent_that_may_not_ask_says_which_rule_is_missing(
    permissions: RbacPermissions, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.says = KubeError("subjectaccessreviews is forbidden", status=403)
    for _ in range(3):
        with pytest.raises(NotReady, match="create on subjectaccessreviews"):
            await permissions.ask(USE)
    assert ["its role lacks" in line.getMessage() for line in caplog.records] == [True]
    assert permissions.problems()
    server.says = YES
    assert await permissions.ask(USE) is True
    assert not permissions.problems()

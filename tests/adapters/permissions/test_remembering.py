"""What the agent remembers of the API server's decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from podidentity.adapters.permissions import ALLOWED, DENIED, RbacPermissions
from podidentity.core.permission import Use
from tests.adapters.permissions.reviewing import NO, USE, YES, Server, flown
from tests.fakes import CLIENT, FakeClock


async def test_the_question_is_cluster_wide_and_names_all_groups_of_the_account(
    permissions: RbacPermissions, server: Server
) -> None:
    assert permissions.known(USE) is None
    assert await permissions.ask(USE) is True
    assert server.asked == [
        {
            "user": "system:serviceaccount:shop:web",
            "groups": [
                "system:serviceaccounts",
                "system:serviceaccounts:shop",
                "system:authenticated",
            ],
            "resourceAttributes": {
                "verb": "use",
                "group": "aadpodidentity.k8s.io",
                "resource": "azureidentities",
                "name": CLIENT,
            },
        }
    ]
    assert permissions.known(USE) is True


async def test_however_many_wait_one_question_is_asked(
    permissions: RbacPermissions, server: Server
) -> None:
    server.open.clear()
    waiting = [asyncio.create_task(permissions.ask(USE)) for _ in range(20)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    server.open.set()
    assert await asyncio.gather(*waiting) == [True] * 19
    assert len(server.asked) == 1


@pytest.mark.parametrize(("says", "seconds"), [(YES, ALLOWED), (NO, DENIED)])
async def test_a_decision_counts_for_its_time_and_no_longer(
    permissions: RbacPermissions,
    server: Server,
    clock: FakeClock,
    says: Mapping[str, bool],
    seconds: float,
) -> None:
    server.says = says
    assert await permissions.ask(USE) is says["allowed"]
    clock.advance(seconds - 0.1)
    assert permissions.known(USE) is says["allowed"]
    await flown(permissions)
    clock.advance(ALLOWED)
    assert permissions.known(USE) is None


async def test_a_permission_in_use_is_renewed_before_anybody_waits(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE)
    for _ in range(10):
        clock.advance(ALLOWED / 2)
        assert permissions.known(USE) is True
        await flown(permissions)
    assert len(server.asked) == 11
    clock.advance(ALLOWED)
    assert permissions.known(USE) is None, "nobody used it meanwhile"
    assert len(server.asked) == 11


async def test_what_is_taken_back_is_refused_after_the_next_question(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE)
    revision = permissions.revision
    server.says = NO
    clock.advance(ALLOWED / 2)
    assert permissions.known(USE) is True
    await flown(permissions)
    assert permissions.known(USE) is False
    assert permissions.revision > revision


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ({"allowed": True, "evaluationError": "a role is not there"}, True),
        ({"allowed": True, "denied": True}, False),
        ({"allowed": False, "denied": True, "evaluationError": "x"}, False),
        ({"allowed": False, "reason": 'RBAC: clusterrole "x" not found'}, False),
    ],
    ids=str,
)
async def test_what_the_server_decides_is_taken_as_it_is(
    permissions: RbacPermissions, server: Server, status: Mapping[str, Any], allowed: bool
) -> None:
    server.says = status
    assert await permissions.ask(USE) is allowed


async def test_what_was_asked_longest_ago_is_forgotten_first(
    server: Server, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podidentity.adapters.permissions.CAPACITY", 2)
    permissions = RbacPermissions(server, clock)
    uses = [Use(USE.service_account, name) for name in "abc"]
    for use in uses:
        await permissions.ask(use)
    assert [permissions.known(use) for use in uses] == [None, True, True]


async def test_a_start_asks_few_questions_at_once(
    permissions: RbacPermissions, server: Server
) -> None:
    server.open.clear()
    uses = [Use(USE.service_account, str(number)) for number in range(100)]
    asking = [asyncio.create_task(permissions.ask(use)) for use in uses]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(server.asked) < 10
    server.open.set()
    assert all(await asyncio.gather(*asking))

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from podidentity.adapters.permission_cache import (
    ALLOWED,
    DENIED,
    QUESTIONS_AT_ONCE,
    QUESTIONS_PER_SECOND,
    SILENT,
    TIMEOUT,
    RbacPermissions,
)
from podidentity.core.decision import Use
from podidentity.core.errors import NotReady
from podidentity.core.resources import ObjectRef
from podidentity.lasting import ASK_AGAIN
from podidentity.wire.kube import KubeError
from tests.fakes import CLIENT, FakeClock, FakeKubeApi

USE = Use(ObjectRef("shop", "web"), CLIENT)
YES, NO = {"allowed": True}, {"allowed": False}
NIGHT = 12 * 3600.0
LONG_AGO = 0.0
"""Before all that is asked: pods that were always there."""


class Server(FakeKubeApi):
    """Answers reviews with a status, or as badly as a test wants."""

    def __init__(self) -> None:
        self.says: Mapping[str, Any] | bytes | Exception = YES
        self.asked: list[Any] = []
        self.open = asyncio.Event()
        self.open.set()
        self.held = ""
        """The identity whose questions alone wait for `open`; "": all."""
        self.takes = 0.0
        """Seconds from its decision to its answer."""
        self.clock = FakeClock()

    async def ask(self, path: str, question: Mapping[str, Any]) -> bytes:
        assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        self.asked.append(question["spec"])
        if self.held in {"", question["spec"]["resourceAttributes"]["name"]}:
            await self.open.wait()
        says = self.says
        if self.takes:
            await self.clock.sleep(self.takes)
        if isinstance(says, Exception):
            raise says
        return says if isinstance(says, bytes) else json.dumps({"status": says}).encode()


async def flown(permissions: RbacPermissions) -> None:
    """Return when no question is under way."""
    while flights := list(permissions._flights.values()):
        await asyncio.gather(*flights, return_exceptions=True)


async def turns() -> None:
    """Give all tasks a few turns of the loop."""
    for _ in range(10):
        await asyncio.sleep(0)


async def settled(permissions: RbacPermissions, clock: FakeClock, use: Use = USE) -> None:
    """Have the permission asked for; return when the last answer has come."""
    flight = permissions._flight(use)
    await turns()
    if not flight.done():
        clock.advance(ASK_AGAIN)
    await asyncio.wait({flight})


ABSENT = KubeError("The API server cannot be asked: refused.")
FORBIDDEN = KubeError("subjectaccessreviews is forbidden", status=403)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def permissions(server: Server, clock: FakeClock) -> AsyncIterator[RbacPermissions]:
    found = RbacPermissions(server, clock, outlives=NIGHT, jitter=lambda: 0.0)
    yield found
    await found.close()


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
    ],
    ids=["absent", "503", "401", "html", "nothing", "no-bool", "no-status"],
)
async def test_without_an_answer_the_last_decision_stands_and_none_is_guessed(
    permissions: RbacPermissions,
    server: Server,
    clock: FakeClock,
    fault: Exception | bytes | Mapping[str, Any],
) -> None:
    await permissions.ask(USE, LONG_AGO)
    server.says = fault
    with pytest.raises(NotReady):
        await permissions.ask(Use(USE.service_account, "other"), LONG_AGO)
    clock.advance(NIGHT / 2)
    assert await permissions.ask(USE, LONG_AGO) is True
    assert permissions.known(USE, LONG_AGO) is True, "nobody waits for what does not come"
    clock.advance(NIGHT / 2)
    with pytest.raises(NotReady):
        await permissions.ask(USE, LONG_AGO)
    assert permissions.known(USE, LONG_AGO) is None


async def test_while_nobody_can_be_asked_one_tries_every_few_seconds_and_no_longer_than_allowed(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    server.says = ABSENT
    clock.advance(ALLOWED)
    assert await permissions.ask(USE, LONG_AGO) is True
    for seconds, asked in ((DENIED - 1, 2), (1, 3), (DENIED, 4)):
        clock.advance(seconds)
        assert permissions.known(USE, LONG_AGO) is True
        await flown(permissions)
        assert len(server.asked) == asked
    clock.advance(ALLOWED)
    assert permissions.known(USE, LONG_AGO) is None
    clock.advance(NIGHT - clock.monotonic() - 1)
    assert await permissions.ask(USE, LONG_AGO) is True
    clock.advance(1)
    assert permissions.known(USE, LONG_AGO) is None


async def test_a_refusal_is_not_asked_for_again_while_it_counts(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    server.says = NO
    await permissions.ask(USE, LONG_AGO)
    clock.advance(DENIED - 1)
    assert permissions.known(USE, LONG_AGO) is False
    await flown(permissions)
    assert len(server.asked) == 1


async def test_a_refusal_that_nobody_can_renew_counts_as_long_as_a_new_one(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    server.says = NO
    await permissions.ask(USE, LONG_AGO)
    server.says = ABSENT
    clock.advance(DENIED)
    await permissions.ask(USE, LONG_AGO)
    clock.advance(DENIED - 1)
    assert permissions.known(USE, LONG_AGO) is False
    clock.advance(1)
    assert permissions.known(USE, LONG_AGO) is None


async def test_a_refusal_stands_too_while_nobody_can_be_asked(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    server.says = NO
    await permissions.ask(USE, LONG_AGO)
    server.says = ABSENT
    clock.advance(DENIED)
    assert await permissions.ask(USE, LONG_AGO) is False
    server.says = YES
    clock.advance(DENIED)
    assert await permissions.ask(USE, LONG_AGO) is True


async def test_a_server_that_hangs_is_away_after_its_longest_silence(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    clock.advance(ALLOWED)
    server.open.clear()
    known = asyncio.create_task(permissions.ask(USE, LONG_AGO, 80.0))
    other = Use(USE.service_account, "other")
    unknown = asyncio.create_task(permissions.ask(other, LONG_AGO))
    await turns()
    clock.advance(TIMEOUT)
    await turns()
    assert isinstance(unknown.exception(), NotReady)
    assert not known.done(), "it may be slow, and may have revoked the permission"
    while clock.monotonic() < ALLOWED + SILENT:
        clock.advance(TIMEOUT)
        await turns()
    assert await known is True
    for _ in range(10):
        clock.advance(DENIED)
        waits = len(clock.slept)
        assert await permissions.ask(USE, LONG_AGO) is True
        assert len(clock.slept) == waits, "nobody waits any more"
    server.open.set()
    await flown(permissions)
    clock.advance(ALLOWED)
    server.open.clear()
    asking = asyncio.create_task(permissions.ask(USE, LONG_AGO, 80.0))
    await turns()
    assert not asking.done(), "what answered is not away"
    asking.cancel()
    await permissions.close()


async def test_a_server_that_answers_others_is_slow_and_not_away(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    clock.advance(ALLOWED)
    server.open.clear()
    asking = asyncio.create_task(permissions.ask(USE, LONG_AGO, 80.0))
    await turns()
    server.held = CLIENT
    for number in range(20):
        await permissions.ask(Use(USE.service_account, f"other{number}"), LONG_AGO)
        clock.advance(TIMEOUT)
        await turns()
        assert not asking.done()
    server.open.set()
    assert await asking is True


async def test_a_permission_in_doubt_is_not_prolonged_where_the_server_falls_silent(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    clock.advance(ALLOWED)
    server.says = NO
    asking = asyncio.create_task(permissions.ask(USE, LONG_AGO, 80.0))
    await turns()
    server.open.clear()
    while clock.monotonic() < ALLOWED + 80.0:
        clock.advance(1.0)
        await turns()
    with pytest.raises(NotReady):
        await asking
    assert permissions.known(USE, LONG_AGO) is None
    await permissions.close()


async def test_a_permission_in_use_waits_for_no_server_that_begins_to_hang(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    server.open.clear()
    while clock.monotonic() < 5 * ALLOWED:
        clock.advance(1.0)
        waits = len(clock.slept)
        known = permissions.known(USE, LONG_AGO)
        assert known or await permissions.ask(USE, LONG_AGO)
        assert len(clock.slept) == waits
        await turns()
    await permissions.close()


async def test_an_agent_that_may_not_ask_says_which_rule_is_missing(
    permissions: RbacPermissions,
    server: Server,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.says = FORBIDDEN
    await settled(permissions, clock)
    for _ in range(3):
        with pytest.raises(NotReady, match="create on subjectaccessreviews"):
            await permissions.ask(USE, LONG_AGO)
    assert ["its role lacks" in line.getMessage() for line in caplog.records] == [True]
    assert permissions.problems()
    server.says = YES
    assert await permissions.ask(USE, LONG_AGO) is True
    assert not permissions.problems()


async def test_that_nobody_can_be_asked_is_no_fault_of_the_agents_rights(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    for says, problems in ((FORBIDDEN, 1), (ABSENT, 0), (YES, 0)):
        server.says = says
        await settled(permissions, clock)
        assert len(permissions.problems()) == problems


async def test_trouble_and_its_end_are_told_once_each_time(
    permissions: RbacPermissions, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "podidentity.permissions")
    for says in (YES, ABSENT, ABSENT, YES, YES, ABSENT):
        server.says = says
        await permissions.ask(USE, LONG_AGO)
    told = [line.getMessage() for line in caplog.records]
    down = "The API server cannot be asked: refused.; earlier decisions stand"
    assert told == [down, "the API server answers SubjectAccessReviews again", down]


async def test_all_decisions_are_told_with_their_ages(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    clock.advance(5)
    server.says = NO
    other = Use(USE.service_account, "other")
    await permissions.ask(other, LONG_AGO)
    clock.advance(2)
    assert permissions.decisions() == [(USE, True, 7.0), (other, False, 2.0)]


async def test_the_question_is_cluster_wide_and_names_all_groups_of_the_account(
    permissions: RbacPermissions, server: Server
) -> None:
    assert permissions.known(USE, LONG_AGO) is None
    assert await permissions.ask(USE, LONG_AGO) is True
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
    assert permissions.known(USE, LONG_AGO) is True


async def test_however_many_wait_one_question_is_asked(
    permissions: RbacPermissions, server: Server
) -> None:
    server.open.clear()
    waiting = [asyncio.create_task(permissions.ask(USE, LONG_AGO)) for _ in range(20)]
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
    assert await permissions.ask(USE, LONG_AGO) is says["allowed"]
    clock.advance(seconds - 0.1)
    assert permissions.known(USE, LONG_AGO) is says["allowed"]
    await flown(permissions)
    clock.advance(ALLOWED)
    assert permissions.known(USE, LONG_AGO) is None


async def test_a_permission_in_use_is_renewed_before_anybody_waits(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    for _ in range(10):
        clock.advance(ALLOWED / 2)
        assert permissions.known(USE, LONG_AGO) is True
        await flown(permissions)
    assert len(server.asked) == 11
    clock.advance(ALLOWED)
    assert permissions.known(USE, LONG_AGO) is None, "nobody used it meanwhile"
    assert len(server.asked) == 11


async def test_renewals_spread_over_a_quarter_of_the_time(server: Server, clock: FakeClock) -> None:
    permissions = RbacPermissions(server, clock, jitter=lambda: 1.0)
    await permissions.ask(USE, LONG_AGO)
    for seconds, asked in ((0.75 * ALLOWED - 1, 1), (1, 2)):
        clock.advance(seconds)
        assert permissions.known(USE, LONG_AGO) is True
        await flown(permissions)
        assert len(server.asked) == asked


async def test_what_is_taken_back_is_refused_after_the_next_question(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    revision = permissions.revision
    server.says = NO
    clock.advance(ALLOWED / 2)
    assert permissions.known(USE, LONG_AGO) is True
    await settled(permissions, clock)
    assert permissions.known(USE, LONG_AGO) is False
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
    assert await permissions.ask(USE, LONG_AGO) is allowed


async def test_what_was_asked_longest_ago_is_forgotten_first(
    server: Server, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podidentity.adapters.permission_cache.CAPACITY", 2)
    permissions = RbacPermissions(server, clock)
    uses = [Use(USE.service_account, name) for name in "abc"]
    for use in uses:
        await permissions.ask(use, LONG_AGO)
    assert [permissions.known(use, LONG_AGO) for use in uses] == [None, True, True]
    await permissions.ask(uses[1], LONG_AGO)
    await permissions.ask(uses[0], LONG_AGO)
    assert [permissions.known(use, LONG_AGO) for use in uses] == [True, True, None]


async def test_the_permissions_of_one_namespace_end_none_of_another(
    server: Server, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podidentity.adapters.permission_cache.CAPACITY", 20)
    permissions = RbacPermissions(server, clock)
    await permissions.ask(USE, LONG_AGO)
    for number in range(40):
        await permissions.ask(Use(ObjectRef("greedy", "web"), f"id-{number}"), LONG_AGO)
    assert permissions.known(USE, LONG_AGO)
    assert len(permissions.decisions()) == 20


async def test_a_start_asks_few_questions_at_once(
    permissions: RbacPermissions, server: Server
) -> None:
    server.open.clear()
    uses = [Use(USE.service_account, str(number)) for number in range(100)]
    asking = [asyncio.create_task(permissions.ask(use, LONG_AGO)) for use in uses]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(server.asked) < 10
    server.open.set()
    assert all(await asyncio.gather(*asking))


async def test_who_waits_for_a_question_that_is_asked_already_asks_none(
    permissions: RbacPermissions,
) -> None:
    asking = (permissions.ask(USE, LONG_AGO) for _ in range(QUESTIONS_AT_ONCE + 1))
    assert all(await asyncio.gather(*asking))


async def test_closing_ends_the_questions_under_way(
    permissions: RbacPermissions, server: Server
) -> None:
    server.open.clear()
    asking = asyncio.create_task(permissions.ask(USE, LONG_AGO))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await permissions.close()
    assert permissions._flights == {}
    with pytest.raises(asyncio.CancelledError):
        await asking


def tenants(number: int) -> Use:
    """Return a question of tenant's: one of twenty service accounts, one of 500 identities."""
    client_id = f"00000000-0000-4000-8000-{number // 20:012x}"
    return Use(ObjectRef("tenant", f"sa-{number % 20}"), client_id)


async def test_a_namespace_that_asks_for_thousands_leaves_the_api_server_to_others(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    """His identities cost nothing, and each of them was one question in five seconds."""
    await permissions.ask(USE, LONG_AGO)
    server.says = NO
    many = [
        permissions.ask(tenants(number), LONG_AGO) for number in range(QUESTIONS_AT_ONCE + 3000)
    ]
    answers = await asyncio.gather(*many, return_exceptions=True)
    assert answers.count(False) == QUESTIONS_AT_ONCE
    assert all(isinstance(each, NotReady) for each in answers[QUESTIONS_AT_ONCE:])
    assert len(server.asked) == 1 + QUESTIONS_AT_ONCE
    assert await permissions.ask(Use(ObjectRef("bank", "web"), CLIENT), LONG_AGO) is False
    clock.advance(DENIED + 1)
    answers = await asyncio.gather(
        *(permissions.ask(tenants(number), LONG_AGO) for number in range(200))
    )
    assert not any(answers), "a refusal that is no longer fresh stands meanwhile"
    assert len(server.asked) <= 2 + QUESTIONS_AT_ONCE + QUESTIONS_PER_SECOND * (DENIED + 1)


async def test_a_permission_in_use_is_asked_for_however_much_its_namespace_asks(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    """Else he could keep one that was revoked, by asking for others."""
    mine = tenants(0)
    assert await permissions.ask(mine, LONG_AGO)
    server.says = NO
    many = [
        permissions.ask(tenants(number), LONG_AGO) for number in range(1, 3 * QUESTIONS_AT_ONCE)
    ]
    await asyncio.gather(*many, return_exceptions=True)
    clock.advance(ALLOWED)
    others = [permissions.ask(tenants(number), LONG_AGO) for number in range(1, 300)]
    await asyncio.gather(*others, return_exceptions=True)
    await settled(permissions, clock, mine)
    assert permissions.known(mine, LONG_AGO) is False


async def test_a_permission_that_counts_no_more_is_asked_for_though_its_namespace_asks_too_much(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    mine = tenants(0)
    assert await permissions.ask(mine, LONG_AGO)
    clock.advance(ALLOWED)
    server.says = NO
    many = [permissions.ask(tenants(number), LONG_AGO) for number in range(1, 1_000)]
    await asyncio.gather(*many, return_exceptions=True)
    server.says = YES
    assert await permissions.ask(mine, LONG_AGO) is True


async def test_a_refusal_that_is_too_old_is_none_and_its_namespace_that_asks_too_much_waits(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    mine = tenants(0)
    server.says = NO
    assert await permissions.ask(mine, LONG_AGO) is False
    server.says = ABSENT
    clock.advance(NIGHT)
    with pytest.raises(NotReady):
        await permissions.ask(mine, LONG_AGO)
    assert permissions.decisions() == []
    many = [permissions.ask(tenants(number), LONG_AGO) for number in range(1, 1_000)]
    await asyncio.gather(*many, return_exceptions=True)
    with pytest.raises(NotReady, match="too many permissions at once"):
        await permissions.ask(mine, LONG_AGO)


async def test_a_decision_that_stays_as_it_was_is_no_news(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    assert permissions.problems() == ()
    await permissions.ask(USE, LONG_AGO)
    await permissions.ask(USE, LONG_AGO)
    assert permissions.revision == 0
    server.says = NO
    await settled(permissions, clock)
    assert permissions.revision > 0


async def test_what_nobody_waits_for_any_more_is_left_to_nobody(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    """Neither the failure of a question that was given up, nor the time that it had."""
    unheard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    others = asyncio.all_tasks()
    await permissions.ask(USE, LONG_AGO)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == others
    server.open.clear()
    server.says = ABSENT
    asking = asyncio.create_task(permissions.ask(Use(USE.service_account, "other"), LONG_AGO))
    await clock.somebody_sleeps()
    clock.advance(TIMEOUT)
    with pytest.raises(NotReady):
        await asking
    (flight,), over = permissions._flights.values(), asyncio.Event()
    flight.add_done_callback(lambda _: over.set())
    server.open.set()
    await over.wait()
    del flight
    asking = asyncio.create_task(permissions.ask(Use(USE.service_account, "third"), LONG_AGO))
    server.open.clear()
    await clock.somebody_sleeps()
    asking.cancel()
    await permissions.close()
    await asyncio.sleep(0)
    gc.collect()
    assert unheard == []


# Names come again: of a namespace, and of all that is in it.


async def test_a_permission_counts_only_for_pods_that_were_there_when_it_was_asked_for(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    clock.advance(1)
    here = clock.monotonic()
    server.says = NO  # the namespace was made anew, and its grant went with the first
    assert permissions.known(USE, LONG_AGO) is True
    assert permissions.known(USE, here) is None
    await settled(permissions, clock)
    assert permissions.known(USE, here) is False, "now it is asked for"


async def test_a_question_that_was_on_its_way_before_a_pod_came_is_asked_again_for_it(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    server.open.clear()
    old = asyncio.create_task(permissions.ask(USE, LONG_AGO))
    await clock.somebody_sleeps()
    clock.advance(1)
    new = asyncio.create_task(permissions.ask(USE, clock.monotonic()))
    await asyncio.sleep(0)
    server.open.set()
    assert await old is True
    server.says = NO
    await turns()
    assert not new.done()
    clock.advance(ASK_AGAIN)
    await flown(permissions)
    assert permissions.known(USE, 1.0) is False
    await asyncio.gather(new, return_exceptions=True)


async def test_in_an_outage_a_permission_from_before_a_pod_is_none_of_its(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    clock.advance(1)
    server.says = ABSENT
    assert await permissions.ask(USE, LONG_AGO) is True
    asked = len(server.asked)
    with pytest.raises(NotReady, match="whether a new pod may use the identity"):
        await permissions.ask(USE, clock.monotonic())
    assert len(server.asked) == asked + 1


async def test_in_an_outage_a_refusal_from_before_a_pod_stands(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    server.says = NO
    await permissions.ask(USE, LONG_AGO)
    clock.advance(1)
    server.says = ABSENT
    assert await permissions.ask(USE, clock.monotonic()) is False


# An API server that starts: RBAC is empty for 0.3 to 3 s.

NOT_FOUND = {
    "allowed": False,
    "evaluationError": 'rbac: RBAC: [clusterrole.rbac.authorization.k8s.io "use" not found]',
}


@pytest.mark.parametrize("first", [NO, NOT_FOUND, FORBIDDEN], ids=["no", "no role", "403"])
async def test_a_permission_outlives_the_start_of_an_api_server(
    permissions: RbacPermissions,
    server: Server,
    clock: FakeClock,
    first: Mapping[str, Any] | KubeError,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await permissions.ask(USE, LONG_AGO)
    server.says = first
    clock.advance(ALLOWED / 2)
    assert permissions.known(USE, LONG_AGO) is True
    await turns()
    server.says = YES
    clock.advance(ASK_AGAIN - 0.1)
    assert permissions.known(USE, LONG_AGO) is True
    assert permissions.problems() == ()
    clock.advance(0.1)
    await flown(permissions)
    assert (permissions.known(USE, LONG_AGO), len(server.asked)) == (True, 3)
    assert permissions.revision == 0
    assert caplog.records == [], "nobody is accused"


@pytest.mark.parametrize("says", [NO, NOT_FOUND], ids=["binding", "ClusterRole"])
@pytest.mark.parametrize("every", [1.0, 7.0, 29.0, 59.0])
async def test_a_revoked_grant_ends_within_a_minute_however_rarely_it_is_used(
    permissions: RbacPermissions,
    server: Server,
    clock: FakeClock,
    says: Mapping[str, Any],
    every: float,
) -> None:
    """Its binding was deleted right after the last yes, or the ClusterRole of its binding."""
    await permissions.ask(USE, LONG_AGO)
    server.says = says
    served = []
    while clock.monotonic() < 3 * ALLOWED:
        clock.advance(every)
        await turns()
        known = permissions.known(USE, LONG_AGO)
        if known is None:
            asking = asyncio.create_task(permissions.ask(USE, LONG_AGO))
            await turns()
            clock.advance(TIMEOUT)
            try:
                known = await asking
            except NotReady:
                known = None
        await turns()
        if known:
            served.append(clock.monotonic())
    assert max(served) < ALLOWED
    assert known is False


@pytest.mark.parametrize("every", [1, 7, 29, 46, 59, 61, 200])
async def test_a_revoked_grant_ends_within_a_minute_where_each_answer_takes_ten_seconds(
    permissions: RbacPermissions, server: Server, clock: FakeClock, every: int
) -> None:
    """It is revoked right after the API server has decided the first question."""
    server.takes, server.clock = 10.0, clock
    served: list[tuple[float, bool]] = []

    async def request() -> None:
        known = permissions.known(USE, LONG_AGO)
        try:
            yes = await permissions.ask(USE, LONG_AGO, 80.0) if known is None else known
        except NotReady:
            return
        served.append((clock.monotonic(), yes))

    requests = [asyncio.create_task(request())]
    await turns()
    server.says = NO
    while clock.monotonic() < 5 * ALLOWED:
        clock.advance(1.0)
        await turns()
        if clock.monotonic() % every == 0:
            requests.append(asyncio.create_task(request()))
            await turns()
    assert max(at for at, yes in served if yes) < ALLOWED
    assert served[-1][1] is False
    await permissions.close()


@pytest.mark.parametrize("says", [NO, NOT_FOUND])
async def test_a_doubtful_refusal_gives_nothing_to_a_pod_that_never_had_the_permission(
    permissions: RbacPermissions, server: Server, clock: FakeClock, says: Mapping[str, Any]
) -> None:
    server.says = says
    await settled(permissions, clock)
    assert permissions.known(USE, LONG_AGO) is False


async def test_a_refusal_of_the_question_is_a_missing_right_when_it_comes_twice(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    server.says = FORBIDDEN
    permissions._flight(USE)
    await turns()
    clock.advance(ASK_AGAIN - 0.1)
    await turns()
    assert permissions.problems() == ()
    clock.advance(0.1)
    await flown(permissions)
    assert "its role lacks create on subjectaccessreviews" in permissions.problems()[0]


async def test_a_refusal_before_the_connection_is_lost_again_ends_no_permission(
    permissions: RbacPermissions, server: Server, clock: FakeClock
) -> None:
    await permissions.ask(USE, LONG_AGO)
    clock.advance(ALLOWED / 2)
    server.says = NO
    assert permissions.known(USE, LONG_AGO) is True
    await turns()
    server.says = ABSENT
    clock.advance(ASK_AGAIN)
    await flown(permissions)
    clock.advance(ALLOWED - 1)
    assert permissions.known(USE, LONG_AGO) is True

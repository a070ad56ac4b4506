from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from podidentity.cli.rollout import lasts
from podidentity.core.resources import ObjectRef, Pod
from podidentity.nmi.reporting.events import (
    APART,
    LASTING,
    PACE,
    RETRY,
    ROOM,
    AgentWarning,
    AgentWarnings,
    PodEvents,
)
from podidentity.nmi.reporting.metrics import NmiMetrics
from podidentity.telemetry.metrics import Registry
from podidentity.wire.events import AGAIN, OVER, PATH_PROVED, AgentReason, NodeName
from podidentity.wire.kube import KubeError
from tests.fakes import FakeClock, FakeKubeApi, pod

AWAY = KubeError("The API server cannot be asked")
GONE = KubeError("no such event", status=404, reason="NotFound")


class Board(FakeKubeApi):
    """An API server that keeps events, or fails as told."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Mapping[str, Any]]] = []
        self.failures: list[KubeError | None] = []
        self.called = asyncio.Event()

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        return self._take("create", path, body)

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        return self._take("merge", path, body)

    def _take(self, verb: str, path: str, body: Mapping[str, Any]) -> bytes:
        self.sent.append((verb, path, body))
        self.called.set()
        failure = self.failures.pop(0) if self.failures else None
        if failure:
            raise failure
        return b"{}"

    @property
    def counts(self) -> list[tuple[str, int]]:
        return [(verb, body["count"]) for verb, _, body in self.sent]


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.board = Board()
        self.counters = NmiMetrics(Registry()).events
        self.events = PodEvents(self.board, self.clock, self.counters, node="n1")

    def refuse(self, reason: str = "NoBinding", name: str = "orders-0", times: int = 1) -> None:
        for _ in range(times):
            self.events.warn(pod(name), reason, "Nothing is bound.")

    async def settle(self) -> None:
        """Let everything happen that can without the time passing."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settle()

    def count(self, outcome: str) -> int:
        return self.counters.of(outcome).value


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    found = World()
    task = asyncio.create_task(found.events.run())
    yield found
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_first_refusal_is_written_at_once() -> None:
    async with world() as it:
        it.refuse()
        await it.settle()
        ((verb, path, body),) = it.board.sent
        assert (verb, path) == ("create", "/api/v1/namespaces/shop/events")
        assert (body["reason"], body["message"]) == ("NoBinding", "Nothing is bound.")
        assert it.count("written") == 1


async def test_the_same_again_is_counted_and_told_a_minute_later() -> None:
    async with world() as it:
        it.refuse()
        await it.settle()
        it.refuse(times=1000)
        await it.after(PACE)
        await it.after(APART - PACE - 1)
        assert it.board.counts == [("create", 1)]
        await it.after(1)
        assert it.board.counts == [("create", 1), ("merge", 1001)]
        assert it.count("repeated") == 1
        await it.after(10 * APART)
        assert len(it.board.sent) == 2, "nothing happened since"


async def test_reasons_and_pods_have_events_of_their_own_in_time_of_their_own() -> None:
    async with world() as it:
        it.refuse()
        it.refuse("NoLabel")
        it.refuse(name="orders-1")
        for _ in range(3):
            await it.after(PACE)
        assert it.board.counts == [("create", 1)] * 3
        it.refuse()
        await it.after(1)
        it.refuse(name="orders-2")
        await it.after(PACE)
        names = [body["involvedObject"]["name"] for verb, _, body in it.board.sent]
        assert names[-1] == "orders-2", "what is new does not wait for what repeats"


async def test_an_event_that_has_expired_is_written_anew() -> None:
    async with world() as it:
        it.refuse()
        await it.settle()
        it.board.failures = [GONE]
        it.refuse()
        await it.after(PACE)
        await it.after(APART)
        assert it.board.counts == [("create", 1), ("merge", 2), ("create", 2)]


async def test_while_the_api_server_is_away_events_are_dropped_and_told_again_later() -> None:
    async with world() as it:
        it.board.failures = [AWAY]
        it.refuse()
        await it.settle()
        await it.after(PACE)
        await it.after(10 * APART)
        assert it.board.counts == [("create", 1)], "nobody tries what failed again and again"
        assert it.count("failed") == 1
        it.refuse()
        await it.settle()
        assert it.board.counts == [("create", 1), ("create", 1)]


async def test_an_event_whose_answer_was_lost_is_there() -> None:
    async with world() as it:
        it.board.failures = [KubeError("exists", status=409, reason="AlreadyExists")]
        it.refuse()
        await it.settle()
        assert it.count("written") == 1


async def test_a_flood_takes_bounded_memory_and_is_written_at_a_bounded_pace() -> None:
    async with world() as it:
        for number in range(10 * ROOM):
            it.refuse(name=f"pod-{number}")
        assert it.count("dropped") == 9 * ROOM
        await it.settle()
        for _ in range(10):
            await it.after(PACE)
        assert len(it.board.sent) == 11


async def test_what_has_been_written_makes_room() -> None:
    async with world() as it:
        for number in range(ROOM):
            it.refuse(name=f"pod-{number}")
        await it.settle()
        it.refuse(name="another")
        assert it.count("dropped") == 0


def of_tenant(number: int) -> Pod:
    return pod(f"pod-{number}", ref=ObjectRef("tenant", f"pod-{number}"))


async def test_a_namespace_that_has_all_places_makes_room_for_others() -> None:
    """Else its pods, refused again and again, hide what is wrong with a neighbour or the node."""
    async with world() as it:
        for number in range(ROOM):
            it.events.warn(of_tenant(number), "NoBinding", "Nothing is bound.")
        it.refuse(name="orders-0")
        it.events.warn(NodeName("n1"), "PathBroken", "no request arrives", ends="PathProved")
        for number in range(ROOM):
            it.events.warn(of_tenant(number), "NoIdentity", "There is none.")
        for _ in range(4):
            await it.after(PACE)
        told = [body["involvedObject"]["name"] for _, _, body in it.board.sent]
        assert {"orders-0", "n1"} <= set(told)
        assert it.count("dropped") == 1 + ROOM, "a state takes no place"


async def test_the_events_of_one_namespace_end_no_count_of_another() -> None:
    async with world() as it:
        it.refuse()
        await it.settle()
        for number in range(ROOM):
            it.events.warn(of_tenant(number), "NoBinding", "Nothing is bound.")
        it.refuse()
        await it.after(APART)
        await it.after(PACE)
        mine = [(verb, body["count"]) for verb, path, body in it.board.sent if "/shop/" in path]
        assert mine == [("create", 1), ("merge", 2)]


async def test_namespaces_take_turns_however_many_events_one_has() -> None:
    async with world() as it:
        for number in range(100):
            it.events.warn(of_tenant(number), "NoBinding", "Nothing is bound.")
        for name in ("orders-0", "orders-1"):
            it.refuse(name=name)
        for _ in range(4):
            await it.after(PACE)
        told = [body["involvedObject"]["namespace"] for _, _, body in it.board.sent]
        assert told == ["tenant", "shop", "tenant", "shop"]


class Agent(World):
    """An agent that warns, and knows its own pod."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[AgentWarning] = []
        self.own: Pod | None = pod("nmi-x", ref=ObjectRef("kube-system", "nmi-x"))
        self.told = AgentWarnings(
            self.events, self.clock, own=lambda: self.own, warnings=lambda: self.warnings
        )

    async def during(self, seconds: float) -> None:
        """Let so much time pass, at the pace at which the agent looks."""
        for _ in range(int(seconds)):
            await self.after(1)


@asynccontextmanager
async def agent(*warnings: AgentWarning) -> AsyncIterator[Agent]:
    found = Agent()
    found.warnings += warnings
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run()) for run in (found.events.run, found.told.run)]
        await found.settle()
        yield found
        for task in tasks:
            task.cancel()


UNGUARDED = AgentWarning(AgentReason.SOURCES_UNGUARDED, "a pod can lie: no filter; load one")
LACKS = AgentWarning(AgentReason.NODE_LACKS, "there is no lock")


async def test_a_warning_with_another_cause_is_told_at_once_and_with_other_numbers_later() -> None:
    first, more, other = (
        AgentWarning(AgentReason.TOKENS_FAIL, text, cause=text[0])
        for text in ("a: 1 of 9 pods", "a: 2 of 9 pods", "b: 2 of 9 pods")
    )
    async with agent(first) as it:
        await it.during(LASTING + APART)
        for warning in (more, other):
            it.warnings[:] = [warning]
            await it.during(10)
        assert [body["message"] for _, _, body in it.board.sent] == [first.text, other.text]


@pytest.mark.parametrize("since", [10, APART])
async def test_the_end_of_a_warning_with_a_cause_is_told_at_once_and_check_knows_it(
    since: float,
) -> None:
    async with agent(AgentWarning(AgentReason.TOKENS_FAIL, "tokens fail", cause="down")) as it:
        await it.during(LASTING + since)
        it.warnings.clear()
        await it.during(10)
        bodies = [dict(body) for _, _, body in it.board.sent]
    now = it.clock.time()
    assert [(body["message"], lasts(bodies[0] | body, now)) for body in bodies] == [
        ("tokens fail", True),
        (OVER, False),
    ]


async def test_a_warning_that_lasts_is_one_event_on_the_agents_own_pod_counted_again() -> None:
    async with agent(UNGUARDED) as it:
        await it.during(LASTING - 1)
        assert it.board.sent == []
        await it.during(6)
        ((verb, path, body),) = it.board.sent
        assert (verb, path) == ("create", "/api/v1/namespaces/kube-system/events")
        assert body["involvedObject"]["name"] == "nmi-x"
        assert (body["reason"], body["message"]) == ("SourcesUnguarded", UNGUARDED.text)
        await it.during(2 * AGAIN + 10)
        assert it.board.counts == [("create", 1), ("merge", 2), ("merge", 3)]
        it.warnings.clear()
        await it.during(2 * AGAIN)
        assert len(it.board.sent) == 3, "it is over"


async def test_warnings_of_one_reason_are_one_event_and_those_that_come_and_go_are_none() -> None:
    async with agent(LACKS, LACKS._replace(text="no shares; load them")) as it:
        it.warnings.append(UNGUARDED)
        await it.during(LASTING - 2)
        it.warnings.remove(UNGUARDED)
        await it.during(8)
        it.warnings.append(UNGUARDED)
        await it.during(6)
        ((_, _, body),) = it.board.sent
        assert body["message"] == "there is no lock. Also: no shares; load them"


async def test_what_leads_requests_to_the_agent_is_told_within_seconds_of_each_change() -> None:
    async with agent(AgentWarning(AgentReason.BACKEND, "nftables")) as it:
        for backend in ("lrp", "nftables", "lrp"):
            it.warnings[:] = [AgentWarning(AgentReason.BACKEND, backend)]
            await it.during(6)
            assert it.board.sent[-1][2]["message"] == backend
        assert len(it.board.sent) == 4


async def test_an_agent_that_does_not_know_its_pod_writes_none_until_it_does() -> None:
    async with agent(UNGUARDED) as it:
        own, it.own = it.own, None
        await it.during(60)
        assert it.board.sent == []
        it.own = own
        await it.during(6)
        assert len(it.board.sent) == 1


async def test_what_happens_to_a_node_is_an_event_of_the_node_and_its_end_is_no_warning() -> None:
    async with world() as it:
        it.events.warn(NodeName("n1"), AgentReason.PATH_BROKEN, "past the rules")
        await it.settle()
        it.events.tell(NodeName("n1"), PATH_PROVED, "again")
        await it.after(1)
    (_, path, broken), (_, _, proved) = it.board.sent
    assert path == "/api/v1/namespaces/default/events"
    assert broken["involvedObject"]["kind"] == "Node"
    assert [(each["type"], each["reason"]) for each in (broken, proved)] == [
        ("Warning", "PathBroken"),
        ("Normal", "PathProved"),
    ]


async def test_what_ended_before_it_was_written_and_comes_back_is_written_at_once() -> None:
    """A path that breaks and is whole again within a moment, while other events are written."""
    node = NodeName("n1")
    async with world() as it:
        it.events.warn(node, AgentReason.PATH_BROKEN, "no answer", ends=PATH_PROVED)
        it.events.tell(node, PATH_PROVED, "again", ends=AgentReason.PATH_BROKEN)
        await it.settle()
        await it.after(PACE)
        await it.after(PACE)
        it.events.warn(node, AgentReason.PATH_BROKEN, "past the rules", ends=PATH_PROVED)
        await it.settle()
    last = it.board.sent[-1][2]
    assert [body["message"] for _, _, body in it.board.sent] == [
        *("no answer", "again", "past the rules")
    ]
    assert last["lastTimestamp"] > it.board.sent[1][2]["lastTimestamp"]


async def test_a_state_that_could_not_be_written_is_tried_again() -> None:
    async with world() as it:
        slow = KubeError("later", status=429, reason="TooManyRequests", retry_after=30)
        it.board.failures = [AWAY, slow]
        it.events.warn(NodeName("n1"), AgentReason.PATH_BROKEN, "past the rules", ends=PATH_PROVED)
        await it.settle()
        await it.after(PACE)
        await it.after(RETRY)
        await it.after(PACE)
        await it.after(RETRY)
        assert it.board.counts == [("create", 1)] * 2
        await it.after(30)
    assert it.board.counts == [("create", 1)] * 3
    assert (it.count("failed"), it.count("written")) == (2, 1)


async def test_what_comes_back_after_its_end_is_written_at_once_however_often() -> None:
    async with world() as it:
        for _ in range(3):
            it.events.warn(
                NodeName("n1"), AgentReason.PATH_BROKEN, "past the rules", ends=PATH_PROVED
            )
            await it.after(PACE)
            it.events.tell(NodeName("n1"), PATH_PROVED, "again", ends=AgentReason.PATH_BROKEN)
            await it.after(PACE)
    times = [body["lastTimestamp"] for _, _, body in it.board.sent]
    assert times == sorted(set(times)), "each is in a second of its own"
    assert it.board.counts == [
        *(("create", 1), ("create", 1)),
        *(("merge", 2), ("merge", 2)),
        *(("merge", 3), ("merge", 3)),
    ]

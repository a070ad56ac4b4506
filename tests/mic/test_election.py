"""Who of MIC's replicas works, on a clock that the test moves and against an API server in memory.

The server has one Lease and one Endpoints, resource versions, and a watch; it can refuse, hang, or
lose an answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest

from podidentity.core.resources import ObjectRef
from podidentity.lasting import ASK_AGAIN, STARTING
from podidentity.mic.election import (
    BLIND,
    MARGIN,
    RARELY,
    RELEASE_SECONDS,
    REMEMBERED,
    RENEWED,
    SOON,
    Election,
)
from podidentity.wire.kube import ENDPOINTS, LEASES, Event, KubeError, Page
from podidentity.wire.leases import OLD_LOCK
from tests.fakes import FakeClock, FakeKubeApi

LOCK = ObjectRef("default", "aad-pod-identity-mic")
LEASE, OLD = LEASES.path(*LOCK), ENDPOINTS.path(*LOCK)
SECONDS = 15


class Server(FakeKubeApi):
    """An API server with the two objects."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.writes: list[str] = []
        self.before: Callable[[str, str], Any] = lambda _method, _path: None
        """Called before each request; it may raise, or return an awaitable."""
        self.after: Callable[[str, str], Any] = lambda _method, _path: None
        """The same after a write was made, before its answer."""
        self.asked: list[tuple[str, str]] = []
        self.deaf = False
        """Whether no watch tells anything."""
        self._changed = asyncio.Event()
        self._events: list[tuple[int, str, bytes]] = []

    def _put(self, path: str, body: dict[str, Any]) -> bytes:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        kind = "MODIFIED" if path in self.objects else "ADDED"
        self.objects[path] = body
        raw = json.dumps(body).encode()
        self._events.append((self.version, kind, raw))
        self._changed.set()
        self._changed = asyncio.Event()
        return raw

    async def _asked(self, method: str, path: str) -> None:
        self.asked.append((method, path))
        found = self.before(method, path)
        if found is not None:
            await found

    async def _made(self, method: str, path: str, answer: bytes) -> bytes:
        found = self.after(method, path)
        if found is not None:
            await found
        return answer

    async def get(self, path: str) -> bytes:
        await self._asked("GET", path)
        if path not in self.objects:
            raise KubeError("not found", status=404, reason="NotFound")
        return json.dumps(self.objects[path]).encode()

    async def ask(self, path: str, question: Mapping[str, Any]) -> bytes:
        raise AssertionError(f"nobody expects a question at {path}: {question}")

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        await self._asked("POST", path)
        whole = f"{path}/{body['metadata']['name']}"
        if whole in self.objects:
            raise KubeError("already exists", status=409, reason="AlreadyExists")
        self.writes.append(body["spec"]["holderIdentity"])
        return await self._made("POST", path, self._put(whole, json.loads(json.dumps(body))))

    async def replace(self, path: str, body: Mapping[str, Any]) -> bytes:
        await self._asked("PUT", path)
        there = self.objects.get(path)
        if there is None:
            raise KubeError("not found", status=404, reason="NotFound")
        if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise KubeError("changed", status=409, reason="Conflict")
        self.writes.append(body["spec"]["holderIdentity"])
        return await self._made("PUT", path, self._put(path, json.loads(json.dumps(body))))

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        del params
        inside = [each for name, each in self.objects.items() if name.startswith(f"{path}/")]
        items = tuple(msgspec.Raw(json.dumps(each).encode()) for each in inside)
        return Page(items=items, resource_version=str(self.version))

    async def watch(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        resource_version: str,
        opened: Callable[[], None],
    ) -> AsyncGenerator[Event, None]:
        del path, params
        opened()
        seen = int(resource_version)
        while True:
            for version, kind, raw in list(self._events):
                if version > seen and b'"Lease"' in raw and not self.deaf:
                    seen = version
                    yield Event(type=kind, object=msgspec.Raw(raw))
            await self._changed.wait()

    # What a test does

    def lease(self, holder: str, *, renewed: str = "1", seconds: int = SECONDS) -> None:
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "renewTime": renewed,
            "leaseTransitions": 1,
        }
        head = {"kind": "Lease", "metadata": {"namespace": LOCK.namespace, "name": LOCK.name}}
        self._put(LEASE, {**head, "spec": spec})

    def archived(self, holder: str, renewed: str) -> None:
        record = {
            "holderIdentity": holder,
            "leaseDurationSeconds": SECONDS,
            "renewTime": renewed,
            "leaderTransitions": 3,
        }
        meta = {"name": LOCK.name, "annotations": {OLD_LOCK: json.dumps(record)}}
        self._put(OLD, {"kind": "Endpoints", "metadata": meta})

    @property
    def holder(self) -> str:
        found = self.objects.get(LEASE)
        return found["spec"]["holderIdentity"] if found else ""


class Candidate:
    def __init__(self, server: Server, clock: FakeClock, name: str) -> None:
        self.said: list[str] = []
        self.election = Election(
            server,
            clock,
            me=name,
            lock=LOCK,
            seconds=SECONDS,
            jitter=lambda: 0.0,
        )
        self.election.follow(self._led, lambda: self.said.append("lost"))

    def _led(self, until: float) -> None:
        assert until > 0
        if self.said[-1:] != ["led"]:
            self.said.append("led")


async def settle() -> None:
    """Let all that can go on without time go on."""
    for _ in range(200):
        await asyncio.sleep(0)


async def pass_time(clock: FakeClock, seconds: float, step: float = 0.25) -> None:
    await settle()
    for _ in range(round(seconds / step)):
        clock.advance(step)
        await settle()


@asynccontextmanager
async def running(*candidates: Candidate) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.election.run()) for each in candidates]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_first_candidate_leads_at_once_and_renews_four_times_a_duration() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await settle()
        assert (one.election.leading, one.said) == (True, ["led"])
        await pass_time(clock, 60)
    assert (server.holder, one.said) == ("one", ["led"])
    assert len(server.writes) == 1 + 16


async def test_of_two_one_leads_and_the_other_writes_nothing() -> None:
    server, clock = Server(), FakeClock()
    one, two = Candidate(server, clock, "one"), Candidate(server, clock, "two")
    async with running(one, two):
        await pass_time(clock, 120)
        assert [one.election.leading, two.election.leading] == [True, False]
        assert "one leads" in two.election.waits_for
    assert set(server.writes) == {"one"}


async def test_a_planned_stop_hands_over_without_time_passing() -> None:
    server, clock = Server(), FakeClock()
    one, two = Candidate(server, clock, "one"), Candidate(server, clock, "two")
    async with running(one, two):
        await pass_time(clock, 5)
        await one.election.release()
        assert one.said == ["led", "lost"]
        await settle()
        assert [each.election.leading for each in (one, two)] == [False, True]


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (KubeError("cut"), 0.25),
        (KubeError("etcd", status=500), 0.25),
        (KubeError("too many", status=429, retry_after=1), 1.0),
    ],
    ids=["cut", "500", "429"],
)
@pytest.mark.parametrize("lost", [False, True], ids=["not made", "answer lost"])
async def test_a_planned_stop_hands_over_though_the_server_fails_for_a_moment(
    error: KubeError, after: float, *, lost: bool
) -> None:
    server, clock = Server(), FakeClock()
    one, two = Candidate(server, clock, "one"), Candidate(server, clock, "two")
    async with running(one, two):
        await pass_time(clock, 5)
        failures = [error]
        replace = server.replace

        async def failing(path: str, body: Mapping[str, Any]) -> bytes:
            if not failures:
                return await replace(path, body)
            if lost:
                await replace(path, body)
            raise failures.pop()

        server.replace = failing  # type: ignore[method-assign]
        stopping = asyncio.create_task(one.election.release())
        await pass_time(clock, after)
        assert stopping.done()
        await stopping
        await settle()
        assert [each.election.leading for each in (one, two)] == [False, True]


@pytest.mark.parametrize("when", ["before", "after"], ids=["made late", "answered late"])
@pytest.mark.parametrize("at", [0.0, 2.0], ids=["first", "second"])
async def test_a_planned_stop_hands_over_where_the_api_server_is_slow(when: str, at: float) -> None:
    """Whether a renewal is under way or not. Before, the other waited for the end of the Lease."""
    server, clock = Server(), FakeClock()
    setattr(server, when, lambda _method, _path: clock.sleep(3.0))
    one, two = Candidate(server, clock, "one"), Candidate(server, clock, "two")
    async with running(one):
        await pass_time(clock, 30, 0.5)
        async with running(two):
            await pass_time(clock, 6 + at, 0.5)
            stopping = asyncio.create_task(one.election.release())
            await settle()
            assert not one.election.leading, "before anybody else can"
            await pass_time(clock, 9, 0.5)
            assert stopping.done()
            assert (one.election.leading, two.election.leading) == (False, True)


@pytest.mark.parametrize("when", ["before", "after"], ids=["made late", "answered late"])
async def test_a_candidate_that_stops_while_it_takes_the_lease_gives_it_back(when: str) -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        setattr(server, when, lambda _method, _path: clock.sleep(3.0))
        while ("POST", LEASES.path(LOCK.namespace)) not in server.asked:
            await pass_time(clock, 0.25)
        stopping = asyncio.create_task(one.election.release())
        await pass_time(clock, 6.0)
        assert stopping.done()
    assert server.writes == ["one", ""]
    assert one.said == []


async def test_a_planned_stop_waits_no_longer_for_a_server_that_always_fails() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await settle()

        def fail(method: str, path: str) -> None:
            raise KubeError(f"{method} {path}", status=500)

        server.before = fail
        stopping = asyncio.create_task(one.election.release())
        await pass_time(clock, RELEASE_SECONDS - 0.25)
        assert not stopping.done()
        await pass_time(clock, 0.25)
        assert stopping.done()
        await stopping


async def test_a_leader_that_dies_is_replaced_when_its_lease_was_seen_unchanged_for_its_time() -> (
    None
):
    server, clock = Server(), FakeClock()
    server.lease("dead")
    two = Candidate(server, clock, "two")
    async with running(two):
        await pass_time(clock, SECONDS - 0.5)
        assert two.said == []
        await pass_time(clock, 0.5)
        assert two.said == ["led"]
    assert server.objects[LEASE]["spec"]["leaseTransitions"] == 2


async def test_the_times_in_a_lease_decide_nothing() -> None:
    """They are of another machine's clock: an old one may be renewed at this moment."""
    server, clock = Server(), FakeClock()
    server.lease("slow clock", renewed="2001-01-01T00:00:00.000000Z")
    two = Candidate(server, clock, "two")
    async with running(two):
        for second in range(40):
            server.lease("slow clock", renewed=f"2001-01-01T00:00:{second:02}.000000Z")
            await pass_time(clock, 1)
    assert (two.said, server.writes) == ([], [])


@pytest.mark.parametrize(
    ("said", "counts"),
    [(SECONDS // 3, SECONDS // 3), (3 * SECONDS, 3 * SECONDS), (0, SECONDS)],
    ids=["a shorter time", "a longer time", "no time: as ours"],
)
async def test_a_lease_counts_for_as_long_as_its_holder_has_said(said: int, counts: int) -> None:
    server, clock = Server(), FakeClock()
    server.lease("another's flags", seconds=said)
    two = Candidate(server, clock, "two")
    async with running(two):
        await pass_time(clock, counts - 0.5)
        assert not two.election.leading
        await pass_time(clock, 0.5 + SECONDS * RENEWED)
        assert two.election.leading


async def test_a_leader_waits_for_a_renewal_no_longer_than_it_may_lead() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 60)

        async def never(path: str, body: Mapping[str, Any]) -> bytes:
            del path, body
            await asyncio.Event().wait()
            return b""

        server.replace = never  # type: ignore[method-assign]
        await pass_time(clock, SECONDS)
        assert not one.election.leading
        assert one.said == ["led", "lost"]
        (trouble,) = one.election.problems()
        assert trouble == f"the API server does not answer about the Lease {LOCK} in time"


async def test_a_lease_that_was_given_up_is_taken_without_waiting() -> None:
    server, clock = Server(), FakeClock()
    server.lease("", seconds=1)
    two = Candidate(server, clock, "two")
    async with running(two):
        await settle()
        assert two.election.leading


async def test_a_leader_whose_renewals_fail_stops_before_another_may_begin_and_does_not_exit() -> (
    None
):
    server, clock = Server(), FakeClock()
    one, two = Candidate(server, clock, "one"), Candidate(server, clock, "two")
    async with running(one, two):
        await pass_time(clock, 5)

        def fail(method: str, path: str) -> None:
            del path
            if method == "PUT":
                raise KubeError("down", status=500)

        server.before = fail
        both_at_once, stopped = 0, 0.0
        for _ in range(120):
            await pass_time(clock, 0.25)
            both_at_once += one.election.leading and two.election.leading
            if not one.election.leading and not stopped:
                stopped = clock.monotonic()
        assert (both_at_once, one.said) == (0, ["led", "lost"])
        assert stopped <= 5 + SECONDS - MARGIN + 0.25
        assert one.election.problems() == ("down",)
        server.before = lambda _method, _path: None
        await pass_time(clock, SECONDS)
        assert one.election.leading != two.election.leading
        assert not one.election.problems() or not two.election.problems()


async def test_a_renewal_that_is_never_answered_ends_leadership_in_time() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 5)
        server.before = lambda _method, _path: asyncio.Event().wait()
        await pass_time(clock, SECONDS - MARGIN)
        assert (one.election.leading, one.said) == (False, ["led", "lost"])


async def test_a_leader_that_stood_still_past_its_lease_knows_it_before_its_next_turn() -> None:
    """The process was stopped: nothing of it ran, and it may not write when it wakes."""
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await settle()
        clock._now += 60  # no task has run
        assert not one.election.leading


async def test_a_lease_that_another_one_took_is_his() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 1)
        server.lease("other", renewed="2")
        await settle()
        assert (one.election.leading, one.said) == (False, ["led", "lost"])
    assert server.holder == "other"


async def test_a_lease_that_somebody_deleted_is_nobodys_until_it_is_made_anew() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 1)
        del server.objects[LEASE]
        await pass_time(clock, SECONDS * RENEWED)
        assert (one.said, one.election.problems()) == (["led", "lost"], ())
        await pass_time(clock, SECONDS * RENEWED)
        assert (one.said, server.holder) == (["led", "lost", "led"], "one")


async def test_a_lease_that_another_one_took_is_his_though_no_watch_told_it() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 1)
        server.objects[LEASE]["spec"]["holderIdentity"] = "other"
        server.objects[LEASE]["metadata"]["resourceVersion"] = "900"
        await pass_time(clock, SECONDS * RENEWED)
        assert (one.election.leading, one.said) == (False, ["led", "lost"])
        assert "other leads" in one.election.waits_for


async def test_an_answer_that_takes_a_second_counts() -> None:
    server, clock = Server(), FakeClock()
    server.before = lambda _method, _path: clock.sleep(1.0)
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 4 * SECONDS)
        assert (one.election.leading, one.said) == (True, ["led"])
        assert one.election.problems() == ()


async def test_a_server_that_does_not_answer_is_a_problem_and_nobody_is_said_to_lead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await settle()
        server.before = lambda _method, _path: asyncio.Event().wait()
        await pass_time(clock, SECONDS)
        assert all("does not answer" in problem for problem in one.election.problems())
        assert one.election.waits_for == "the Lease is not taken yet"
        assert "could not be renewed in time" in caplog.text


async def test_a_planned_stop_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await settle()
        await one.election.release()
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_a_lease_that_somebody_annotated_is_still_its_holders() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await settle()
        server._put(LEASE, json.loads(json.dumps(server.objects[LEASE])))
        await pass_time(clock, SECONDS)
        assert (one.election.leading, one.said) == (True, ["led"])


async def test_an_archived_controllers_lock_is_waited_for_and_named() -> None:
    server, clock = Server(), FakeClock()
    server.archived("mic-5d8f", "1")
    one = Candidate(server, clock, "one")
    async with running(one):
        for second in range(30):
            server.archived("mic-5d8f", str(second))
            await pass_time(clock, 1)
        assert one.said == []
        assert "mic-5d8f" in one.election.waits_for
        assert "delete its Deployment" in one.election.waits_for
        await pass_time(clock, SECONDS)
        assert one.election.leading


async def test_an_archived_controllers_lease_is_waited_for_and_named() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    server.lease("mic-5d8f")
    async with running(one):
        for second in range(30):
            server.lease("mic-5d8f", renewed=f"2024-01-01T00:00:{second:02}.000000Z")
            await pass_time(clock, 1)
        assert (one.said, server.writes) == ([], [])
        assert "mic-5d8f" in one.election.waits_for
        await pass_time(clock, SECONDS)
        assert one.election.leading


async def test_a_leader_gives_way_to_an_archived_controller_that_begins() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 1)
        server.archived("mic-5d8f", "1")
        await pass_time(clock, RARELY)
        assert (one.election.leading, one.said) == (False, ["led", "lost"])


async def test_a_renewal_on_its_way_does_not_outlive_the_sight_of_the_archived_lock() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, RARELY - 1)
        server.after = lambda method, _path: clock.sleep(3.0) if method == "PUT" else None
        server.archived("mic-5d8f", "1")
        await pass_time(clock, 10)
        assert (one.election.leading, one.said) == (False, ["led", "lost"])


def _reads(server: Server) -> int:
    return server.asked.count(("GET", OLD))


async def test_the_archived_lock_is_read_rarely_until_it_was_seen_and_then_often() -> None:
    """Each read marks a deprecated API as in use."""
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 60)
        assert _reads(server) == 1 + 60 / RARELY
        server.archived("mic-5d8f", "1")
        await pass_time(clock, RARELY + SECONDS)
        assert one.election.leading, "the archived lock has run out"
        before = _reads(server)
        await pass_time(clock, 60)
        assert _reads(server) == before + 60 / SOON
        await pass_time(clock, REMEMBERED)
        before = _reads(server)
        await pass_time(clock, 60)
        assert _reads(server) == before + 60 / RARELY


@pytest.mark.parametrize("hangs", [False, True], ids=["refused", "no answer"])
async def test_a_leader_that_cannot_read_the_archived_lock_leads_on_for_a_minute(
    caplog: pytest.LogCaptureFixture, *, hangs: bool
) -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await settle()

        def fail(method: str, path: str) -> Any:
            if path != OLD:
                return None
            if hangs:
                return asyncio.Event().wait()
            raise KubeError(f"no {method}", status=500)

        server.before = fail
        await pass_time(clock, BLIND - 0.25)
        assert (one.election.leading, one.said) == (True, ["led"])
        await pass_time(clock, 0.5)
        assert (one.election.leading, one.said) == (False, ["led", "lost"])
        assert "AAD Pod Identity's controller may work, and cannot be seen" in caplog.text
        server.before = lambda _method, _path: None
        await pass_time(clock, SECONDS)
        assert one.election.leading


async def test_a_candidate_leads_only_after_a_read_of_the_archived_lock() -> None:
    server, clock = Server(), FakeClock()
    server.before = lambda _method, path: clock.sleep(4.0) if path == OLD else None
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 3.75)
        assert server.writes == []
        await pass_time(clock, 0.25)
        assert one.election.leading


async def test_an_unanswered_renewal_is_sent_again_and_counts_from_the_first_if_it_was_made() -> (
    None
):
    server, clock = Server(), FakeClock()
    server.deaf = True
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, SECONDS * RENEWED - 0.25)
        sent = clock.monotonic() + 0.25
        server.after = lambda method, _path: asyncio.Event().wait() if method == "PUT" else None
        await pass_time(clock, 0.25)
        made = len(server.writes)
        await pass_time(clock, (SECONDS - MARGIN) / 2)
        assert len(server.writes) == made + 1, "after the conflict it is sent with the new version"
        # This one is made without an answer, too. The lead ends by the first.
        await pass_time(clock, sent + SECONDS - MARGIN - clock.monotonic() - 0.25)
        assert one.election.leading
        await pass_time(clock, 0.25)
        assert not one.election.leading


async def test_a_lease_that_somebody_changed_gives_an_unanswered_renewal_no_time() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await settle()
        server.before = lambda method, _path: asyncio.Event().wait() if method == "PUT" else None
        await pass_time(clock, 5)
        server._put(LEASE, json.loads(json.dumps(server.objects[LEASE])))
        await pass_time(clock, SECONDS - MARGIN - 5 - 0.25)
        assert one.election.leading
        await pass_time(clock, 0.25)
        assert not one.election.leading


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("least", "most"), [(2.0, 3.0), (4.0, 6.0)])
async def test_slow_answers_change_no_leader(least: float, most: float, seed: int) -> None:
    server, clock, chance = Server(), FakeClock(), Random(seed)  # noqa: S311 - no secret
    server.before = lambda _method, _path: clock.sleep(chance.uniform(least, most))
    one, two = Candidate(server, clock, "one"), Candidate(server, clock, "two")
    async with running(one, two):
        await pass_time(clock, 600)
    assert sorted([one.said, two.said]) == [[], ["led"]]


@pytest.mark.parametrize("seed", range(12))
async def test_two_candidates_never_lead_at_once_whatever_the_server_does(seed: int) -> None:
    """Requests and answers are late, lost or refused, and others write to the Lease."""
    server, clock, chance = Server(), FakeClock(), Random(seed)  # noqa: S311 - no secret
    worst = chance.choice([1.0, 4.0, 9.0])

    def late(_method: str, _path: str) -> Any:
        dice = chance.random()
        if dice < 0.05:
            raise KubeError("the connection broke")
        if dice < 0.1:
            return asyncio.Event().wait()
        return clock.sleep(chance.uniform(0, worst)) if dice < 0.8 else None

    server.before = server.after = late
    candidates = [Candidate(server, clock, name) for name in ("one", "two", "three")]
    led = set[int]()
    async with running(*candidates):
        for _ in range(1200):
            await pass_time(clock, 0.5)
            leaders = [each for each in candidates if each.election.leading]
            assert len(leaders) <= 1
            led.update(id(each) for each in leaders)
            if LEASE in server.objects and chance.random() < 0.02:
                server._put(LEASE, json.loads(json.dumps(server.objects[LEASE])))
    assert led


async def test_a_deleted_lease_is_not_taken_before_its_holders_time_ends() -> None:
    server, clock = Server(), FakeClock()
    server.lease("other")
    two = Candidate(server, clock, "two")
    async with running(two):
        await pass_time(clock, 5)
        del server.objects[LEASE]
        await pass_time(clock, SECONDS - 5 - 0.25)
        assert not two.election.leading
        await pass_time(clock, 0.5)
        assert two.election.leading


async def test_a_renewal_keeps_what_others_wrote_beside_the_lease() -> None:
    server, clock = Server(), FakeClock()
    one = Candidate(server, clock, "one")
    async with running(one):
        await settle()
        changed = json.loads(json.dumps(server.objects[LEASE]))
        changed["metadata"]["labels"] = {"team": "a"}
        server._put(LEASE, changed)
        await pass_time(clock, SECONDS)
        assert server.objects[LEASE]["metadata"]["labels"] == {"team": "a"}


async def test_a_right_is_called_missing_only_after_a_second_refusal() -> None:
    """An API server that starts refuses rights that exist, for some seconds."""
    server, clock = Server(), FakeClock()

    def refuse(method: str, path: str) -> None:
        if path == OLD:
            raise KubeError(f"may not {method}", status=403, reason="Forbidden")

    server.before = refuse
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, ASK_AGAIN - 0.25)
        assert not one.election.leading
        assert one.election.problems() == (STARTING,)
        await pass_time(clock, SOON)
        (problem,) = one.election.problems()
        assert "get on endpoints" in problem


async def test_rubbish_in_the_lock_is_a_problem_and_no_crash() -> None:
    server, clock = Server(), FakeClock()
    server._put(OLD, {"metadata": {"annotations": {OLD_LOCK: "{"}}})
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 5)
        (problem,) = one.election.problems()
        assert OLD_LOCK in problem
        del server.objects[OLD]
        await pass_time(clock, 5)
        assert one.election.leading

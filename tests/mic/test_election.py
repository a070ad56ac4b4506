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
from typing import Any

import msgspec
import pytest

from podidentity.core.resources import ObjectRef
from podidentity.mic.election import RELEASE_SECONDS, RENEWED, TRUSTED, Election
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
        found = self.before(method, path)
        if found is not None:
            await found

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
        return self._put(whole, json.loads(json.dumps(body)))

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        await self._asked("PATCH", path)
        there = self.objects.get(path)
        if there is None:
            raise KubeError("not found", status=404, reason="NotFound")
        if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise KubeError("changed", status=409, reason="Conflict")
        self.writes.append(body["spec"]["holderIdentity"])
        made = json.loads(json.dumps(there))
        made["spec"] |= body["spec"]
        return self._put(path, made)

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
                if version > seen and b'"Lease"' in raw:
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
        merge = server.merge

        async def failing(path: str, body: Mapping[str, Any]) -> bytes:
            if not failures:
                return await merge(path, body)
            if lost:
                await merge(path, body)
            raise failures.pop()

        server.merge = failing  # type: ignore[method-assign]
        stopping = asyncio.create_task(one.election.release())
        await pass_time(clock, after)
        assert stopping.done()
        await stopping
        await settle()
        assert [each.election.leading for each in (one, two)] == [False, True]


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

        server.merge = never  # type: ignore[method-assign]
        await pass_time(clock, SECONDS)
        assert not one.election.leading
        assert one.said == ["led", "lost"]
        (trouble,) = one.election.problems()
        assert trouble == "the API server does not answer about the Lease in time"


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
            if method == "PATCH":
                raise KubeError("down", status=500)

        server.before = fail
        both_at_once, stopped = 0, 0.0
        for _ in range(120):
            await pass_time(clock, 0.25)
            both_at_once += one.election.leading and two.election.leading
            if not one.election.leading and not stopped:
                stopped = clock.monotonic()
        assert (both_at_once, one.said) == (0, ["led", "lost"])
        assert stopped <= 5 + SECONDS * TRUSTED + 0.25
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
        await pass_time(clock, SECONDS * TRUSTED)
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
        (problem,) = one.election.problems()
        assert "does not answer" in problem
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
        await pass_time(clock, SECONDS / 4)
        assert (one.election.leading, one.said) == (False, ["led", "lost"])


async def test_without_the_right_nobody_leads_and_it_is_said_which_is_missing() -> None:
    server, clock = Server(), FakeClock()

    def refuse(method: str, path: str) -> None:
        if path == OLD:
            raise KubeError(f"may not {method}", status=403, reason="Forbidden")

    server.before = refuse
    one = Candidate(server, clock, "one")
    async with running(one):
        await pass_time(clock, 5)
        assert not one.election.leading
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

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podidentity.adapters.kube import Kube
from podidentity.adapters.reflector import LONGEST_DELAY, Reflector, Source, in_turns
from podidentity.core.resources import ObjectRef
from podidentity.wire.kube import WATCH_SECONDS, Page
from tests.adapters.scripted import (
    Conversation,
    Script,
    Turn,
    answers,
    cuts,
    hangs,
    scripted,
)
from tests.fakes import FakeClock, ImpatientClock


class Told:
    """Records the callbacks of a source, and waits for them."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.removed: list[str] = []
        self.left_out: list[str | None] = []
        self.lists = 0
        self.doubts: list[int] = []
        """How much had been listed at each."""
        self._changed = asyncio.Event()

    def put(self, raw: msgspec.Raw) -> object:
        found = json.loads(bytes(raw))
        if found.get("unreadable"):
            raise ValueError("it is unreadable")
        if found.get("defect"):
            raise RecursionError("nobody thought of this")
        self.known[found["metadata"]["name"]] = found.get("value")
        self._changed.set()
        return found.get("value")

    def leave_out(self, _: str, ref: ObjectRef | None) -> None:
        self.left_out.append(ref and ref.name)

    def remove(self, ref: ObjectRef) -> None:
        self.known.pop(ref.name, None)
        self.removed.append(ref.name)
        self._changed.set()

    def doubted(self) -> None:
        self.doubts.append(self.lists)

    def failed(self) -> None:
        self._changed.set()

    async def trouble(self, reflector: Reflector, words: str) -> None:
        """Return when the reflector says these words of its trouble."""
        while words not in reflector.trouble:
            self._changed.clear()
            await self._changed.wait()

    def listed(self) -> None:
        self.lists += 1
        self._changed.set()

    async def until(self, known: dict[str, Any], lists: int = 0) -> None:
        """Return when exactly these objects are known, after so many lists."""
        while self.known != known or self.lists < lists:
            self._changed.clear()
            await self._changed.wait()


def thing(name: str, version: str = "", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "resourceVersion": version}, **more}


def listing(version: str, *objects: dict[str, Any]) -> Turn:
    return answers({"metadata": {"resourceVersion": version}, "items": list(objects)})


def watching(*events: tuple[str, dict[str, Any]], then: str = "hang") -> Turn:
    """Return a turn that sends these events and then hangs, ends, or is cut off."""

    async def turn(conversation: Conversation) -> None:
        await conversation.begin()
        for kind, content in events:
            await conversation.event(kind, **content)
        if then == "hang":
            await hangs(conversation)
        elif then == "end":
            await conversation.end()
        else:
            conversation.cut()

    return turn


@asynccontextmanager
async def reflected(
    folder: Path, *turns: Turn, clock: FakeClock | None = None, jitter: float = 1.0
) -> AsyncIterator[tuple[Told, Reflector, Script]]:
    """Run a reflector against a scripted API server."""
    told = Told()
    async with scripted(*turns) as server:
        config: dict[str, Any] = {"clusters": [{"name": "c", "cluster": {"server": server.url}}]}
        config |= {"contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}
        path = folder / "config"
        path.write_text(json.dumps(config))
        kube = Kube.connect(str(path), user_agent="t", trust_env=False)
        source = Source(
            what="things",
            path="/things",
            params={"fieldSelector": "a=b"},
            put=told.put,
            remove=told.remove,
            listed=told.listed,
            doubted=told.doubted,
            failed=told.failed,
            budget=11_000,
            left_out=told.leave_out,
        )
        reflector = Reflector(kube, source, clock=clock or ImpatientClock(), jitter=lambda: jitter)
        running = asyncio.create_task(reflector.run())
        try:
            yield told, reflector, server
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await kube.close()


async def test_what_is_listed_and_what_happens_after_it_is_told(tmp_path: Path) -> None:
    turns = (
        listing("5", thing("a", value=1), thing("b", value=1)),
        watching(
            ("MODIFIED", thing("a", "6", value=2)),
            ("DELETED", thing("b", "7")),
            ("ADDED", thing("c", "8", value=3)),
        ),
    )
    async with reflected(tmp_path, *turns) as (told, reflector, server):
        before = reflector.synced
        await told.until({"a": 2, "c": 3})
        assert (before, reflector.synced) == (False, True)
        assert told.lists == 1
        assert "fieldSelector=a%3Db" in server.asked[0].query
        assert "fieldSelector=a%3Db" in server.asked[1].query
        assert "resourceVersion=5" in server.asked[1].query


async def test_a_watch_that_the_server_ends_is_resumed_where_it_was(tmp_path: Path) -> None:
    clock = FakeClock()

    async def to_its_end(conversation: Conversation) -> None:
        await conversation.begin()
        await conversation.event("ADDED", **thing("a", "6"))
        clock.advance(WATCH_SECONDS)
        await conversation.end()

    turns = (listing("5"), to_its_end, watching(("ADDED", thing("b", "7"))))
    async with reflected(tmp_path, *turns, clock=clock) as (told, _, server):
        await told.until({"a": None, "b": None})
        assert told.lists == 1
        assert "resourceVersion=6" in server.asked[2].query
    assert clock.slept == [], "an orderly end is no reason to wait"


async def test_a_bookmark_moves_the_place_and_tells_nothing(tmp_path: Path) -> None:
    turns = (
        listing("5"),
        watching(("BOOKMARK", {"metadata": {"resourceVersion": "90"}}), then="end"),
        listing("90"),
        watching(("ADDED", thing("a", "91"))),
    )
    async with reflected(tmp_path, *turns) as (told, _, server):
        await told.until({"a": None})
        assert "resourceVersion=90" in server.asked[3].query


@pytest.mark.parametrize("then", ["cut", "end"])
async def test_what_is_known_stays_while_the_server_is_away(tmp_path: Path, then: str) -> None:
    turns = (
        listing("5", thing("a")),
        watching(then=then),
        *[cuts] * 12,
        listing("6", thing("a")),
        watching(("ADDED", thing("b", "7"))),
    )
    clock = ImpatientClock()
    async with reflected(tmp_path, *turns, clock=clock) as (told, reflector, _server):
        await told.until({"a": None, "b": None}, lists=2)
        assert reflector.synced
        assert not reflector.trouble
    assert clock.slept[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(clock.slept) == LONGEST_DELAY


LOST: dict[str, tuple[list[Turn], list[Turn]]] = {
    "the first list": ([cuts] * 9, [listing("6", thing("b")), watching()]),
    "a list": (
        [listing("5", thing("a")), watching(then="cut"), *[cuts] * 9],
        [listing("6", thing("b")), watching()],
    ),
    "a watch": (
        [listing("5", thing("a"))],
        [listing("7"), watching(("DELETED", thing("a", "6")), ("ADDED", thing("b", "7")))],
    ),
}
"""What a server answers, or cuts, before it loses that request, and after it."""


@pytest.mark.parametrize("lost", LOST)
async def test_what_is_true_is_known_30_s_after_a_hung_server_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    clock, hung, loop = ImpatientClock(), asyncio.Event(), asyncio.get_running_loop()
    began = loop.time()
    monkeypatch.setattr(loop, "time", lambda: began + clock.monotonic())

    async def hangs_for_the_last_time(conversation: Conversation) -> None:
        hung.set()
        await hangs(conversation)

    before, after = LOST[lost]
    turns = (*before, hangs_for_the_last_time, *after)
    async with reflected(tmp_path, *turns, clock=clock) as (told, _, _server):
        await hung.wait()
        answers_again, rests = clock.monotonic(), len(clock.slept)
        while len(clock.slept) == rests:
            clock.advance(1)
            for _ in range(100):
                await asyncio.sleep(0)
        await told.until({"b": None})
        assert clock.monotonic() - answers_again <= 30


async def test_trouble_is_said_while_it_lasts(tmp_path: Path) -> None:
    clock = FakeClock()
    refusal = answers({"code": 500, "reason": "InternalError", "message": "no etcd"}, 500)
    async with reflected(tmp_path, refusal, listing("5"), watching(), clock=clock) as found:
        told, reflector, _ = found
        await clock.somebody_sleeps()
        assert "no etcd" in reflector.trouble
        assert not reflector.synced
        clock.advance(0.1)
        await told.until({}, lists=1)


@pytest.mark.parametrize("before", [(), (cuts,)], ids=["at first", "after a lost connection"])
async def test_a_403_is_told_in_the_servers_words_only_if_it_comes_again_5_s_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: tuple[Turn, ...]
) -> None:
    clock = FakeClock()
    refusal = answers({"code": 403, "reason": "Forbidden", "message": "no rights"}, 403)
    async with reflected(tmp_path, *before, *[refusal] * 20, clock=clock) as found:
        told, reflector, _ = found
        await clock.somebody_sleeps()
        while clock.monotonic() < 5:
            assert "no rights" not in reflector.trouble
            clock.advance(0.1)
            await asyncio.sleep(0.001)
        clock.advance(LONGEST_DELAY)
        await clock.somebody_sleeps()
        await told.trouble(reflector, "no rights")
        clock.advance(LONGEST_DELAY)
        await clock.somebody_sleeps()
    lines = [each.getMessage() for each in caplog.records if "cannot watch" in each.getMessage()]
    assert ["no rights" in each for each in lines] == [False, True]


async def test_a_list_that_may_not_be_watched_is_told_in_the_servers_words(tmp_path: Path) -> None:
    refusal = answers({"code": 403, "reason": "Forbidden", "message": "no watch"}, 403)
    turns = [listing("5"), refusal] * 20
    async with reflected(tmp_path, *turns) as (told, reflector, _), asyncio.timeout(_HEARD):
        await told.trouble(reflector, "no watch")


async def test_while_the_server_is_away_the_age_of_what_is_known_grows(tmp_path: Path) -> None:
    clock = FakeClock()
    turns = (listing("5"), watching(then="cut"), cuts)
    async with reflected(tmp_path, *turns, clock=clock) as (told, reflector, _):
        await told.until({}, lists=1)
        await clock.somebody_sleeps()
        clock.advance(0.1)
        assert reflector.stale == pytest.approx(0.1)
        while clock.monotonic() < 95:
            clock.advance(LONGEST_DELAY)
            await clock.somebody_sleeps()
        assert reflector.stale == pytest.approx(clock.monotonic())


@pytest.mark.parametrize("bookmarks", [True, False])
async def test_a_server_that_falls_silent_in_a_watch_is_away_if_it_sends_bookmarks(
    tmp_path: Path, *, bookmarks: bool
) -> None:
    """A watch of a server that was stopped stays open: the kernel answers its probes."""
    clock = FakeClock()
    first = ("BOOKMARK" if bookmarks else "ADDED", thing("a", "6"))
    turns = (listing("5"), watching(first, ("MODIFIED", thing("b", "7"))))
    async with reflected(tmp_path, *turns, clock=clock) as (told, reflector, _):
        await told.until({"b": None} if bookmarks else {"a": None, "b": None})
        clock.advance(89)
        assert reflector.stale == 0
        clock.advance(1)
        assert reflector.stale == (90 if bookmarks else 0)
        assert reflector.trouble == ""


async def test_too_old_a_version_is_listed_anew_and_what_vanished_is_removed(
    tmp_path: Path,
) -> None:
    turns = (
        listing("5", thing("a", value=1), thing("gone", value=1)),
        watching(("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})),
        listing("50", thing("a", value=2)),
        watching(("ADDED", thing("b", "51"))),
    )
    async with reflected(tmp_path, *turns) as (told, _, server):
        await told.until({"a": 2, "b": None}, lists=2)
        assert "resourceVersion=50" in server.asked[3].query


async def test_a_410_as_an_answer_is_listed_anew_too(tmp_path: Path) -> None:
    turns = (
        listing("5", thing("a")),
        answers({"code": 410, "reason": "Expired", "message": "too old"}, 410),
        listing("50", thing("b")),
        watching(),
    )
    async with reflected(tmp_path, *turns) as (told, _, _server):
        await told.until({"b": None}, lists=2)


# As kube-apiserver 1.37 says it to a watch from a version that it has not reached:
# https://github.com/kubernetes/apiserver/blob/master/pkg/storage/errors.go
TOO_LARGE = {
    "code": 504,
    "reason": "Timeout",
    "message": "Timeout: Too large resource version: 900, current: 5",
}
_HEARD = 60.0
"""Seconds after which a test fails, because the reflector does not react."""


async def test_after_the_history_went_back_a_reflector_lists_again(tmp_path: Path) -> None:
    """An etcd that was restored from a backup: versions are smaller than the one we are at."""
    turns = (
        listing("900", thing("deleted"), thing("kept")),
        answers(TOO_LARGE, 504),
        listing("5", thing("kept")),
        watching(("ADDED", thing("new", "6"))),
    )
    async with reflected(tmp_path, *turns) as (told, _, server), asyncio.timeout(_HEARD):
        await told.until({"kept": None, "new": None}, lists=2)
        assert "resourceVersion=5" in server.asked[3].query
        assert told.doubts == [1]


@pytest.mark.parametrize("then", ["cut", "end"])
async def test_after_a_watch_that_ends_early_a_reflector_notices_that_the_history_went_back(
    tmp_path: Path, then: str
) -> None:
    """A real API server answers a watch from a version of the future with 200 and silence.

    It ends all watches, and keeps the connections, when an etcd is put back beneath it.
    """
    turns = (
        listing("900", thing("deleted"), thing("kept")),
        watching(("MODIFIED", thing("kept", "901")), then=then),
        listing("5", thing("kept")),
        listing("5", thing("kept")),
        watching(("ADDED", thing("new", "6"))),
    )
    async with reflected(tmp_path, *turns) as (told, _, server), asyncio.timeout(_HEARD):
        await told.until({"kept": None, "new": None}, lists=2)
        assert "limit=1&" in server.asked[2].query + "&"
        assert "resourceVersion=5" in server.asked[4].query
        assert told.doubts == [1]


async def test_after_a_lost_connection_a_watch_goes_on_where_the_history_does(
    tmp_path: Path,
) -> None:
    turns = (
        listing("5", thing("a")),
        watching(then="cut"),
        listing("9", thing("a")),
        watching(("ADDED", thing("b", "6"))),
    )
    async with reflected(tmp_path, *turns) as (told, _, server), asyncio.timeout(_HEARD):
        await told.until({"a": None, "b": None}, lists=1)
        assert "resourceVersion=5" in server.asked[3].query


async def test_a_version_of_thousands_of_digits_ends_no_reflector(tmp_path: Path) -> None:
    turns = (listing("9" * 5000, thing("a")), watching(("ADDED", thing("b", "6"))))
    async with reflected(tmp_path, *turns) as (told, _, _server), asyncio.timeout(_HEARD):
        await told.until({"a": None, "b": None}, lists=1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(500, "InternalError"), (504, "Timeout"), (403, "Forbidden"), (400, "BadRequest"), (0, "")],
)
async def test_a_reflector_lists_again_after_any_error_event(
    tmp_path: Path, status: int, reason: str
) -> None:
    turns = (
        listing("5", thing("a")),
        watching(("ERROR", {"code": status, "reason": reason, "message": "no"})),
        listing("6", thing("b")),
        watching(),
    )
    async with reflected(tmp_path, *turns) as (told, _, _server), asyncio.timeout(_HEARD):
        await told.until({"b": None}, lists=2)


async def test_an_api_server_that_is_busy_is_not_asked_for_a_list_at_once(tmp_path: Path) -> None:
    busy = answers({"code": 429, "reason": "TooManyRequests", "message": "wait"}, 429)
    turns = (listing("5"), busy, busy, watching(("ADDED", thing("a", "6"))))
    async with reflected(tmp_path, *turns) as (told, _, server), asyncio.timeout(_HEARD):
        await told.until({"a": None}, lists=1)
        assert "resourceVersion=5" in server.asked[3].query


async def test_an_api_server_that_names_a_time_is_left_alone_for_it(tmp_path: Path) -> None:
    """However often: a list would cost it more than the watch."""

    async def busy(conversation: Conversation) -> None:
        await conversation.answer(b"Too many requests.\n", 429, "Retry-After: 4\r\n")

    turns = (listing("5"), *[busy] * 5, watching(("ADDED", thing("a", "6"))))
    clock = ImpatientClock()
    async with reflected(tmp_path, *turns, clock=clock) as (told, _, server):
        async with asyncio.timeout(_HEARD):
            await told.until({"a": None}, lists=1)
        assert all("resourceVersion=5" in each.query for each in server.asked[1:])
    assert clock.slept[:5] == [6.0] * 5  # spread, so that not all agents come back at once


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 5.0), (0.5, 7.5), (1.0, 10.0)])
async def test_a_watch_is_asked_for_again_within_10_s_however_long_a_server_names(
    tmp_path: Path, jitter: float, seconds: float
) -> None:
    """A real API server that starts names 30 s and more, and is ready long before."""

    async def busy(conversation: Conversation) -> None:
        await conversation.answer(b"Too many requests.\n", 429, "Retry-After: 30\r\n")

    turns = (listing("5"), busy, busy, watching(("ADDED", thing("a", "6"))))
    clock = ImpatientClock()
    async with reflected(tmp_path, *turns, clock=clock, jitter=jitter) as (told, *_):
        async with asyncio.timeout(_HEARD):
            await told.until({"a": None}, lists=1)
    assert clock.slept == [seconds] * 2


@pytest.mark.parametrize(
    "failure",
    [cuts, watching(then="cut"), watching(then="end")],
    ids=["refused", "cut off", "ended at once"],
)
async def test_a_reflector_lists_again_after_three_failures_in_a_row(
    tmp_path: Path, failure: Turn
) -> None:
    turns = (
        listing("5", thing("a")),
        *[failure] * 3,
        listing("6", thing("b")),
        watching(),
    )
    async with reflected(tmp_path, *turns) as (told, _, _server), asyncio.timeout(_HEARD):
        await told.until({"b": None}, lists=2)


async def test_failures_between_watches_that_last_are_not_in_a_row(tmp_path: Path) -> None:
    clock = ImpatientClock()

    async def lasting(conversation: Conversation) -> None:
        await conversation.begin()
        clock.advance(60)
        conversation.cut()

    turns = (listing("5"), *[lasting, listing("5")] * 5, watching(("ADDED", thing("a", "6"))))
    async with reflected(tmp_path, *turns, clock=clock) as (told, _, _server):
        async with asyncio.timeout(_HEARD):
            await told.until({"a": None}, lists=1)
        assert told.lists == 1


@pytest.mark.parametrize("kind", ["BOOKMARK", "MODIFIED"])
async def test_a_version_smaller_than_the_last_one_is_listed_again(
    tmp_path: Path, kind: str
) -> None:
    turns = (
        listing("900", thing("deleted"), thing("kept")),
        watching((kind, thing("kept", "12"))),
        listing("13", thing("kept")),
        watching(),
    )
    async with reflected(tmp_path, *turns) as (told, _, _server), asyncio.timeout(_HEARD):
        await told.until({"kept": None}, lists=2)


async def test_what_a_broken_list_did_not_show_is_removed_by_the_next_good_one(
    tmp_path: Path,
) -> None:
    nameless: dict[str, object] = {"metadata": 3}
    turns = (
        listing("5", thing("a"), thing("gone")),
        answers({"code": 410, "reason": "Expired", "message": "too old"}, 410),
        answers({"metadata": {"resourceVersion": "6"}, "items": [thing("a"), nameless]}),
        listing("7", thing("a")),
        watching(),
    )
    async with reflected(tmp_path, *turns) as (told, _, _server), asyncio.timeout(_HEARD):
        await told.until({"a": None}, lists=2)


async def test_of_a_broken_list_nothing_is_taken(tmp_path: Path) -> None:
    clock = FakeClock()
    nameless: dict[str, object] = {"metadata": 3}
    broken = answers({"metadata": {"resourceVersion": "5"}, "items": [thing("a"), nameless]})
    async with reflected(tmp_path, broken, clock=clock) as (told, reflector, _):
        await clock.somebody_sleeps()
        assert (told.known, reflector.synced) == ({}, False)
        assert "not a Kubernetes object" in reflector.trouble


def part(version: str, more: str, *objects: dict[str, Any]) -> Turn:
    metadata = {"resourceVersion": version, "continue": more}
    return answers({"metadata": metadata, "items": list(objects)})


async def test_of_a_list_one_page_at_a_time_is_in_memory(tmp_path: Path) -> None:
    """Objects of tenants may be large: what is needed of a page is taken before the next comes."""
    turns = part("1", "b", thing("a")), hangs
    async with reflected(tmp_path, *turns) as (told, reflector, _), asyncio.timeout(_HEARD):
        await told.until({"a": None})
        assert not reflector.synced


@pytest.mark.parametrize(("size", "most"), [(20, 64), (6_000, 10), (1_300_000, 1)])
async def test_others_have_a_turn_before_a_page_and_after_a_few_of_its_objects(
    size: int, most: int
) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    raw = msgspec.Raw(json.dumps("x" * size).encode())
    page = Page(items=(raw,) * 200, resource_version="1")
    taken = [turns async for _ in in_turns(page)]
    other.cancel()
    assert taken[0] > 0
    assert max(map(taken.count, taken)) <= most


async def test_only_a_whole_list_says_what_is_not_there_any_more(tmp_path: Path) -> None:
    gone = ("ERROR", {"code": 410})
    turns = (
        listing("1", thing("a"), thing("b")),
        watching(gone),
        part("5", "more", thing("a", value=2)),
        status_of_410,
        part("6", "more", thing("a", value=3)),
        part("6", "", thing("c")),
        watching(),
    )
    async with reflected(tmp_path, *turns) as (told, _, _server), asyncio.timeout(_HEARD):
        await told.until({"a": 3, "c": None}, lists=2)
    assert told.removed == ["b"]


async def status_of_410(conversation: Conversation) -> None:
    """Answer that the rest of the list is not kept any more."""
    await answers({"kind": "Status", "code": 410}, status=410)(conversation)


def saying(line: bytes) -> Turn:
    async def turn(conversation: Conversation) -> None:
        await conversation.begin()
        await conversation.chunk(line + b"\n")

    return turn


@pytest.mark.parametrize("garbage", [b"<html>", b'{"type":"ADDED"}', b"\xff", b'{"type":3}'])
async def test_after_garbage_a_watch_is_resumed_where_it_was(
    tmp_path: Path, garbage: bytes
) -> None:
    turns = (listing("5"), saying(garbage), listing("7"), watching(("ADDED", thing("b", "8"))))
    async with reflected(tmp_path, *turns) as (told, _, server):
        await told.until({"b": None})
        assert "resourceVersion=5" in server.asked[3].query


async def test_after_an_object_without_a_name_all_is_listed_anew(tmp_path: Path) -> None:
    nameless = saying(b'{"type":"ADDED","object":{}}')
    turns = (listing("5", thing("a")), nameless, listing("6", thing("b")), watching())
    async with reflected(tmp_path, *turns) as (told, _, _server):
        await told.until({"b": None}, lists=2)


@pytest.mark.parametrize("trouble", ["unreadable", "defect"])
async def test_an_object_that_cannot_be_read_harms_no_other(tmp_path: Path, trouble: str) -> None:
    bad: dict[str, Any] = {trouble: True}
    turns = (
        listing("5", thing("a"), thing("bad", **bad), thing("b")),
        watching(("MODIFIED", thing("a", "6", **bad)), ("ADDED", thing("c", "7"))),
    )
    async with reflected(tmp_path, *turns) as (told, _, _server):
        await told.until({"b": None, "c": None})


async def test_the_age_is_the_time_since_the_server_said_anything(tmp_path: Path) -> None:
    clock = FakeClock()
    async with reflected(tmp_path, listing("5"), watching(), clock=clock) as (told, reflector, _):
        await told.until({}, lists=1)
        clock.advance(42)
        assert reflector.age == 42


async def test_watches_that_end_at_once_are_not_asked_for_without_a_pause(tmp_path: Path) -> None:
    clock = ImpatientClock()
    ended = [listing("5"), watching(then="end")] * 4
    turns = (*ended, listing("5"), watching(("ADDED", thing("a", "6"))))
    async with reflected(tmp_path, *turns, clock=clock) as (told, _, _server):
        await told.until({"a": None})
    assert clock.slept == [0.1, 0.2, 0.4, 0.8]


HALF = "x" * 4_000
"""Of the budget of a namespace."""


def aged(name: str, day: int, version: str = "") -> dict[str, Any]:
    found = thing(name, version, value=HALF)
    found["metadata"]["creationTimestamp"] = f"2026-01-{day:02}T00:00:00Z"
    return found


async def test_of_a_namespace_over_its_budget_the_oldest_objects_are_known(tmp_path: Path) -> None:
    turns = (
        listing("5", aged("a", 3), aged("b", 1)),
        watching(("ADDED", aged("c", 2, "6")), ("ADDED", aged("d", 4, "7")), ("ADDED", thing("z"))),
    )
    async with reflected(tmp_path, *turns) as (told, _, _server):
        await told.until({"b": HALF, "c": HALF, "z": None})
        assert told.left_out == ["a"]
        assert told.removed == ["a", "d"]


@pytest.mark.parametrize(("then", "doubts"), [("7", []), ("5", [1])])
async def test_an_object_that_was_left_out_is_known_after_an_older_one_is_deleted(
    tmp_path: Path, then: str, doubts: list[int]
) -> None:
    turns = (
        listing("5", aged("a", 1), aged("b", 2), aged("c", 3)),
        watching(("DELETED", aged("a", 1, "6")), then="end"),
        listing(then, aged("b", 2), aged("c", 3)),
        watching(),
    )
    async with reflected(tmp_path, *turns) as (told, _, _server):
        await told.until({"b": HALF, "c": HALF}, lists=2)
        assert told.left_out == ["c", None]
        assert told.doubts == doubts


async def test_a_list_that_is_renewed_is_read_at_once_and_in_no_doubt_of_its_own(
    tmp_path: Path,
) -> None:
    turns = (
        listing("5", thing("a")),
        watching(("ADDED", thing("x", "6"))),
        listing("9", thing("b")),
        watching(("ADDED", thing("y", "10"))),
        listing("7", thing("c")),
        watching(("ADDED", thing("z", "8"))),
    )
    async with reflected(tmp_path, *turns) as (told, reflector, _), asyncio.timeout(_HEARD):
        await told.until({"a": None, "x": None}, lists=1)
        reflector.renew()
        reflector.renew()
        await told.until({"b": None, "y": None}, lists=2)
        anew = [reflector.anew]
        reflector.renew()
        anew.append(reflector.anew)
        await told.until({"c": None, "z": None}, lists=3)
        assert [*anew, reflector.anew] == [True, False, True]
        assert told.doubts == []

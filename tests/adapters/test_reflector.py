from __future__ import annotations

from pathlib import Path

import pytest

from podidentity.adapters.reflector import LONGEST_DELAY
from tests.adapters.reflecting import listing, reflected, thing, watching
from tests.adapters.scripted import answers, cuts
from tests.fakes import FakeClock, ImpatientClock


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
    turns = (
        listing("5"),
        watching(("ADDED", thing("a", "6")), then="end"),
        watching(("ADDED", thing("b", "7"))),
    )
    async with reflected(tmp_path, *turns, clock=clock) as (told, _, server):
        await told.until({"a": None, "b": None})
        assert told.lists == 1
        assert "resourceVersion=6" in server.asked[2].query
    assert clock.slept == [], "an orderly end is no reason to wait"


async def test_a_bookmark_moves_the_place_and_tells_nothing(tmp_path: Path) -> None:
    turns = (
        listing("5"),
        watching(("BOOKMARK", {"metadata": {"resourceVersion": "90"}}), then="end"),
        watching(("ADDED", thing("a", "91"))),
    )
    async with reflected(tmp_path, *turns) as (told, _, server):
        await told.until({"a": None})
        assert "resourceVersion=90" in server.asked[2].query


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


async def test_trouble_is_said_while_it_lasts(tmp_path: Path) -> None:
    clock = FakeClock()
    refusal = answers({"code": 403, "reason": "Forbidden", "message": "no rights"}, 403)
    async with reflected(tmp_path, refusal, listing("5"), watching(), clock=clock) as found:
        told, reflector, _ = found
        await clock.somebody_sleeps()
        assert "no rights" in reflector.trouble
        assert not reflector.synced
        clock.advance(0.1)
        await told.until({}, lists=1)


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

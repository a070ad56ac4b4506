from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.adapters.reflecting import listing, reflected, thing, watching
from tests.adapters.scripted import Conversation, Turn
from tests.fakes import FakeClock, ImpatientClock


def saying(line: bytes) -> Turn:
    async def turn(conversation: Conversation) -> None:
        await conversation.begin()
        await conversation.chunk(line + b"\n")

    return turn


@pytest.mark.parametrize("garbage", [b"<html>", b'{"type":"ADDED"}', b"\xff", b'{"type":3}'])
async def test_after_garbage_a_watch_is_resumed_where_it_was(
    tmp_path: Path, garbage: bytes
) -> None:
    turns = (listing("5"), saying(garbage), watching(("ADDED", thing("b", "6"))))
    async with reflected(tmp_path, *turns) as (told, _, server):
        await told.until({"b": None})
        assert "resourceVersion=5" in server.asked[2].query


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
    ended = watching(then="end")
    turns = (listing("5"), *[ended] * 3, listing("5"), ended, watching(("ADDED", thing("a", "6"))))
    async with reflected(tmp_path, *turns, clock=clock) as (told, _, _server):
        await told.until({"a": None})
    assert clock.slept == [0.1, 0.2, 0.4, 0.8]

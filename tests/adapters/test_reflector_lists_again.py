"""A watch that fails may have lost what happened: then only a list tells what there is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.adapters.reflecting import listing, reflected, thing, watching
from tests.adapters.scripted import Conversation, Turn, answers, cuts
from tests.fakes import FakeClock, ImpatientClock

# As kube-apiserver 1.37 says it to a watch from a version that it has not reached:
# https://github.com/kubernetes/apiserver/blob/master/pkg/storage/errors.go
TOO_LARGE = {
    "code": 504,
    "reason": "Timeout",
    "message": "Timeout: Too large resource version: 900, current: 5",
}
_HEARD = 5.0
"""Seconds after which a test gives a reflector up: it would never do what is asked of it."""


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

    turns = (listing("5"), *[lasting] * 5, watching(("ADDED", thing("a", "6"))))
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

"""Exceptions are told whether they have effect, once, by one of many nodes."""

from __future__ import annotations

import logging

import pytest

from podidentity.core.ids import ObjectRef
from podidentity.core.resources import Malformed
from podidentity.core.usability import STRICT, Rules
from podidentity.nmi.conditions import PACE, PAUSE, ROOM, SPREAD
from podidentity.wire.conditions import Said
from podidentity.wire.kube import KubeError
from tests.nmi.telling import CONFLICT, world

AWAY = KubeError("The API server cannot be asked")
GONE = KubeError("no such exception", status=404, reason="NotFound")
ALLOWED = Rules(exception_namespaces=None)
NO = ("False", "NamespaceNotAllowed")
YES = ("True", "NamespaceAllowed")


@pytest.mark.parametrize(("rules", "says"), [(STRICT, NO), (ALLOWED, YES)], ids=["no", "yes"])
@pytest.mark.parametrize("pod_first", [True, False])
async def test_an_exception_that_is_meant_for_a_pod_of_the_node_is_told(
    rules: Rules, says: tuple[str, str], pod_first: bool
) -> None:
    async with world() as it:
        node = it.node(rules=rules)
        if pod_first:
            node.starts()
        it.board.put("e")
        node.starts()
        await it.after()
        assert it.board.writes == [says]


async def test_of_an_exception_without_pods_here_nothing_is_said() -> None:
    async with world() as it:
        node = it.node()
        it.board.put("e")
        node.starts(labels={"tier": "db"})
        node.starts("other", ref=ObjectRef("bank", "other"))
        await it.after()
        assert it.board.asked == 0


async def test_a_malformed_exception_is_told_why() -> None:
    async with world() as it:
        it.node()
        it.board.put("e", {"podLabels": 1})
        await it.after()
        assert it.board.writes == [("False", "Malformed")]
        [condition] = it.board.held["e"]["status"]["conditions"]
        assert "spec.podLabels must be" in condition["message"]


async def test_of_many_nodes_one_writes_and_no_change_of_pods_writes_again() -> None:
    async with world() as it:
        nodes = [it.node(f"n{number}") for number in range(10)]
        it.board.put("e")
        for node in nodes:
            node.starts()
        await it.after()
        assert (it.board.writes, it.board.asked) == ([NO], 1)
        for node in nodes:
            node.starts("orders-1")
        await it.after()
        assert it.board.asked == 1


async def test_a_new_version_of_the_object_is_told_anew() -> None:
    async with world() as it:
        it.node().starts()
        it.board.put("e")
        await it.after()
        it.board.put("e", status=it.board.held["e"]["status"], generation=2)
        await it.after()
        assert it.board.writes == [NO, NO]
        [condition] = it.board.held["e"]["status"]["conditions"]
        assert condition["observedGeneration"] == 2


async def test_nodes_with_different_flags_each_say_it_once() -> None:
    async with world() as it:
        for node in (it.node("old"), it.node("new", ALLOWED)):
            node.starts()
        it.board.put("e")
        for _ in range(3):
            await it.after()
        assert sorted(it.board.writes) == [NO, YES]


async def test_while_the_api_server_is_away_it_is_dropped_and_said_with_the_next_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with world() as it:
        node = it.node()
        node.starts()
        it.board.failures = [AWAY]
        it.board.put("e")
        it.board.put("f")
        await it.after()
        await it.after(2 * PAUSE)
        assert (it.board.asked, it.board.writes) == (1, [])
        node.starts("orders-1")
        await it.after(2 * SPREAD)
        assert it.board.writes == [NO, NO]
        assert [record.getMessage() for record in caplog.records] == [
            "conditions of exceptions cannot be written: The API server cannot be asked"
        ]


async def test_an_answer_that_is_no_object_harms_nothing() -> None:
    async with world() as it:
        it.node().starts()
        it.board.put("e")
        it.board.held["e"] = {"kind": "Status"}
        await it.after()
        it.board.put("f")
        await it.after(2 * SPREAD)
        assert it.board.writes == [NO]


async def test_an_exception_that_went_meanwhile_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with world() as it:
        node = it.node()
        node.starts()
        it.board.failures = [GONE]
        it.board.put("e")
        await it.after()
        it.board.put("f")
        node.conditions.gone(ObjectRef("shop", "f"))
        await it.after()
        assert (it.board.asked, it.board.writes, caplog.records) == (1, [], [])


async def test_who_was_faster_is_not_contradicted() -> None:
    async with world() as it:
        it.node().starts()
        it.board.failures = [CONFLICT]
        it.board.put("e")
        await it.after()
        await it.after(PAUSE)
        assert it.board.writes == []


async def test_a_flood_takes_bounded_memory_and_is_written_at_a_bounded_pace() -> None:
    async with world() as it:
        node = it.node()
        for number in range(2 * ROOM):
            bad = Malformed(ref=ObjectRef("shop", f"e{number}"), kind="K", why="it is bad")
            node.conditions.seen(bad, Said(uid="u", generation=1))
            it.board.held[f"e{number}"] = {"metadata": {"uid": "u", "generation": 2}}
        await it.after()
        before = it.board.asked
        await it.after(10 * PACE)
        assert it.board.asked - before <= 11
        for _ in range(ROOM // 10):
            await it.after(20 * PACE)
        assert it.board.asked == ROOM

"""Requests that the memo answers in the turn in which they came, beside those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from podidentity.nmi.server.connection import Timeout
from podidentity.nmi.server.listener import Listener
from podidentity.nmi.server.messages import (
    LONGEST_REMEMBERED,
    Caller,
    Limits,
    Response,
    render,
)
from tests.nmi.echoing import GET, Echo
from tests.nmi.talking import talking

AT_ONCE = b"GET /at-once HTTP/1.1\r\nHost: x\r\n\r\n"


def memo(caller: Caller, raw: bytes) -> bytes | None:
    """Answer one request."""
    assert caller.address == "127.0.0.1"
    if b"/defect" in raw:
        raise RuntimeError("defect")
    return render(Response(200, b"at once", "text/plain"), stays=True) if raw == AT_ONCE else None


@asynccontextmanager
async def serving(echo: Echo, **limits: Any) -> AsyncIterator[Listener]:
    listener = await Listener.start(echo, "127.0.0.1", 0, Limits(**limits), memo=memo)
    try:
        yield listener
    finally:
        await listener.close(0.0)


@pytest.fixture
def echo() -> Echo:
    return Echo()


async def test_the_handler_is_not_asked_for_what_is_answered_at_once(echo: Echo) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        assert [(await talk.ask(AT_ONCE)).body for _ in range(3)] == [b"at once"] * 3
        assert (await talk.ask(GET)).body == b"GET /a"
    assert len(echo.asked) == 1


async def test_a_request_overtakes_none_that_waits(echo: Echo) -> None:
    echo.open.clear()
    async with serving(echo) as listener, talking(listener) as talk, talking(listener) as other:
        await talk.say(GET)
        await echo.begun.wait()
        await talk.say(AT_ONCE)
        await other.ask(AT_ONCE)  # so that what came before it has been read
        echo.open.set()
        assert [(await talk.hear()).body for _ in range(2)] == [b"GET /a", b"GET /at-once"]
        assert (await talk.ask(AT_ONCE)).body == b"at once"


async def test_requests_that_come_in_one_piece_are_the_handlers(echo: Echo) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        await talk.say(AT_ONCE * 3)
        assert [(await talk.hear()).body for _ in range(3)] == [b"GET /at-once"] * 3


async def test_the_rest_of_a_request_is_not_taken_for_one(echo: Echo) -> None:
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(AT_ONCE)
    async with serving(echo) as listener, talking(listener) as talk, talking(listener) as other:
        await talk.say(head)
        await other.ask(AT_ONCE)  # so that what came before it has been read
        await talk.say(AT_ONCE)
        assert (await talk.hear()).body == b"POST /a"
        assert (await talk.ask(AT_ONCE)).body == b"at once"


async def test_what_may_be_remembered_came_alone_in_one_piece_and_is_short(echo: Echo) -> None:
    long = GET.replace(b"Host", b"X: " + b"a" * LONGEST_REMEMBERED + b"\r\nHost")
    async with serving(echo) as listener, talking(listener) as talk:
        for said in (GET, GET + GET, long):
            await talk.say(said)
            for _ in range(said.count(b"GET")):
                await talk.hear()
    assert [each.raw for each in echo.asked] == [GET, b"", b"", b""]


async def test_a_listener_that_is_draining_answers_nothing_from_memory(echo: Echo) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        await talk.ask(AT_ONCE)
        draining = asyncio.create_task(listener.drain())
        await asyncio.sleep(0)
        reply = await talk.ask(AT_ONCE)
        assert (reply.body, reply.header("Connection")) == (b"GET /at-once", ["close"])
        await draining


async def test_a_defect_leaves_the_request_to_the_handler(
    echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        assert (await talk.ask(GET.replace(b"/a", b"/defect"))).body == b"GET /defect"
    assert "could not be answered from the memo" in caplog.text


async def test_a_connection_is_idle_from_its_last_answer_on(echo: Echo) -> None:
    limits = {"idle_seconds": 0.03, "head_seconds": 60}
    async with serving(echo, **limits) as listener, talking(listener) as talk:
        await talk.ask(AT_ONCE)
        assert await talk.closed() == b""


@pytest.mark.parametrize("end", [b"", AT_ONCE[:-9]])
async def test_half_a_request_behind_an_answer_has_its_time(echo: Echo, end: bytes) -> None:
    limits = {"idle_seconds": 60, "head_seconds": 0.03}
    async with serving(echo, **limits) as listener, talking(listener) as talk:
        await talk.ask(AT_ONCE + GET[:10])
        if end:
            await talk.ask(GET[10:] + end)
        assert (await talk.hear()).status == 408


async def test_an_alarm_that_moves_rings_once_at_its_last_time() -> None:
    loop, rung = asyncio.get_running_loop(), asyncio.Event()
    times: list[float] = []

    def ring() -> None:
        times.append(loop.time())
        rung.set()

    timeout = Timeout(loop, ring)
    timeout.set(0.01)
    timeout.set(60)
    timeout.set(0.02)
    due = loop.time() + 0.02
    timeout.set(0.02)
    await rung.wait()
    assert len(times) == 1
    assert times[0] >= due


async def test_an_alarm_that_was_stopped_does_not_ring() -> None:
    loop, later = asyncio.get_running_loop(), asyncio.Event()
    timeout = Timeout(loop, lambda: pytest.fail("it rang"))
    timeout.set(0.01)
    timeout.cancel()
    Timeout(loop, later.set).set(0.02)
    await later.wait()

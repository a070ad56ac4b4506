"""Requests that are answered in the turn in which they came, beside those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from podidentity.nmi.server.connection import PIECES, Timeout
from podidentity.nmi.server.listener import Listener
from podidentity.nmi.server.messages import Limits, Request, Response, render
from tests.nmi.echoing import GET, Echo
from tests.nmi.talking import talking

AT_ONCE = b"GET /at-once HTTP/1.1\r\nHost: x\r\n\r\n"


def at_once(request: Request) -> bytes | None:
    """Answer one path."""
    if request.target == "/defect":
        raise RuntimeError("defect")
    if request.target != "/at-once":
        return None
    return render(Response(200, b"at once", "text/plain"), stays=request.keep_alive)


@asynccontextmanager
async def serving(echo: Echo, **limits: Any) -> AsyncIterator[Listener]:
    listener = await Listener.start(echo, "127.0.0.1", 0, Limits(**limits), at_once=at_once)
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


async def test_answers_keep_the_order_of_requests_whoever_answers_them(echo: Echo) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        await talk.say(AT_ONCE + GET + AT_ONCE + GET)
        bodies = [(await talk.hear()).body for _ in range(4)]
    assert bodies == [b"at once", b"GET /a", b"at once", b"GET /a"]


async def test_what_comes_in_one_packet_is_answered_in_turns_that_others_have_too() -> None:
    answered, before_others = 0, []

    def count(request: Request) -> bytes | None:
        nonlocal answered
        if not answered:
            asyncio.get_running_loop().call_soon(lambda: before_others.append(answered))
        answered += 1
        return at_once(request)

    listener = await Listener.start(Echo(), "127.0.0.1", 0, at_once=count)
    async with talking(listener) as talk:
        await talk.say(AT_ONCE * 100)
        assert [(await talk.hear()).body for _ in range(100)] == [b"at once"] * 100
    assert before_others[0] <= PIECES
    await listener.close(0.0)


async def test_the_connection_is_closed_where_it_shall_not_be_kept(echo: Echo) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        await talk.say(AT_ONCE.replace(b"1.1", b"1.0") + AT_ONCE)
        assert (await talk.hear()).header("Connection") == ["close"]
        assert await talk.closed() == b""


async def test_a_defect_leaves_the_request_to_the_handler(
    echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        assert (await talk.ask(GET.replace(b"/a", b"/defect"))).body == b"GET /defect"
    assert "could not be answered at once" in caplog.text


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

"""Requests that are answered in the turn in which they came, beside those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from podidentity.nmi.server.alarm import Alarm
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
    # Behind one that waits all wait: the third is the handler's, too.
    assert bodies == [b"at once", b"GET /a", b"GET /at-once", b"GET /a"]


async def test_what_comes_in_one_piece_is_not_answered_at_once_without_end(echo: Echo) -> None:
    async with serving(echo, ahead=4) as listener, talking(listener) as talk:
        await talk.say(AT_ONCE * 6)
        bodies = [(await talk.hear()).body for _ in range(6)]
    assert bodies == [b"at once"] * 4 + [b"GET /at-once"] * 2


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

    alarm = Alarm(loop, ring)
    alarm.set(0.01)
    alarm.set(60)
    alarm.set(0.02)
    due = loop.time() + 0.02
    alarm.set(0.02)
    await rung.wait()
    assert len(times) == 1
    assert times[0] >= due


async def test_an_alarm_that_was_stopped_does_not_ring() -> None:
    loop, later = asyncio.get_running_loop(), asyncio.Event()
    alarm = Alarm(loop, lambda: pytest.fail("it rang"))
    alarm.set(0.01)
    alarm.stop()
    Alarm(loop, later.set).set(0.02)
    await later.wait()

"""Requests that the memo answers in the turn in which they came, beside those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

import pytest

from podidentity.nmi.server.connection import READ_BYTES, Timeout
from podidentity.nmi.server.listener import Listener
from podidentity.nmi.server.messages import (
    LATER,
    LONGEST_REMEMBERED,
    Answered,
    Caller,
    KnownAnswer,
    Limits,
    Response,
    Waiting,
    render,
)
from tests.nmi.echoing import GET, Echo
from tests.nmi.talking import Talk, started_listener, talking, until

AT_ONCE = b"GET /at-once HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = AT_ONCE[:-2] + b"Connection: close\r\n\r\n"


class Remembering:
    """Knows the answer to one request, by its bytes or by its target; waits for proofs if told."""

    def __init__(self) -> None:
        self.proves = False
        """Whether connections must be proved before."""
        self.waiting: list[Answered] = []

    def by_bytes(
        self, caller: Caller, raw: bytes, answered: Answered
    ) -> KnownAnswer | Literal[Waiting.LATER] | None:
        assert caller.address == "127.0.0.1"
        if b"/defect" in raw:
            raise RuntimeError("defect")
        if raw not in {AT_ONCE, LAST}:
            return None
        return self._known(answered, keep_alive=raw == AT_ONCE)

    def _known(
        self, answered: Answered, *, keep_alive: bool
    ) -> KnownAnswer | Literal[Waiting.LATER]:
        if self.proves:
            self.waiting.append(answered)
            return LATER
        return known(keep_alive=keep_alive)


def known(*, keep_alive: bool = True) -> KnownAnswer:
    response = Response(200, b"at once", "text/plain")
    kept, last = (render(response, stays=stays) for stays in (True, False))
    return KnownAnswer(kept, last, keep_alive)


@asynccontextmanager
async def serving(
    echo: Echo, memo: Remembering | None = None, **limits: Any
) -> AsyncIterator[Listener]:
    memo = memo or Remembering()
    listener = started_listener(echo, limits=Limits(**limits), memo=memo)
    try:
        yield listener
    finally:
        await listener.close(0.0)


class Waits(NamedTuple):
    """A request that waits for the proof of its connection."""

    listener: Listener
    talk: Talk
    memo: Remembering


@asynccontextmanager
async def waiting(echo: Echo, request_: bytes = AT_ONCE, **limits: Any) -> AsyncIterator[Waits]:
    memo = Remembering()
    memo.proves = True
    async with serving(echo, memo, **limits) as listener, talking(listener) as talk:
        await talk.say(request_)
        await until(lambda: bool(memo.waiting))
        yield Waits(listener, talk, memo)


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


async def test_what_may_be_remembered_was_parsed_alone_in_one_piece_and_is_short(
    echo: Echo,
) -> None:
    long = GET.replace(b"Host", b"X: " + b"a" * LONGEST_REMEMBERED + b"\r\nHost")
    async with serving(echo) as listener, talking(listener) as talk:
        for said in (GET, GET + GET, long):
            await talk.say(said)
            for _ in range(said.count(b"GET")):
                await talk.hear()
    assert [each.raw for each in echo.asked] == [GET, b"", GET, b""]


async def test_a_listener_that_is_draining_says_that_the_answer_from_memory_is_the_last(
    echo: Echo,
) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        await talk.ask(AT_ONCE)
        draining = asyncio.create_task(listener.drain())
        await asyncio.sleep(0)
        reply = await talk.ask(AT_ONCE)
        assert (reply.body, reply.header("Connection")) == (b"at once", ["close"])
        assert await talk.closed() == b""
        await draining


async def test_a_client_that_wants_no_other_answer_has_its_one_from_memory(echo: Echo) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        reply = await talk.ask(LAST)
        assert (reply.body, reply.header("Connection")) == (b"at once", ["close"])
        assert await talk.closed() == b""
    assert echo.asked == []


async def test_what_must_be_proved_before_is_answered_by_the_memo_when_it_is(
    echo: Echo,
) -> None:
    async with waiting(echo) as (_, talk, memo):
        memo.waiting.pop()(known())
        assert (await talk.hear()).body == b"at once"
        memo.proves = False
        assert (await talk.ask(AT_ONCE)).body == b"at once"
    assert echo.asked == []


async def test_what_the_memo_cannot_answer_after_all_is_the_handlers(
    echo: Echo,
) -> None:
    async with waiting(echo) as (_, talk, memo):
        memo.waiting.pop()(None)
        assert (await talk.hear()).body == b"GET /at-once"
        assert (await talk.ask(GET)).body == b"GET /a"
    assert [each.raw for each in echo.asked] == [AT_ONCE, GET]
    assert not memo.waiting, "it is asked once for each request"


async def test_the_last_request_of_a_connection_is_the_handlers_then_as_well(
    echo: Echo,
) -> None:
    async with waiting(echo, LAST) as (_, talk, memo):
        memo.waiting.pop()(None)
        reply = await talk.hear()
        assert (reply.status, reply.header("Connection")) == (200, ["close"])
        assert await talk.closed() == b""
    assert [each.raw for each in echo.asked] == [LAST]


@pytest.mark.parametrize("answer", [known(), None])
async def test_what_comes_while_a_proof_is_waited_for_waits_in_its_order_and_is_bounded(
    echo: Echo, answer: KnownAnswer | None
) -> None:
    async with waiting(echo) as (listener, talk, memo):
        ahead = asyncio.create_task(talk.say(GET * 100_000))
        async with talking(listener) as other:
            assert (await other.ask(GET)).body == b"GET /a"
        assert listener.held_bytes() <= READ_BYTES
        assert len(echo.asked) == 1
        memo.waiting.pop()(answer)
        bodies = [(await talk.hear()).body for _ in range(5)]
        assert bodies == [b"at once" if answer else b"GET /at-once", *[b"GET /a"] * 4]
        ahead.cancel()


async def test_a_connection_that_ends_while_its_proof_is_waited_for_gets_nothing(
    echo: Echo,
) -> None:
    async with waiting(echo) as (listener, _, memo):
        [connection] = listener._pool.connections()
        assert connection.busy
        connection.evict()
        await listener.empty()
        for answer in (known(), None):
            memo.waiting[0](answer)
    assert echo.asked == []


@pytest.mark.parametrize("answer", [known(), None])
async def test_a_listener_that_closes_answers_who_waits_for_a_proof(
    echo: Echo, answer: KnownAnswer | None
) -> None:
    async with waiting(echo) as (listener, talk, memo):
        closing = asyncio.create_task(listener.close(60))
        await asyncio.sleep(0)
        memo.waiting.pop()(answer)
        reply = await talk.hear()
        assert reply.body == (b"at once" if answer else b"GET /at-once")
        assert reply.header("Connection") == ["close"]
        await closing


async def test_a_client_that_leaves_while_its_proof_is_waited_for_is_told_of_by_the_proof(
    echo: Echo,
) -> None:
    async with waiting(echo) as (listener, talk, memo):
        await talk.leave()
        memo.waiting.pop()(None)
        await listener.empty()


async def test_a_proof_that_never_comes_holds_no_connection_for_ever(echo: Echo) -> None:
    async with waiting(echo, head_seconds=0.5) as (listener, talk, memo):
        reply = await talk.hear()
        assert (reply.status, reply.header("Connection")) == (503, ["close"])
        memo.waiting.pop()(known())
        assert await talk.closed() == b""
        await talk.leave()
        await listener.empty()
    assert echo.asked == []


async def test_a_defect_leaves_the_request_to_the_handler(
    echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo) as listener, talking(listener) as talk:
        assert (await talk.ask(GET.replace(b"/a", b"/defect"))).body == b"GET /defect"
    assert "could not be answered from the memo" in caplog.text


async def test_a_connection_is_idle_from_its_last_answer_on(echo: Echo) -> None:
    limits: dict[str, Any] = {"idle_seconds": 0.03, "head_seconds": 60}
    async with serving(echo, **limits) as listener, talking(listener) as talk:
        await talk.ask(AT_ONCE)
        assert await talk.closed() == b""


@pytest.mark.parametrize("end", [b"", AT_ONCE[:-9]])
async def test_half_a_request_behind_an_answer_has_its_time(echo: Echo, end: bytes) -> None:
    limits: dict[str, Any] = {"idle_seconds": 60, "head_seconds": 0.5}  # the first come in time
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

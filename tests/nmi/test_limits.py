"""What a client may take: size, time, requests ahead, connections."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.nmi.echoing import GET, Echo
from tests.nmi.talking import Talk, listening, talking


@pytest.fixture
def echo() -> Echo:
    return Echo()


async def refused(talk: Talk, status: int) -> None:
    reply = await talk.hear()
    assert reply.status == status
    assert reply.header("Connection") == ["close"]
    assert set(reply.json) == {"error", "error_description"}
    assert await talk.closed() == b""


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_closed(
    echo: Echo, rubbish: bytes
) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(rubbish)
        await refused(talk, 400)
    assert echo.asked == []


@pytest.mark.parametrize(
    "megabyte",
    [
        pytest.param(b"GET /" + b"a" * (1 << 20), id="target"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 20), id="one header"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: aaaaaaa\r\n" * 100_000, id="many headers"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: aaaaaaa\r\n" * 2_000 + b"\r\n", id="whole"),
    ],
)
async def test_a_head_of_a_megabyte_is_refused_with_the_reason(echo: Echo, megabyte: bytes) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        sending = asyncio.ensure_future(talk.say(megabyte))
        await refused(talk, 431)
        await asyncio.gather(sending, return_exceptions=True)
    assert echo.asked == []


async def test_a_loop_of_what_is_no_request_leaves_a_few_lines(
    echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "podidentity.http")
    async with listening(echo) as listener:
        for _ in range(20):
            async with talking(listener) as talk:
                await talk.say(b"rubbish\r\n\r\n")
                await refused(talk, 400)
    assert len(caplog.records) == 5


async def test_a_large_body_is_refused_with_the_reason(echo: Echo) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    async with listening(echo) as listener, talking(listener) as talk:
        sending = asyncio.ensure_future(talk.say(head + b"x" * 1_000_000))
        await refused(talk, 413)
        await asyncio.gather(sending, return_exceptions=True)
    assert echo.asked == []


async def test_a_half_sent_request_is_refused_when_its_time_is_over(echo: Echo) -> None:
    async with listening(echo, head_seconds=0.03) as listener, talking(listener) as talk:
        await talk.say(GET[:10])
        await refused(talk, 408)


async def test_a_second_request_has_its_time_too(echo: Echo) -> None:
    limits: dict[str, Any] = {"head_seconds": 0.03, "idle_seconds": 60}
    async with listening(echo, **limits) as listener, talking(listener) as talk:
        await talk.ask(GET)
        await talk.say(GET[:10])
        await refused(talk, 408)
    async with listening(echo, **limits) as listener, talking(listener) as talk:
        await talk.ask(GET + GET[:10])
        await refused(talk, 408)


async def test_who_connects_and_says_nothing_is_closed_without_a_word(echo: Echo) -> None:
    async with listening(echo, head_seconds=0.03) as listener, talking(listener) as talk:
        assert await talk.closed() == b""


async def test_a_kept_connection_is_closed_when_it_was_idle_too_long(echo: Echo) -> None:
    async with listening(echo, idle_seconds=0.03) as listener, talking(listener) as talk:
        await talk.ask(GET)
        assert await talk.closed() == b""


async def test_a_slow_answer_is_waited_for_longer_than_a_request(echo: Echo) -> None:
    echo.open.clear()
    limits: dict[str, Any] = {"head_seconds": 0.03, "idle_seconds": 0.03}
    async with listening(echo, **limits) as listener, talking(listener) as talk:
        await talk.say(GET)
        await echo.begun.wait()
        async with listening(Echo(), head_seconds=0.06) as other, talking(other) as clock:
            await clock.closed()
        echo.open.set()
        assert (await talk.hear()).status == 200


def nobody(remote: str, own: str) -> bool:
    """Take no connection for the node's own."""
    del remote, own
    return False


async def test_an_address_that_is_not_proved_has_few_places_and_takes_none_of_anothers(
    echo: Echo,
) -> None:
    async with (
        listening(echo, local=nobody, per_address=1) as listener,
        talking(listener) as first,
    ):
        await first.ask(GET)
        async with talking(listener) as second:
            await refused(second, 503)
        async with talking(listener, "127.0.0.2") as neighbour:
            assert (await neighbour.ask(GET)).status == 200
        assert (await first.ask(GET)).status == 200
        await first.leave()
        await listener.empty()
        async with talking(listener) as third:
            assert (await third.ask(GET)).status == 200


async def test_a_full_house_evicts_the_longest_idle_of_the_address_that_holds_most(
    echo: Echo,
) -> None:
    async with (
        listening(echo, local=nobody, unproven=2) as listener,
        talking(listener) as oldest,
        talking(listener) as newer,
    ):
        await oldest.ask(GET)
        await newer.ask(GET)
        async with talking(listener, "127.0.0.2") as newcomer:
            assert (await newcomer.ask(GET)).status == 200
            assert await oldest.closed() == b""
            assert (await newer.ask(GET)).status == 200

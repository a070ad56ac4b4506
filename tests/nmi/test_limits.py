"""What a client may take: size, time, requests ahead, connections."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from podidentity.nmi.server.connection import READ_BYTES
from podidentity.nmi.server.listener import BEGUN_AT_ONCE
from podidentity.nmi.server.messages import (
    Caller,
    Limits,
    Request,
    RequestParser,
    Response,
    Unacceptable,
)
from tests.nmi.echoing import GET, Echo
from tests.nmi.talking import Talk, listening, talking, until


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


CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "more", "status"),
    [
        pytest.param(CHUNKED + b"0\r\n", b"X: y\r\n" * 1000, 413, id="trailers"),
        pytest.param(CHUNKED + b"0\r\nX: ", b"y" * 6000, 413, id="one trailer"),
        pytest.param(CHUNKED + b"1;", b"x" * 6000, 413, id="a chunk's extension"),
        pytest.param(CHUNKED, b"1\r\nx\r\n" * 1000, 413, id="tiny chunks"),
        pytest.param(CHUNKED, b"00000000" * 1000, 413, id="a chunk's size"),
        pytest.param(GET[:-2] + b"X: ", b" " * 6000, 431, id="spaces"),
        pytest.param(b"", b"\r\n" * 3000, 431, id="empty lines"),
    ],
)
async def test_every_byte_of_a_request_counts(
    echo: Echo, begin: bytes, more: bytes, status: int
) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        sending = asyncio.ensure_future(talk.say(begin + more * 20))
        reply = await talk.hear()
        assert reply.status in {status, 400}
        await talk.closed()
        await asyncio.gather(sending, return_exceptions=True)
        assert listener.held_bytes() == 0
    assert echo.asked == []


async def test_a_head_behind_another_request_in_one_packet_has_the_same_limit(echo: Echo) -> None:
    large = b"GET /b HTTP/1.1\r\nX: " + b"a" * 60_000 + b"\r\n\r\n"
    async with listening(echo) as listener, talking(listener) as talk:
        sending = asyncio.ensure_future(talk.say(GET + large))
        assert (await talk.hear()).body == b"GET /a"
        await refused(talk, 431)
        await asyncio.gather(sending, return_exceptions=True)
    parser = RequestParser(Caller("", 0), Limits(), lambda _: None)
    assert parser.feed(GET + large) == large
    with pytest.raises(Unacceptable):
        parser.feed(large)


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 431)])
async def test_a_request_has_a_hundred_headers_at_most(echo: Echo, count: int, status: int) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        request = b"GET /a HTTP/1.1\r\n" + b"A:b\r\n" * count + b"\r\n"
        assert (await talk.ask(request)).status == status


async def test_what_waits_behind_a_request_is_bounded_for_a_connection(echo: Echo) -> None:
    echo.open.clear()
    async with listening(echo) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as client:
            client.setblocking(False)
            sent = await _send_until_stuck(client, GET * 1000)
            assert len(echo.asked) == 1
            assert sent > 100_000
            assert listener.held_bytes() < 2 * READ_BYTES


async def _send_until_stuck(client: socket.socket, data: bytes) -> int:
    """Send until neither the kernel nor the listener takes more; return the number of bytes.

    The listener is in this event loop: what it did not take in some turns, it does not take.
    """
    sent, turns = 0, 0
    while turns < 50:
        try:
            sent += client.send(data[sent % len(data) :])
            turns = 0
        except BlockingIOError:
            turns += 1
            await asyncio.sleep(0.001)
    return sent


@pytest.mark.parametrize(
    "behind", [pytest.param(b"", id="under way"), pytest.param(b"GET /", id="and more behind")]
)
async def test_what_the_requests_of_an_address_take_in_memory_is_bounded(
    echo: Echo, behind: bytes
) -> None:
    echo.open.clear()
    large = b"GET /a HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n"
    limits: dict[str, Any] = {"local": nobody, "held_per_address": 20_000}
    async with (
        listening(echo, **limits) as listener,
        talking(listener) as first,
        talking(listener) as second,
        talking(listener) as third,
        talking(listener, "127.0.0.2") as neighbour,
    ):
        for talk in (first, second):
            await talk.say(large + behind)
        await until(lambda: len(echo.asked) == 2)
        await third.say(large)
        await refused(third, 503)
        await neighbour.say(large)
        await until(lambda: len(echo.asked) == 3)
        echo.open.set()
        for talk in (first, second, neighbour):
            assert (await talk.hear()).status == 200
        await until(lambda: listener.held_bytes() <= 2 * len(behind))


async def test_a_large_body_is_refused_with_the_reason(echo: Echo) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    async with listening(echo) as listener, talking(listener) as talk:
        sending = asyncio.ensure_future(talk.say(head + b"x" * 1_000_000))
        await refused(talk, 413)
        await asyncio.gather(sending, return_exceptions=True)
    assert echo.asked == []


async def test_a_half_sent_request_is_refused_when_its_time_is_over(echo: Echo) -> None:
    async with listening(echo, head_seconds=0.5) as listener, talking(listener) as talk:
        await talk.say(GET[:10])
        await refused(talk, 408)


async def test_a_second_request_has_its_time_too(echo: Echo) -> None:
    limits: dict[str, Any] = {"head_seconds": 1.5, "idle_seconds": 60}  # the first comes in time
    async with listening(echo, **limits) as listener, talking(listener) as talk:
        await talk.ask(GET)
        await talk.say(GET[:10])
        await refused(talk, 408)
    async with listening(echo, **limits) as listener, talking(listener) as talk:
        await talk.ask(GET + GET[:10])
        await refused(talk, 408)


async def test_a_client_that_takes_no_answers_and_goes_idle_is_gone_in_time(echo: Echo) -> None:
    limits: dict[str, Any] = {"idle_seconds": 0.05, "write_seconds": 60, "close_seconds": 0.2}
    async with listening(echo, **limits) as listener:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.connect(("127.0.0.1", listener.port))
            deaf.sendall(GET * 60)
            await until(lambda: len(echo.asked) == 60)
            assert _kernel(listener.port, deaf)[1] > 0
            await listener.empty()
            # What the kernel still has for it goes, too.
            await until(lambda: _kernel(listener.port, deaf)[1] == 0)


async def test_an_answer_that_nobody_takes_costs_the_kernel_some_kilobytes(echo: Echo) -> None:
    async with listening(echo) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as deaf:
            deaf.setblocking(False)
            await _send_until_stuck(deaf, GET * 1000)
            await until(lambda: _kernel(listener.port, deaf)[1] > 0)
            state, unsent = _kernel(listener.port, deaf)
            assert state == ESTABLISHED
            assert unsent < 64 << 10


ESTABLISHED = "01"


def _kernel(port: int, client: socket.socket) -> tuple[str, int]:
    """Return state and unacknowledged bytes of the listener's end, as /proc/net/tcp has them."""
    ends = f"0100007F:{port:04X}", f"0100007F:{client.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues = line.split()[:5]
        if (local, remote) == ends:
            return state, int(queues.partition(":")[0], 16)
    return "", 0


async def test_who_connects_and_says_nothing_is_closed_without_a_word(echo: Echo) -> None:
    async with listening(echo, head_seconds=0.03) as listener, talking(listener) as talk:
        assert await talk.closed() == b""


async def test_a_kept_connection_is_closed_when_it_was_idle_too_long(echo: Echo) -> None:
    async with listening(echo, idle_seconds=0.03) as listener, talking(listener) as talk:
        await talk.ask(GET)
        assert await talk.closed() == b""


async def test_a_slow_answer_is_waited_for_longer_than_a_request(echo: Echo) -> None:
    echo.open.clear()
    limits: dict[str, Any] = {"head_seconds": 1.5, "idle_seconds": 0.03}
    async with listening(echo, **limits) as listener, talking(listener) as talk:
        await talk.say(GET)
        await echo.begun.wait()
        async with listening(Echo(), head_seconds=2.0) as other, talking(other) as clock:
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


async def test_who_has_asked_already_when_there_is_no_place_is_told_so_and_not_reset(
    echo: Echo,
) -> None:
    async with (
        listening(echo, local=nobody, per_address=1) as listener,
        talking(listener) as first,
    ):
        await first.ask(GET)
        with socket.create_connection(("127.0.0.1", listener.port)) as second:
            second.sendall(GET)  # before it is accepted: the listener has had no turn
            second.setblocking(False)
            heard = await asyncio.get_running_loop().sock_recv(second, 4096)
            assert heard.startswith(b"HTTP/1.1 503 ")
            assert await asyncio.get_running_loop().sock_recv(second, 4096) == b""


async def test_all_that_one_pod_asks_while_nobody_accepts_is_answered(echo: Echo) -> None:
    """As while an agent takes over on a busy node: five seconds of fifty connections a second."""
    async with listening(echo, local=nobody) as listener:
        clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(250)]
        for each in clients:
            each.sendall(GET)
            each.setblocking(False)
        heard = asyncio.get_running_loop().sock_recv
        answers = await asyncio.gather(*(heard(each, 4096) for each in clients))
        assert {each.split()[1] for each in answers} == {b"200"}
        for each in clients:
            each.close()


async def test_hundreds_of_requests_of_one_client_do_not_keep_a_neighbour_waiting(
    echo: Echo,
) -> None:
    async with listening(echo, local=nobody) as listener:
        ends = [("127.0.0.1", 0)] * 31 + [("127.0.0.2", 0)]
        clients = [
            socket.create_connection(("127.0.0.1", listener.port), source_address=end)
            for end in ends
        ]
        # All are there before the first is accepted.
        for number, client in enumerate(clients):
            client.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        await until(lambda: len(echo.asked) == len(clients))
        order = [request.target for request in echo.asked]
        assert order.index("/31") <= 3 * BEGUN_AT_ONCE
        assert sorted(order) == sorted(f"/{number}" for number in range(32))
        for client in clients:
            client.close()


async def test_what_is_put_off_is_dropped_with_its_connection(echo: Echo) -> None:
    async def cut(request: Request) -> Response:
        for connection in listener._pool.connections():
            connection.abort()
        return await echo(request)

    async with listening(cut, local=nobody) as listener:
        clients = [
            socket.create_connection(("127.0.0.1", listener.port)) for _ in range(4 * BEGUN_AT_ONCE)
        ]
        for client in clients:
            client.sendall(GET)
        await until(lambda: bool(echo.asked))
        await listener.empty()
        assert len(echo.asked) <= 2 * BEGUN_AT_ONCE
        assert listener.held_bytes() == 0
        for client in clients:
            client.close()


OF_THE_UNPROVED = {"unproven_seconds": 1.0, "head_seconds": 1000.0, "idle_seconds": 1000.0}
"""Requests come in time, and no test has that of connections which are proved."""


async def test_a_connection_that_is_not_proved_has_less_time(echo: Echo) -> None:
    async with listening(echo, local=nobody, **OF_THE_UNPROVED) as listener:
        async with talking(listener) as silent:
            assert await silent.closed() == b""
        async with talking(listener) as half:
            await half.say(GET[:10])
            await refused(half, 408)
        async with talking(listener) as idle:
            await idle.ask(GET)
            assert await idle.closed() == b""


async def test_a_connection_of_a_pod_has_its_time_and_a_place_of_the_pods(echo: Echo) -> None:
    async def prove(request: Request) -> Response:
        request.caller.attribute("uid-a", proven=True)
        return await echo(request)

    limits: dict[str, Any] = {"local": nobody, "unproven": 1, **OF_THE_UNPROVED}
    async with listening(prove, **limits) as listener, talking(listener) as first:
        await first.ask(GET)
        async with talking(listener, "127.0.0.2") as stranger:
            assert await stranger.closed() == b""
        async with talking(listener) as second:
            await second.ask(GET)
            assert (await first.ask(GET)).status == 200
    assert {request.caller.proven for request in echo.asked} == {"uid-a"}


async def test_a_full_house_evicts_the_longest_idle_of_the_address_that_holds_most(
    echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "podidentity.http")
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
            assert "connection from 127.0.0.1 refused: others needed its place" in caplog.text
            assert (await newer.ask(GET)).status == 200


@pytest.mark.parametrize(
    "state", ["ends and is still read", "has sent more", "has sent half", "is idle"]
)
async def test_an_evicted_connection_is_gone_at_once_whatever_its_client_does(
    echo: Echo, state: str
) -> None:
    async with listening(echo, close_seconds=60) as listener, talking(listener) as talk:
        if state == "ends and is still read":
            await talk.ask(GET[:-2] + b"Connection: close\r\n\r\n" + GET)
        else:
            await talk.ask(GET)
        if state == "has sent half":
            await talk.ask(GET + GET[:10])
        [connection] = listener._pool.connections()
        if state == "has sent more":
            # Sent in this turn of the event loop, in which nobody reads it.
            talk.writer.write(GET[:10])
        connection.evict()
        async with asyncio.timeout(60):
            await listener.empty()
            assert await talk.closed() == b""

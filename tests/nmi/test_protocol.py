from __future__ import annotations

import asyncio
import socket
import tracemalloc

import pytest

from podidentity.nmi.server.messages import Request, Response
from tests.nmi.echoing import GET, Echo
from tests.nmi.talking import listening, talking, until


@pytest.fixture
def echo() -> Echo:
    return Echo()


async def test_an_answer_has_status_type_and_one_length_and_tells_nothing_of_the_server(
    echo: Echo,
) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        reply = await talk.ask(GET)
    assert (reply.status, reply.body) == (200, b"GET /a")
    assert reply.headers == [("Content-Type", "text/plain"), ("Content-Length", "6")]


async def test_a_connection_is_kept_and_knows_its_caller(echo: Echo) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        for _ in range(3):
            await talk.ask(GET)
        name = talk.writer.get_extra_info("sockname")
    callers = [request.caller for request in echo.asked]
    assert (callers[0].address, callers[0].port) == name
    assert callers[0] is callers[1] is callers[2]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", id="close"),
        pytest.param(b"GET /a HTTP/1.0\r\n\r\n", id="1.0"),
        pytest.param(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", id="1.0 kept"),
    ],
)
async def test_a_connection_that_shall_not_be_kept_is_closed_after_the_answer(
    echo: Echo, request_: bytes
) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        reply = await talk.ask(request_)
        assert reply.header("Connection") == ["close"]
        assert await talk.closed() == b""


async def test_headers_are_known_by_lower_case_names_with_all_their_values(echo: Echo) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.ask(
            b"GET /a?b=%20&c HTTP/1.1\r\nHost: x\r\nMETADATA: True \r\nA: 1\r\na: 2\r\n\r\n"
        )
    assert echo.asked[0].target == "/a?b=%20&c"
    assert echo.asked[0].headers == {"host": ["x"], "metadata": ["True"], "a": ["1", "2"]}


async def test_pieces_of_a_request_make_a_request(echo: Echo) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        for piece in (GET[:5], GET[5:12], GET[12:-1]):
            await talk.say(piece)
        assert (await talk.ask(GET[-1:])).body == b"GET /a"


async def test_requests_sent_ahead_are_answered_in_their_order(echo: Echo) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        ahead = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(20))
        await talk.say(ahead + GET[:9])
        replies = [(await talk.hear()).body.decode() for _ in range(20)]
        assert (await talk.ask(GET[9:])).body == b"GET /a"
    assert replies == [f"GET /{n}" for n in range(20)]


async def test_hundreds_of_requests_sent_ahead_wait_for_the_first_and_keep_their_order(
    echo: Echo,
) -> None:
    echo.open.clear()
    async with listening(echo) as listener, talking(listener) as talk:
        ahead = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(2000))
        sending = asyncio.ensure_future(talk.say(ahead))
        await echo.begun.wait()
        assert len(echo.asked) == 1
        echo.open.set()
        replies = [(await talk.hear()).body.decode() for _ in range(2000)]
        await sending
    assert replies == [f"GET /{n}" for n in range(2000)]


async def test_the_answer_to_head_has_no_body_and_keeps_the_connection(echo: Echo) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        head = await talk.reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 7\r\n" in head
        assert (await talk.hear()).body == b"GET /a"


async def test_a_client_that_shuts_down_its_sending_half_is_answered(echo: Echo) -> None:
    echo.open.clear()
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(GET)
        await echo.begun.wait()
        talk.writer.write_eof()
        [connection] = listener._pool.connections()
        await until(lambda: connection.ends or connection.half_closed)
        echo.open.set()
        assert (await talk.hear()).body == b"GET /a"
        assert await talk.closed() == b""


async def test_requests_that_a_client_sent_before_it_shut_down_its_half_are_all_answered(
    echo: Echo,
) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(b"".join(GET.replace(b"/a", b"/%d" % n) for n in range(3)))
        talk.writer.write_eof()
        assert [(await talk.hear()).body for _ in range(3)] == [b"GET /0", b"GET /1", b"GET /2"]
        assert await talk.closed() == b""


async def test_a_half_closed_connection_waits_for_its_answer_no_longer_than_for_a_request(
    echo: Echo,
) -> None:
    echo.open.clear()
    async with listening(echo, head_seconds=0.05) as listener, talking(listener) as talk:
        await talk.say(GET)
        await echo.begun.wait()
        talk.writer.write_eof()
        assert await talk.closed() == b""
        await echo.cancelled.wait()
    assert echo.ended == []


async def test_rubbish_behind_a_request_is_refused_after_its_answer(echo: Echo) -> None:
    echo.open.clear()
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(GET)
        await echo.begun.wait()
        await talk.say(b"rubbish\r\n\r\n")
        echo.open.set()
        assert (await talk.hear()).body == b"GET /a"
        assert (await talk.hear()).status == 400
        assert await talk.closed() == b""


@pytest.mark.parametrize("body", [b"", b"Content-Length: 3\r\n"])
async def test_rubbish_in_the_same_packet_is_refused_after_the_answer_too(
    echo: Echo, body: bytes
) -> None:
    head = b"POST /a HTTP/1.1\r\nHost: x\r\n" + body + b"\r\n"
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(head + (b"abc" if body else b"") + b"rubbish\r\n\r\n")
        assert (await talk.hear()).body == b"POST /a"
        assert (await talk.hear()).status == 400
        assert await talk.closed() == b""


async def test_what_comes_behind_the_last_request_takes_its_answer_from_nobody(echo: Echo) -> None:
    echo.open.clear()
    last = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(last + GET * 100)
        await echo.begun.wait()
        await talk.say(GET * 100)
        echo.open.set()
        assert (await talk.hear()).header("Connection") == ["close"]
        assert await talk.closed() == b""
    assert len(echo.asked) == 1


async def test_trailers_are_no_headers(echo: Echo) -> None:
    chunked = b"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.ask(chunked + b"0\r\nMetadata: true\r\nX-Forwarded-For: y\r\n\r\n")
        await talk.ask(GET)
    assert echo.asked[0].headers == {"host": ["x"], "transfer-encoding": ["chunked"]}
    assert echo.asked[1].headers == {"host": ["x"]}


async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(echo: Echo) -> None:
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n"
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(head)
        assert await talk.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await talk.ask(b"abc")).body == b"POST /a"
        assert (await talk.ask(GET)).body == b"GET /a"


@pytest.mark.parametrize(
    "head",
    [
        b"POST /a HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nExpect: tea\r\n\r\n",
        b"GET /a HTTP/1.1\r\nExpect: 100-continue\r\nX: 1\r\n\r\n",
    ],
)
async def test_nobody_else_is_told_to_continue(echo: Echo, head: bytes) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(head)
        assert (await talk.ask(b"abc" if b"POST" in head else GET)).status == 200


async def test_a_client_that_reads_again_has_all_the_time_for_its_next_answer() -> None:
    begun, open_ = asyncio.Event(), asyncio.Event()

    async def answers(request: Request) -> Response:
        if request.target == "/large":
            return Response(200, b"x" * 3_000_000)
        begun.set()
        await open_.wait()
        return Response(200, b"late")

    async with listening(answers, write_seconds=1.0) as listener, talking(listener) as talk:
        await talk.say(GET.replace(b"/a", b"/large") + GET)
        assert len((await talk.hear()).body) == 3_000_000
        await begun.wait()
        async with listening(Echo(), head_seconds=1.5) as other, talking(other) as clock:
            await clock.closed()
        open_.set()
        assert (await talk.hear()).body == b"late"


async def test_a_large_answer_is_in_memory_once_however_many_clients_take_it_slowly() -> None:
    large, asked = b"x" * 3_000_000, 0

    async def answers(request: Request) -> Response:
        nonlocal asked
        del request
        asked += 1
        return Response(200, large)

    async with listening(answers) as listener:
        tracemalloc.start()
        slow = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(20)]
        for each in slow:
            each.sendall(GET)
        await until(lambda: asked == len(slow))
        # Rendered for each of them, and sent in pieces.
        assert tracemalloc.get_traced_memory()[0] < 2 * len(large)
        tracemalloc.stop()
        for each in slow:
            each.close()


async def test_an_offer_of_another_protocol_is_passed_over(echo: Echo) -> None:
    offer = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with listening(echo) as listener, talking(listener) as talk:
        assert (await talk.ask(offer)).body == b"GET /a"
        assert (await talk.ask(GET)).body == b"GET /a"
        await talk.say(offer + GET)
        assert [(await talk.hear()).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "first",
    [
        b"POST /b HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n",
        b"CONNECT b:80 HTTP/1.1\r\nContent-Length: %d\r\n\r\n",
        b"POST /b HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n",
    ],
)
async def test_a_body_behind_an_offer_of_another_protocol_is_no_request(
    echo: Echo, first: bytes
) -> None:
    async with listening(echo) as listener, talking(listener) as talk:
        assert (await talk.ask(first % len(GET) + GET)).status == 400
        assert await talk.closed() == b""
    assert echo.asked == []


async def test_a_body_is_read_and_thrown_away(echo: Echo) -> None:
    post = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000
    async with listening(echo) as listener, talking(listener) as talk:
        assert (await talk.ask(post)).body == b"POST /a"
        assert (await talk.ask(GET)).body == b"GET /a"


async def test_a_client_that_resets_ends_the_work_for_it(echo: Echo) -> None:
    echo.open.clear()
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(GET)
        await echo.begun.wait()
        own = talk.writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        talk.writer.transport.abort()
        await echo.cancelled.wait()


async def test_a_client_that_takes_no_answers_is_cut_off() -> None:
    asked = asyncio.Semaphore(0)

    async def huge(request: Request) -> Response:
        del request
        asked.release()
        return Response(200, b"x" * 30_000_000)

    async with listening(huge, write_seconds=0.05) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as deaf:
            deaf.sendall(GET * 2)
            await asked.acquire()
            await listener.empty()
    assert asked.locked(), "the second request was never begun"


async def test_a_defect_costs_one_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError(f"defect at {request.target}")

    async with listening(broken) as listener, talking(listener) as talk:
        reply = await talk.ask(GET)
        assert (reply.status, reply.json["error"]) == (500, "server_error")
        assert b"defect" not in reply.body
        assert (await talk.ask(GET)).status == 500
    assert "defect at /a" in caplog.text


async def test_closing_lets_the_request_under_way_finish(echo: Echo) -> None:
    echo.open.clear()
    async with listening(echo) as listener, talking(listener) as busy, talking(listener) as idle:
        await busy.say(GET)
        await echo.begun.wait()
        closing = asyncio.ensure_future(listener.close(5.0))
        assert await idle.closed() == b""
        echo.open.set()
        assert (await busy.hear()).header("Connection") == ["close"]
        await closing
        assert not listener.serving


async def test_closing_cuts_what_does_not_finish(echo: Echo) -> None:
    echo.open.clear()
    async with listening(echo) as listener, talking(listener) as talk:
        await talk.say(GET)
        await echo.begun.wait()
        await listener.close(0.01)
        assert await talk.closed() == b""
    assert echo.cancelled.is_set()

"""The transport of the API server's client: real sockets, and answers in all pieces."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.client_connections import (
    OPENING,
    ClientConnections,
    _Connection,
    _rendered,
)
from tests.adapters.scripted import Conversation, Script, Turn, answers, cuts, hangs, scripted

PATIENT = 60.0
"""Seconds that only a failing run waits."""


@asynccontextmanager
async def connected(
    server: Script, **more: Any
) -> AsyncIterator[tuple[httpx2.AsyncClient, ClientConnections]]:
    connections = ClientConnections(server.url, ssl.create_default_context(), **more)
    limits = httpx2.Timeout(PATIENT)
    async with httpx2.AsyncClient(
        base_url=server.url, transport=connections, timeout=limits
    ) as client:
        yield client, connections


async def one_asked(server: Script) -> None:
    """Return when a request has come."""
    while not server.asked:  # noqa: ASYNC110 - it tells no event
        await asyncio.sleep(0)


def sockets_to(server: Script) -> list[str]:
    """Return the local addresses of the connections to the server that are open."""
    port = f":{httpx2.URL(server.url).port:04X}"
    lines = [each.split() for each in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = "01"
    return [each[1] for each in lines if each[2].endswith(port) and each[3] == established]


def ports(server: Script) -> list[int]:
    """Return the client's port of each request: the same one is the same connection."""
    return [each.writer.get_extra_info("peername")[1] for each in server.asked]


def raw(data: bytes, *, end: bool = False) -> Turn:
    """Return a turn that sends these bytes, and may end the connection."""

    async def turn(conversation: Conversation) -> None:
        await conversation.send(data)
        if end:
            conversation.writer.close()

    return turn


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EARLY = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\nLink: x\r\n\r\n"
)
_HEAD = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def test_requests_after_each_other_share_a_connection() -> None:
    async with scripted(answers(b"ok")) as server, connected(server) as (client, _):
        for _ in range(3):
            assert (await client.get("/a")).content == b"ok"
    assert len(set(ports(server))) == 1


async def test_requests_at_once_have_a_connection_each_and_none_above_the_most() -> None:
    together = asyncio.Event()

    async def turn(conversation: Conversation) -> None:
        if server.open == 3:
            together.set()
        await together.wait()
        await conversation.answer(b"ok")

    async with scripted(turn) as server, connected(server, most=3) as (client, _):
        found = await asyncio.gather(*(client.get("/a") for _ in range(9)))
    assert [each.content for each in found] == [b"ok"] * 9
    assert server.most_open == 3
    assert len(set(ports(server))) == 3


async def test_a_few_connections_are_opened_at_once_and_others_take_what_is_free_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    connect, gate, opening = loop.create_connection, asyncio.Semaphore(1), []

    async def held(*place: Any, **more: Any) -> object:
        opening.append(place)
        await gate.acquire()
        return await connect(*place, **more)

    told = asyncio.Event()

    async def turn(conversation: Conversation) -> None:
        await told.wait()
        await conversation.answer(b"ok")

    monkeypatch.setattr(loop, "create_connection", held)
    async with scripted(turn) as server, connected(server) as (client, _):
        first = asyncio.create_task(client.get("/first"))
        await one_asked(server)
        others = [asyncio.create_task(client.get("/other")) for _ in range(OPENING)]
        last = asyncio.create_task(client.get("/last"))
        for _turn in range(20):
            await asyncio.sleep(0)
        assert len(opening) == 1 + OPENING
        told.set()
        await first
        gate.release()
        await last
        assert len(opening) == 1 + OPENING
        for _other in others[1:]:
            gate.release()
        await asyncio.gather(*others)
    by_path = {each.path: port for each, port in zip(server.asked, ports(server), strict=True)}
    assert by_path["/last"] == by_path["/first"]


async def test_who_waits_too_long_for_a_connection_has_sent_nothing() -> None:
    async with scripted(hangs) as server, connected(server, most=1) as (client, _):
        first = asyncio.create_task(client.get("/a"))
        await one_asked(server)
        with pytest.raises(httpx2.PoolTimeout, match=r"^$"):
            await client.get("/b", timeout=httpx2.Timeout(PATIENT, pool=0.01))
        first.cancel()
        await asyncio.wait([first])
        assert [each.path for each in server.asked] == ["/a"]


@pytest.mark.parametrize("turns", range(12))
async def test_a_request_that_is_given_up_while_it_connects_leaves_nothing_open(turns: int) -> None:
    """Whichever turn of the event loop that is in; the last ones have sent it already."""
    async with scripted(hangs) as server, connected(server, most=1) as (client, _):
        asking = asyncio.create_task(client.get("/a"))
        for _turn in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        for _turn in range(3):  # a transport is closed in the next one
            await asyncio.sleep(0)
        assert sockets_to(server) == []


async def test_a_request_that_is_given_up_closes_its_connection_and_leaves_its_place() -> None:
    async with (
        scripted(hangs, answers(b"ok")) as server,
        connected(server, most=1) as (client, _),
    ):
        first = asyncio.create_task(client.get("/a"))
        await one_asked(server)
        first.cancel()
        await asyncio.wait([first])
        assert (await client.get("/b")).content == b"ok"
    assert len(set(ports(server))) == 2


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(answers(b"ok", more="Connection: close\r\n"), id="the server said so"),
        pytest.param(raw(OK, end=True), id="the server closed it"),
        pytest.param(raw(OK + OK), id="more came than was asked for"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n\r\nok", end=True), id="that ends the answer"),
        pytest.param(
            raw(EARLY + b"HTTP/1.1 200 OK\r\n\r\nok", end=True), id="so it does behind an early one"
        ),
        pytest.param(raw(OK.replace(b"/1.1", b"/1.0")), id="HTTP/1.0"),
    ],
)
async def test_a_connection_is_not_used_again(turn: Turn) -> None:
    async with scripted(turn, answers(b"new")) as server, connected(server) as (client, _):
        assert (await client.get("/a")).content == b"ok"
        assert (await client.get("/b")).content == b"new"
    assert len(set(ports(server))) == 2


async def test_a_connection_on_which_something_came_unasked_is_not_used_again() -> None:
    async with scripted(answers(b"ok")) as server, connected(server) as (client, _):
        await client.get("/a")
        # Written to the socket at once, so that it is there before the next request.
        server.asked[0].writer.write(OK)
        assert (await client.get("/b")).content == b"ok"
    assert len(set(ports(server))) == 2


async def test_a_connection_that_nobody_uses_is_closed_and_those_in_use_stay() -> None:
    async def watch(conversation: Conversation) -> None:
        await conversation.begin()
        await conversation.chunk(b"one")
        await unused.wait()
        await conversation.chunk(b"two")
        await conversation.end()

    unused = asyncio.Event()
    async with (
        scripted(watch, answers(b"ok")) as server,
        connected(server, idle=0.01) as (client, connections),
        client.stream("GET", "/a") as response,
        aclosing(response.aiter_bytes()) as parts,
    ):
        assert await anext(parts) == b"one"
        await client.get("/b")
        assert len(set(ports(server))) == 2
        while len(connections._all) > 1:  # noqa: ASYNC110 - sockets tell no event
            await asyncio.sleep(0.01)
        assert connections._idle == []
        unused.set()
        assert [each async for each in parts] == [b"two"]


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(cuts, id="nothing, and reset"),
        pytest.param(raw(b"", end=True), id="nothing"),
        pytest.param(raw(_HEAD, end=True), id="half a head"),
        pytest.param(raw(_HEAD + b"Content-Length: 9\r\n\r\nok", end=True), id="half a body"),
        pytest.param(
            raw(_HEAD + b"Content-Length: 9\r\nX: 1\r\n\r\nok", end=True),
            id="half, its length told",
        ),
        pytest.param(raw(_CHUNKED + b"2\r\nok\r\n", end=True), id="no last chunk"),
        pytest.param(raw(_CHUNKED + b"2\r\nnot ok"), id="a chunk that is longer"),
        pytest.param(raw(b"SSH-2.0\r\n"), id="not HTTP"),
        pytest.param(
            raw(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: ssh\r\n\r\n"), id="no more HTTP"
        ),
        pytest.param(raw(_CHUNKED.replace(b"Tr", b"Content-Length: 2\r\nTr")), id="two lengths"),
    ],
)
async def test_half_an_answer_is_an_error_and_the_next_request_has_a_new_connection(
    turn: Turn,
) -> None:
    async with (
        scripted(turn, answers(b"ok")) as server,
        connected(server, most=1) as (client, _),
    ):
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await client.get("/a")
        assert (await client.get("/b")).content == b"ok"


async def test_what_a_server_says_before_its_answer_is_none() -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nX-One: 1\r\n\r\n")
    async with scripted(raw(EARLY + answer)) as server, connected(server) as (client, _):
        for _ in range(2):
            response = await client.get("/a")
            assert (response.status_code, response.content) == (200, b"ok")
            assert response.headers.raw == [(b"Content-Length", b"2"), (b"X-One", b"1")]
    assert len(set(ports(server))) == 1


def test_a_request_is_sent_in_these_bytes() -> None:
    url = "http://127.0.0.1:80/api/v1/pods?limit=5"
    request = httpx2.Request("PUT", url, headers={"X-One": "1"}, content=b"{}")
    own = ("http", "127.0.0.1", None)
    head = b"PUT /api/v1/pods?limit=5 HTTP/1.1\r\nHost: 127.0.0.1\r\nX-One: 1\r\n"
    assert _rendered(request, own) == head + b"Content-Length: 2\r\n\r\n{}"


async def test_a_header_of_two_lines_is_not_sent() -> None:
    async with scripted(answers(b"ok")) as server, connected(server) as (client, _):
        with pytest.raises(httpx2.LocalProtocolError):
            await client.get("/a", headers={"X": "1\r\nImpersonate-User: admin"})
        assert (await client.get("/b")).content == b"ok"
    assert [each.path for each in server.asked] == ["/b"]


async def test_another_server_is_not_asked() -> None:
    async with scripted(answers(b"ok")) as server, connected(server) as (client, _):
        with pytest.raises(httpx2.UnsupportedProtocol):
            await client.get("http://127.0.0.1:1/a")
    assert not server.asked


async def test_a_body_that_is_made_as_it_is_sent_is_refused() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"x"

    async with scripted(answers(b"ok")) as server, connected(server) as (client, _):
        with pytest.raises(httpx2.LocalProtocolError):
            await client.post("/a", content=parts())
    assert not server.asked


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://a.example", 80), ("https://a.example", 443), ("https://a.example:6443", 6443)],
)
async def test_a_server_without_a_port_has_that_of_its_scheme(
    monkeypatch: pytest.MonkeyPatch, url: str, port: int
) -> None:
    asked = []

    async def connect(made: object, *place: object, **more: object) -> None:
        del made, more
        asked.append(place)
        raise OSError("it is down")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)
    connections = ClientConnections(url, ssl.create_default_context(), most=1)
    async with httpx2.AsyncClient(transport=connections, timeout=PATIENT) as client:
        for _ in range(2):  # the first that fails leaves its place
            with pytest.raises(httpx2.ConnectError, match="it is down"):
                await client.get(f"{url}/a")
    assert asked == [("a.example", port)] * 2


async def test_options_are_set_on_each_socket() -> None:
    option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    async with (
        scripted(answers(b"ok")) as server,
        connected(server, options=[option]) as (client, connections),
    ):
        await client.get("/a")
        (one,) = connections._all
        assert one.socket.getsockopt(*option[:2])


async def test_who_waits_too_long_for_an_answer_is_told_so_and_its_connection_closed() -> None:
    async with scripted(hangs, answers(b"ok")) as server, connected(server) as (client, _):
        with pytest.raises(httpx2.ReadTimeout, match=r"^$"):
            await client.get("/a", timeout=httpx2.Timeout(PATIENT, read=0.01))
        assert (await client.get("/b")).content == b"ok"
    assert len(set(ports(server))) == 2


async def test_who_has_no_limit_waits_for_the_answer() -> None:
    async def turn(conversation: Conversation) -> None:
        await asyncio.sleep(0)
        await conversation.answer(b"ok")

    async with scripted(turn) as server, connected(server) as (client, _):
        assert (await client.get("/a", timeout=None)).content == b"ok"


async def test_an_answer_that_is_left_twice_gives_one_place_back() -> None:
    async def begins(conversation: Conversation) -> None:
        await conversation.begin()
        await conversation.left.wait()

    async with (
        scripted(begins, hangs) as server,
        connected(server, most=1) as (client, connections),
    ):
        request = httpx2.Request("GET", f"{server.url}/a")
        answer = await connections.handle_async_request(request)
        assert isinstance(answer.stream, httpx2.AsyncByteStream)
        for _ in range(2):
            await answer.stream.aclose()
        under_way = asyncio.create_task(client.get("/b"))
        while len(server.asked) < 2:  # noqa: ASYNC110 - it tells no event
            await asyncio.sleep(0)
        with pytest.raises(httpx2.PoolTimeout):
            await client.get("/c", timeout=httpx2.Timeout(PATIENT, pool=0.01))
        under_way.cancel()
        await asyncio.wait([under_way])


async def test_an_answer_in_several_parts_that_are_there_at_once_is_one() -> None:
    sent = _CHUNKED + b"2\r\non\r\n3\r\ne a\r\n0\r\n\r\n"
    async with scripted(raw(sent)) as server, connected(server) as (client, _):
        assert (await client.get("/a")).content == b"one a"


async def test_of_two_connections_that_nobody_uses_the_one_used_later_is_closed_later() -> None:
    async def turn(conversation: Conversation) -> None:
        if server.open == 2:
            together.set()
        await together.wait()
        await conversation.answer(b"ok")

    hour = 3600.0
    together = asyncio.Event()
    async with scripted(turn) as server, connected(server, idle=hour) as (client, connections):
        await asyncio.gather(client.get("/a"), client.get("/b"))
        (first, since), (other, _) = connections._idle
        connections._idle = [(first, since - hour), (other, since - hour + 0.5)]
        connections._close_old()
        assert (first.fresh(), other.fresh()) == (False, True)
        assert connections._sweep is not None
        assert connections._sweep.when() == pytest.approx(since + 0.5, abs=0.01)
        while connections._all:  # noqa: ASYNC110 - sockets tell no event
            await asyncio.sleep(0.01)


async def test_closing_ends_what_is_under_way() -> None:
    async with scripted(hangs) as server, connected(server) as (client, connections):
        task = asyncio.create_task(client.get("/a"))
        await one_asked(server)
        await connections.aclose()
        assert sockets_to(server) == []
        with pytest.raises(httpx2.TransportError):
            await task


# TLS


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1, that is its own authority, and its key."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, secret


async def test_over_tls_the_server_must_be_trusted_and_is_asked_for_http_1_1(
    tmp_path: Path,
) -> None:
    certificate, key = write_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    spoken = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spoken.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    stranger = ClientConnections(url, ssl.create_default_context())
    async with httpx2.AsyncClient(transport=stranger) as client:
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(url)
    friend = ClientConnections(url, ssl.create_default_context(cafile=str(certificate)))
    async with httpx2.AsyncClient(transport=friend, timeout=PATIENT) as client:
        assert (await client.get(f"{url}/a")).content == b"ok"
        assert (await client.get(f"{url}/b")).content == b"ok"
    assert spoken == ["http/1.1"]
    server.close()


async def test_a_server_that_says_nothing_at_the_handshake_is_not_waited_for_long() -> None:
    async with scripted(hangs) as server:
        url = server.url.replace("http", "https")
        connections = ClientConnections(url, ssl.create_default_context())
        limits = httpx2.Timeout(PATIENT, connect=0.05)
        async with httpx2.AsyncClient(transport=connections, timeout=limits) as client:
            with pytest.raises(httpx2.ConnectTimeout, match=r"^$"):
                await client.get(url)


# An answer in pieces


class Wire(asyncio.Transport):
    """A connection that goes nowhere."""

    def __init__(self) -> None:
        self.left, self.right = socket.socketpair()
        self.reading, self.closing = True, False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.left if name == "socket" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        del data

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def end(self) -> None:
        self.left.close()
        self.right.close()


@asynccontextmanager
async def asked() -> AsyncIterator[tuple[_Connection, Wire]]:
    """A connection on which a request was sent."""
    wire, connection = Wire(), _Connection(lambda _: None)
    connection.connection_made(wire)
    connection.send(b"")
    try:
        yield connection, wire
    finally:
        wire.end()


_BODIES = st.lists(st.binary(max_size=20), max_size=4)


@given(_BODIES, st.booleans(), st.lists(st.integers(0, 300), max_size=6), st.integers(200, 599))
def test_an_answer_is_the_same_however_it_is_cut(
    parts: list[bytes], chunked: bool, cuts_at: list[int], status: int
) -> None:
    body = b"".join(parts)
    if status in {204, 304}:
        parts, body = [], b""
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = b"HTTP/1.1 %d X\r\n%s\r\nx-one: 1\r\n\r\n" % (status, length)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in parts if each)
    sent = head + (chunks + b"0\r\n\r\n" if chunked else body)
    if status in {204, 304}:
        sent = head

    async def take() -> tuple[int, bytes, bool, bool]:
        async with asked() as (connection, _):
            places = sorted({0, len(sent), *(each for each in cuts_at if each < len(sent))})
            for start, end in pairwise(places):
                assert not connection.done
                connection.data_received(sent[start:end])
            found = b"".join(connection.take())
            return connection.status, found, connection.done, connection.reset()

    assert asyncio.run(take()) == (status, body, True, True)


async def test_no_more_is_read_while_nobody_takes_what_has_come() -> None:
    async with asked() as (connection, wire):
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
        for reading in (True, False):
            connection.data_received(b"x" * 200_000)
            assert wire.reading is reading
        assert len(b"".join(connection.take())) == 400_000
        assert wire.reading
        connection.data_received(b"x" * 200_000)
        assert wire.reading


async def test_an_answer_that_nobody_took_whole_leaves_no_deaf_connection() -> None:
    async with asked() as (connection, wire):
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
        connection.data_received(b"x" * 300_000)
        assert connection.done
        assert connection.reset()
        assert wire.reading


_LINE = b"x: " + b"y" * 60_000 + b"\r\n"


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        pytest.param(_HEAD, _LINE, id="headers"),
        pytest.param(_HEAD + b"x: ", b"y" * 60_000, id="a header"),
        pytest.param(b"", _HEAD.replace(b"200", b"103") + _LINE + b"\r\n", id="answers before it"),
        pytest.param(_CHUNKED + b"2\r\nok\r\n0\r\n", _LINE, id="trailers"),
        pytest.param(_CHUNKED + b"2;x=", b"y" * 60_000, id="a chunk's extension"),
    ],
)
async def test_what_is_no_body_does_not_come_without_end(begun: bytes, more: bytes) -> None:
    async with asked() as (connection, wire):
        connection.data_received(begun)
        for _ in range(10):
            if not wire.closing:
                connection.data_received(more)
        assert wire.closing
        with pytest.raises(httpx2.RemoteProtocolError):
            await connection.news(None)


async def test_who_speaks_unasked_is_heard_no_more() -> None:
    async with asked() as (connection, wire):
        connection.data_received(OK)
        assert connection.reset()
        connection.data_received(b"more")
        assert wire.closing


async def test_a_long_head_that_ends_is_as_good_as_a_short_one() -> None:
    async with asked() as (connection, _):
        connection.data_received(_HEAD + _LINE * 3 + b"Content-Length: 0\r\n\r\n")
        assert (connection.done, connection.reset()) == (True, True)


async def test_chunks_may_come_without_end() -> None:
    async with asked() as (connection, wire):
        connection.data_received(_CHUNKED)
        for _ in range(100):
            connection.data_received(b"1\r\nx\r\n" * 10_000)
            assert len(b"".join(connection.take())) == 10_000
        assert not wire.closing


async def test_what_came_before_a_connection_broke_is_there_and_then_the_error() -> None:
    async with asked() as (connection, _):
        connection.data_received(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
        )
        connection.connection_lost(ConnectionResetError("reset"))
        assert connection.take() == [b"ok"]
        with pytest.raises(httpx2.ReadError, match="reset"):
            await connection.news(None)

"""Listening sockets: whose they are, how they are handed on, and how a listener ends."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from podidentity.nmi.reporting.endpoints import Probes
from podidentity.nmi.server.connection import SocketTransport
from podidentity.nmi.server.listener import FOR_LOOKS
from podidentity.nmi.server.messages import Limits
from podidentity.supervisor.listeners import ListenError, listening_socket
from tests.fakes import FakeClock
from tests.nmi.echoing import GET, Echo
from tests.nmi.talking import Talk, listening, started_listener, talking


async def test_a_port_that_is_taken_is_named_with_the_way_to_find_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError) as refusal:
            started_listener(Probes({}, FakeClock()), "127.0.0.1", port)
    said = str(refusal.value)
    assert said.startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use. ")
    assert f"`ss -ltnp 'sport = :{port}'`" in said


async def test_an_address_that_the_node_does_not_have_is_named() -> None:
    with pytest.raises(ListenError, match=r"^cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        started_listener(Probes({}, FakeClock()), "192.0.2.1", 0)


async def test_an_address_that_will_be_there_later_can_be_listened_on() -> None:
    with listening_socket("192.0.2.1", 0, freebind=True) as found:
        assert found.getsockname()[0] == "192.0.2.1"


async def test_one_listener_serves_several_sockets_that_listened_before() -> None:
    sockets = [listening_socket("127.0.0.1", 0), listening_socket("127.0.0.2", 0)]
    ends = [each.getsockname() for each in sockets]
    listener = started_listener(Echo(), sockets=sockets)
    for address, port in ends:
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(GET)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        await Talk(reader, writer).leave()
    assert listener.port == ends[0][1]
    await listener.close(0.0)


async def test_connections_wait_in_a_socket_that_another_keeps_while_nobody_accepts() -> None:
    kept = listening_socket("127.0.0.1", 0)
    first = started_listener(Echo(), sockets=[kept.dup()])
    await first.close(0.0)
    with socket.create_connection(kept.getsockname()) as client:
        client.sendall(GET)
        client.setblocking(False)
        second = started_listener(Echo(), sockets=[kept.dup()])
        received = await asyncio.get_running_loop().sock_recv(client, 100)
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        await second.close(0.0)
    kept.close()


async def test_a_drained_listener_answers_all_and_closes_each_connection_behind_an_answer() -> None:
    echo = Echo()
    async with (
        listening(echo) as listener,
        talking(listener) as idle,
        talking(listener) as busy,
        talking(listener) as silent,
    ):
        await idle.ask(GET)
        echo.open.clear()
        echo.begun.clear()
        await busy.say(GET)
        await echo.begun.wait()
        draining = asyncio.ensure_future(listener.drain(60))
        await asyncio.sleep(0)
        assert not listener.serving
        with pytest.raises(ConnectionRefusedError):
            async with talking(listener):
                pass
        echo.open.set()
        for talk in (busy, idle, silent):
            reply = await (talk.hear() if talk is busy else talk.ask(GET))
            assert (reply.status, reply.header("Connection")) == (200, ["close"])
            assert await talk.closed() == b""
        await draining


async def test_a_drained_listener_answers_who_was_there_before_it_was_told_to_drain() -> None:
    """The kernel had taken the connection; with the last socket that listens it would be reset."""
    listener = started_listener(Echo())
    with socket.create_connection(("127.0.0.1", listener.port)) as client:
        client.sendall(GET)
        client.setblocking(False)
        draining = asyncio.ensure_future(listener.drain(60))
        received = await asyncio.get_running_loop().sock_recv(client, 100)
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    await draining


async def test_who_connects_while_a_listener_pauses_waits_and_is_answered_when_it_drains() -> None:
    listener = started_listener(Echo())
    async with talking(listener) as kept:
        listener.pause()
        assert not listener.serving
        assert (await kept.ask(GET)).header("Connection") == ["close"]
        waiting = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(40)]
        assert await kept.closed() == b""
    assert listener.connections() == 0
    draining = asyncio.ensure_future(listener.drain(60))
    for client in waiting:
        with client:
            client.sendall(GET)
            client.setblocking(False)
            received = await asyncio.get_running_loop().sock_recv(client, 100)
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    await draining


async def test_a_listener_that_drains_accepts_no_more_than_can_wait_however_many_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pods that go on connecting would hold its loop up for ever."""
    monkeypatch.setattr("podidentity.nmi.server.listener.MOST_ACCEPTED_LAST", 32)
    listener = started_listener(Echo())
    clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(40)]
    draining = asyncio.ensure_future(listener.drain(60))
    await asyncio.sleep(0)
    assert listener.connections() == 32
    for client in clients:
        client.close()
    await draining


async def test_a_drained_listener_ends_within_its_bound_whoever_stays() -> None:
    echo = Echo()
    async with listening(echo) as listener, talking(listener) as idle, talking(listener) as busy:
        await idle.ask(GET)
        echo.open.clear()
        await busy.say(GET)
        await listener.drain(0.01, grace=0.01)
        assert await idle.closed() == b""
        assert await busy.closed() == b""
        assert listener.connections() == 0


async def test_where_connections_are_not_kept_each_is_closed_behind_its_answer() -> None:
    echo = Echo()
    async with (
        listening(echo) as listener,
        talking(listener) as idle,
        talking(listener) as busy,
        talking(listener) as silent,
    ):
        await idle.ask(GET)
        echo.open.clear()
        echo.begun.clear()
        await busy.say(GET)
        await echo.begun.wait()
        listener.keep_connections(kept=False)
        assert not listener.keep_alive
        assert await idle.closed() == b""
        echo.open.set()
        assert (await busy.hear()).header("Connection") == ["close"]
        assert (await silent.ask(GET)).header("Connection") == ["close"]
        listener.keep_connections(kept=True)
        async with talking(listener) as later:
            assert (await later.ask(GET)).header("Connection") == []


@pytest.mark.parametrize("ending", ["no connection is kept", "the listener closes"])
async def test_a_request_that_came_just_before_its_kept_connection_would_end_is_answered(
    ending: str,
) -> None:
    async with listening(Echo()) as listener, talking(listener) as talk:
        await talk.ask(GET)
        talk.writer.write(GET)
        [connection] = listener._pool.connections()
        transport = connection._sender.transport
        assert isinstance(transport, SocketTransport)
        while not transport.has_unread():
            pass  # The event loop does not turn, so nobody reads it.
        if ending == "no connection is kept":
            listener.keep_connections(kept=False)
            closing = None
        else:
            closing = asyncio.create_task(listener.close())
        assert (await talk.hear()).header("Connection") == ["close"]
        assert await talk.closed() == b""
        if closing is not None:
            await closing


@pytest.mark.parametrize("resumed", [False, True], ids=["at first", "after pause and resume"])
async def test_a_process_without_descriptors_pauses_and_goes_on(
    caplog: pytest.LogCaptureFixture, *, resumed: bool
) -> None:
    class Exhausted(socket.socket):
        tries = 0

        def accept(self) -> tuple[socket.socket, object]:
            Exhausted.tries += 1
            if Exhausted.tries == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    found = listening_socket("127.0.0.1", 0)
    listener = started_listener(Echo(), sockets=[Exhausted(fileno=found.detach())])
    if resumed:
        listener.pause()
        listener.resume()
    async with talking(listener) as talk, asyncio.timeout(60):
        assert (await talk.ask(GET)).status == 200
    assert "Too many open files" in caplog.text
    await listener.close(0.0)


async def test_the_kubelet_is_answered_while_pods_hold_all_places_of_the_probe_port() -> None:
    def from_kubelet(remote: str, own: str) -> bool:
        return remote == own

    probes = Probes({}, FakeClock())
    probe = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    listener = started_listener(probes, limits=FOR_LOOKS, local=from_kubelet)
    pods = []
    for number in range(20 * FOR_LOOKS.per_address):
        address = f"127.0.1.{number // FOR_LOOKS.per_address}"
        pods.append(
            await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(address, 0))
        )
    for _ in range(3):
        async with talking(listener) as kubelet:
            assert (await kubelet.ask(probe)).body == b"Active"
    async with talking(listener, "127.0.2.1") as prometheus:
        assert (await prometheus.ask(probe)).body == b"Active"
    assert listener.connections() <= FOR_LOOKS.unproven + FOR_LOOKS.local
    for each in pods:
        await Talk(*each).leave()
    await listener.close(0.0)


async def test_thousands_of_connections_from_one_address_leave_the_others_their_places() -> None:
    limits = Limits()
    listener = started_listener(
        Echo(), "127.0.0.1", 0, limits, local=lambda remote, _: remote == "127.0.0.9"
    )
    hogs = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(1000)]
    assert listener.connections() <= limits.per_address
    async with talking(listener, "127.0.0.2") as neighbour:
        assert (await neighbour.ask(GET)).status == 200
    for each in hogs:
        await Talk(*each).leave()
    await listener.close(0.0)

"""Sockets whose callback is called when there is something to read."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from functools import partial
from typing import Any

import pytest

from podidentity.nmi.server.connection import READ_IN_ONE_TURN, Readers, SocketTransport
from podidentity.nmi.server.listener import Listener
from tests.nmi.echoing import GET, Echo
from tests.nmi.talking import listening, until


async def test_a_connection_that_was_closed_in_this_turn_is_read_no_more() -> None:
    readers = Readers(asyncio.get_running_loop())
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def close_the_other(mine: int) -> None:
        called.append(mine)
        for each, _ in pairs:
            readers.remove(each)
        for each, _ in pairs:
            each.close()

    for number, (near, far) in enumerate(pairs):
        readers.add(near, partial(close_the_other, number))
        far.send(b"x")
    await until(lambda: bool(called))
    await asyncio.sleep(0)
    assert len(called) == 1
    readers.close()
    for _, far in pairs:
        far.close()


async def test_of_thousands_of_connections_a_few_are_read_in_each_turn() -> None:
    readers = Readers(asyncio.get_running_loop())
    pairs = [socket.socketpair() for _ in range(2 * READ_IN_ONE_TURN)]
    turns: list[int] = []
    read: set[int] = set()
    turn = 0

    def readable(near: socket.socket, number: int) -> None:
        near.recv(1)
        read.add(number)
        turns.append(turn)

    for number, (near, far) in enumerate(pairs):
        readers.add(near, partial(readable, near, number))
        far.send(b"x")
    while len(read) < len(pairs):
        turn += 1
        await asyncio.sleep(0)
    assert max(Counter(turns).values()) <= READ_IN_ONE_TURN
    for near, far in pairs:
        readers.remove(near)
        near.close()
        far.close()
    readers.close()


async def test_all_that_are_ready_are_read_before_one_of_them_is_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    read, send = SocketTransport._readable, SocketTransport.send_now
    kept = {"_readable": ("read", read), "send_now": ("sent", send)}
    for name, (word, method) in kept.items():

        def noted(transport: SocketTransport, word: str = word, method: Any = method) -> None:
            done.append(word)
            method(transport)

        monkeypatch.setattr(SocketTransport, name, noted)
    async with listening(Echo()) as listener:
        clients = await kept_clients(listener, 3)
        done.clear()
        for client in clients:
            client.send(b"GET\r\n\r\n")
        await until(lambda: len(done) >= 6)
        assert done[:6] == ["read"] * 3 + ["sent"] * 3
        for client in clients:
            client.close()


async def kept_clients(listener: Listener, count: int) -> list[socket.socket]:
    """Return clients whose connections were kept after an answer."""
    clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(count)]
    for client in clients:
        client.setblocking(False)
        client.send(GET)
        answer = await asyncio.get_running_loop().sock_recv(client, 4096)
        assert answer.startswith(b"HTTP/1.1 200 ")
    return clients


async def test_last_answers_of_one_turn_arrive_whole_with_their_ends() -> None:
    loop, echo = asyncio.get_running_loop(), Echo()
    async with listening(echo) as listener:
        clients = await kept_clients(listener, 5)
        for client in clients:
            client.send(b"GET\r\n\r\n")
        for client in clients:
            answer = b""
            while more := await loop.sock_recv(client, 4096):
                answer += more
            assert answer.startswith(b"HTTP/1.1 400 ")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
            client.close()
        await listener.empty()

"""Sockets whose callback is called when there is something to read."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from functools import partial

from podidentity.nmi.server.connection import READ_IN_ONE_TURN, Readers
from tests.nmi.talking import until


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

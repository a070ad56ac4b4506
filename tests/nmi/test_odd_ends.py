"""Connections that end in every odd way: nothing of them stays, in the process or in its books."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from podidentity.core.attestation import Proof
from podidentity.nmi.server.connection import Connection
from podidentity.nmi.server.listener import Listener
from podidentity.nmi.server.messages import Limits, Request, Response
from tests.fakes import FakeAttestor, pod
from tests.nmi.hostile import PLAIN, asking
from tests.nmi.pipelines import World
from tests.nmi.talking import started_listener, until

CONNECTIONS, AT_ONCE = 400, 40
LIMITS = Limits(
    idle_seconds=0.1,
    head_seconds=0.1,
    unproven_seconds=0.1,
    write_seconds=0.1,
    close_seconds=0.1,
    unproven=24,
    per_address=24,
    per_pod=16,
)
RESET = struct.pack("ii", 1, 0)
CLOSE = asking(b"Connection: close")
SENT = [
    PLAIN,
    PLAIN,
    CLOSE,
    CLOSE + PLAIN,
    PLAIN[:60],
    b"\0rubbish\r\n\r\n",
    PLAIN * 40,
    PLAIN * 2000,
    asking(target=b"/metadata/instance?api-version=2021-02-01"),
]
PAUSES = [0, 0, 0.001, 0.02]


class LateAttestor(FakeAttestor):
    """Answers when connections may have gone."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def answer(self, judged: Callable[[Proof], None], proof: Callable[[], Proof]) -> bool:
        asyncio.get_running_loop().call_later(self._random.choice(PAUSES), judged, proof())
        return True


async def odd(listener: Listener, random: Random) -> None:
    """Connect, send some of it all, and leave somehow."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client, suppress(OSError):
        client.setblocking(False)
        if random.random() < 0.2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        await loop.sock_connect(client, ("127.0.0.1", listener.port))
        for _ in range(random.randrange(4)):
            with suppress(BlockingIOError):
                client.send(random.choice(SENT))
            await asyncio.sleep(random.choice(PAUSES))
            with suppress(BlockingIOError):
                client.recv(random.choice([1, 100, 100_000]))
        end = random.choice(["reset", "reset", "half", "late", "close"])
        if end == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif end == "half":
            client.shutdown(socket.SHUT_WR)
            await asyncio.sleep(random.choice(PAUSES))
        elif end == "late":
            await asyncio.sleep(0.15)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def remembered(listener: Listener) -> list[Connection]:
    """Return the connections of a listener that anybody still has."""
    gc.collect()
    found = (each for each in gc.get_objects() if isinstance(each, Connection))
    return [each for each in found if each._context is listener._context]


async def test_however_connections_end_nothing_of_them_stays() -> None:
    random, faults = Random(3), list[dict[str, Any]]()  # noqa: S311 - the same each time
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    world = World(attestor=LateAttestor(random))
    world.cluster.put_pod(pod(addresses=("127.0.0.1",)))

    async def slow(request: Request) -> Response:
        await asyncio.sleep(random.choice(PAUSES))
        return await world.pipeline(request)

    listener = started_listener(
        slow, "127.0.0.1", 0, LIMITS, memo=world.pipeline, local=lambda *_: False
    )
    places = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with places:
            await odd(listener, random)
            listener.keep_connections(kept=random.random() < 0.7)

    before = descriptors()
    await asyncio.gather(*[one() for _ in range(CONNECTIONS)])
    async with asyncio.timeout(60):
        await listener.empty()
        await until(lambda: descriptors() <= before)
        # Their last proofs are still to come.
        await until(lambda: not remembered(listener))
    assert listener.held_bytes() == 0
    assert not listener._pool._holders
    assert not faults
    await listener.close()

"""Whatever a client sends, in whatever pieces: with the memo it gets what it gets without.

And each request leaves the same record. Bytes that were answered before come again beside others
that differ from them by little, ahead of their answers, cut anywhere, while a proof is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random

import pytest

from podidentity.core.attestation import Proof, Verdict
from podidentity.nmi.server.listener import Listener
from podidentity.nmi.server.messages import Caller, Request, Response
from tests.fakes import ADDRESS, OTHER_CLIENT, FakeAttestor
from tests.nmi.fuzzing import Client, MemoryTransport
from tests.nmi.hostile import ASKED, PLAIN, Attacker, asking
from tests.nmi.pipelines import World

STREAMS = 1500


CHUNKED = b"Transfer-Encoding: chunked"
H2C = (b"Connection: Upgrade", b"Upgrade: h2c")
ALIKE = [
    PLAIN,
    PLAIN,
    asking(b"Connection: close"),
    asking(b"Connection: keep-alive"),
    asking(b"Connection: close, keep-alive"),
    asking(*H2C),
    asking(b"Connection: close", b"Upgrade: h2c"),
    asking(*H2C, b"Content-Length: 3", body=b"abc"),
    asking(version=b"HTTP/1.0"),
    asking(b"Connection: keep-alive", version=b"HTTP/1.0"),
    asking(method=b"HEAD"),
    asking(method=b"POST"),
    asking(b"Content-Length: 5", method=b"POST", body=b"hello"),
    asking(b"Content-Length: 0"),
    asking(b"Content-Length: 3", body=b"abc"),
    asking(b"Content-Length: 3", CHUNKED, body=b"0\r\n\r\n"),
    asking(CHUNKED, body=b"0\r\n\r\n"),
    asking(CHUNKED, body=b"3\r\nabc\r\n0\r\nMetadata: true\r\n\r\n"),
    asking(b"Expect: 100-continue"),
    asking(b"Expect: 100-continue", b"Content-Length: 4", body=b"wxyz"),
    *(asking(header=each) for each in (b"metadata: true", b"METADATA:TRUE", b"Metadata:  true \t")),
    *(asking(header=each) for each in (b"Metadata: false", b"Metadata: true\r\nMetadata: true")),
    *(
        asking(each)
        for each in (
            b"X-Forwarded-For: 1",
            b"x-forwarded-for:",
            b"X-Forwarded-For : 1",
            b"VIA: 1.0 a",
        )
    ),
    *(asking(each) for each in (b"A: \0", b"A: b\rc", b" folded", b"A: " + b"x" * 3000)),
    *(asking(b"x-ms-client-request-id: %d" % number) for number in range(3)),
    asking(target=b"http://169.254.169.254" + ASKED),
    asking(target=b"/" + ASKED),
    asking(target=ASKED + b"#x"),
    asking(target=ASKED + b"&client_id=" + OTHER_CLIENT.encode()),
    asking(target=b"/metadata/instance?api-version=2021-02-01"),
    PLAIN.replace(b"\r\n", b"\n"),
    PLAIN.replace(b"\r\n\r\n", b"\r\n\n"),
    b"\r\n" + PLAIN,
    b"\r\n\r\n" + PLAIN,
    PLAIN + b"\r\n",
    PLAIN + b"\n",
    PLAIN[:-4],
]


def streams(seed: int) -> Iterator[list[bytes]]:
    """Yield the packets of one connection after the other."""
    random, attacker = Random(seed), Attacker(seed)  # noqa: S311 - the same bytes each time
    for _ in range(STREAMS):
        written = [random.choice(ALIKE) for _ in range(random.choice([1, 1, 1, 2, 3, 6]))]
        if random.random() < 0.1:
            written.append(attacker.stream(without_header=False)[1])
        yield written if random.random() < 0.5 else attacker.split(b"".join(written))


class SlowAttestor(FakeAttestor):
    """Proves every connection, now and then some turns of the event loop later, or not at once."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = Random(seed)  # noqa: S311 - as above

    def answer(self, judged: Callable[[Proof], None], proof: Callable[[], Proof]) -> bool:
        loop, random = asyncio.get_running_loop(), self._random

        def after(turns: int) -> None:
            if turns:
                loop.call_soon(after, turns - 1)
            elif random.random() < 0.1:
                judged(Proof(verdict=Verdict.UNKNOWN, detail="net went away"))
            else:
                judged(proof())

        if random.random() < 0.1:
            return False
        loop.call_soon(after, random.randrange(5))
        return True


class Side:
    """An agent, with the memo or without."""

    def __init__(self, seed: int, *, memo: bool, kept: bool) -> None:
        self.world = World(attestor=SlowAttestor(seed))
        self.decided = 0
        self.listener = Listener(self._decide, memo=self.world.pipeline if memo else None)
        self.listener.keep_connections(kept=kept)

    async def answers(self, packets: list[bytes], port: int) -> bytes:
        """Return all that a client gets, by its end."""
        connection = self.listener.connect(Caller(ADDRESS, port))
        assert connection is not None
        transport = MemoryTransport(connection)
        connection.connection_made(transport)
        client = Client(transport, list(packets))
        while client.goes_on():  # noqa: ASYNC110 - it has a turn of its own
            await asyncio.sleep(0)
        return client.received

    async def _decide(self, request: Request) -> Response:
        self.decided += 1
        return await self.world.pipeline(request)

    def records(self) -> tuple[list[str], list[str], list[str]]:
        """Return all lines, audit records and numbers; the clock stands still."""
        record = self.world.record
        return record.written, record.audited, record.scraped("")


@pytest.mark.parametrize("kept", [True, False])
async def test_no_stream_is_answered_or_recorded_otherwise_than_without_the_memo(
    kept: bool,
) -> None:
    seed = 7 + kept
    known, decided = (Side(seed, memo=memo, kept=kept) for memo in (True, False))
    for side in (known, decided):
        await side.world.warm()
    for number, packets in enumerate(streams(seed)):
        port = 1024 + number
        assert await known.answers(packets, port) == await decided.answers(packets, port), packets
    assert known.records() == decided.records()
    for side in (known, decided):
        assert side.listener.connections() == side.listener.held_bytes() == 0
    assert known.decided < 0.9 * decided.decided, "the memo was asked"

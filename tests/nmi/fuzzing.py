"""Hostile requests against the agent's listener and routes: what comes of them.

    ./scripts/fuzz [--requests N] [--seed S]

In one process, without sockets: the connections are the real ones, on transports of memory, and
behind the routes stand fakes that remember what they were asked. Who asks: a pod without any
identity, one that speaks with the address of a pod that has one, an address of no pod, and a pod
with an identity whose web server is made to ask (so that the request lacks the header). None of
them may get a token, and nothing but plain metadata may be asked of IMDS.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from posixpath import normpath
from typing import Any
from urllib.parse import unquote

from podidentity.core.attestation import Proof, Verdict
from podidentity.core.resources import Pod
from podidentity.nmi.server.connection import READ_BYTES, Connection
from podidentity.nmi.server.listener import Listener
from podidentity.nmi.server.messages import Caller, Request, Response
from tests.fakes import FakeAttestor, binding, identity, pod
from tests.nmi.agents import Agent
from tests.nmi.hostile import streams

ADDRESSES = {
    "plain": "10.244.0.2",
    "forged": "10.244.0.3",
    "tricked": "10.244.0.4",
    "stranger": "10.244.0.9",
}
AT_ONCE = 24
"""Connections that are open at the same time."""
_TURNS = 8
"""Of the event loop, that a client waits for its last answers."""
_KEPT = 20_000
"""Lines and records of the fakes that are remembered, to have memory measured without them."""


@dataclass
class Findings:
    """What came of so many requests."""

    connections: int = 0
    handled: int = 0
    """Requests that came as far as the routes."""
    answers: Counter[int] = field(default_factory=Counter)
    forwarded: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    credentials_asked: list[str] = field(default_factory=list)
    """Targets that IMDS was asked for and that any reading leads to a credential."""
    errors: list[str] = field(default_factory=list)
    held_bytes: int = 0
    """The most that requests took at any time."""
    grown: int = 0
    """Bytes of resident memory, from a tenth of the way to the end."""
    left_open: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.tokens or self.credentials_asked or self.errors or self.left_open)


class MemoryTransport(asyncio.Transport):
    """A client's end that takes all answers at once."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self._protocol = protocol
        self._closing = False
        self.ended = False
        self.paused = False
        self.received = bytearray()

    def feed(self, data: bytes) -> None:
        """Let the protocol read."""
        while data and not self._closing:
            part, data = data[:READ_BYTES], data[READ_BYTES:]
            self._protocol.get_buffer(-1)[: len(part)] = part
            self._protocol.buffer_updated(len(part))

    def leave(self) -> None:
        """Close the client's end."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        self.close()

    def _lose(self) -> None:
        self.ended = True
        self._protocol.connection_lost(None)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.received += data

    def write_eof(self) -> None:
        """A client that gets the last answer closes its end."""
        asyncio.get_running_loop().call_soon(self.leave)

    def can_write_eof(self) -> bool:
        return True


class ForgingAttestor(FakeAttestor):
    """Finds the forged connections out."""

    def proof(self, address: str, port: int, candidates: Sequence[Pod]) -> Proof:
        self.verdict = Verdict.FORGED if address == ADDRESSES["forged"] else Verdict.PROVEN
        return super().proof(address, port, candidates)


class _Errors(logging.Handler):
    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(self.format(record))


def _agent(findings: Findings) -> Agent:
    nmi = Agent(
        pod("plain", labels={}, addresses=(ADDRESSES["plain"],)),
        pod("orders-0", addresses=(ADDRESSES["forged"],)),
        pod("orders-1", addresses=(ADDRESSES["tricked"],)),
        identity(),
        binding(),
        attestor=ForgingAttestor(),
    )

    async def counted(request: Request) -> Response:
        findings.handled += 1
        return await nmi.pipeline(request)

    nmi.listener = Listener(counted, memo=nmi.pipeline)
    return nmi


async def attack(requests: int, seed: int) -> Findings:
    """Send so many requests; return what came of them."""
    findings = Findings()
    nmi = _agent(findings)
    errors = _Errors(findings.errors)
    logging.getLogger().addHandler(errors)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: findings.errors.append(str(context)))
    come = streams(seed, requests)
    try:
        await _all(islice(come, max(1, requests // 30)), nmi, findings)
        before = _resident()
        await _all(come, nmi, findings)
        findings.grown = _resident() - before
    finally:
        loop.set_exception_handler(None)
        logging.getLogger().removeHandler(errors)
    findings.tokens += len(nmi.tokens.asked)
    findings.left_open = nmi.listener.connections()
    return findings


async def _all(come: Iterable[tuple[str, list[bytes]]], nmi: Agent, findings: Findings) -> None:
    """Keep AT_ONCE connections going until all have come and gone."""
    rest, ports = iter(come), iter(range(10_000, 1 << 62))
    going = [_client(nmi, *each, next(ports)) for each in islice(rest, AT_ONCE)]
    while going:
        for number, client in enumerate(going):
            if client.goes_on():
                continue
            findings.connections += 1
            _look_at(client.received, findings)
            follower = next(rest, None)
            if follower is not None:
                going[number] = _client(nmi, *follower, next(ports))
        going = [client for client in going if not client.ended]
        await asyncio.sleep(0)
        # An address of no pod waits two seconds for the watch.
        nmi.clock.advance(2)
        findings.held_bytes = max(findings.held_bytes, nmi.listener.held_bytes())
        _look_behind(nmi, findings)


class Client:
    """One connection and the packets that it still sends."""

    def __init__(self, transport: MemoryTransport, packets: list[bytes]) -> None:
        self._transport = transport
        self._packets = deque(packets)
        self._idle = 0

    @property
    def ended(self) -> bool:
        """Whether the connection is gone."""
        return self._transport.ended

    @property
    def received(self) -> bytes:
        """All that was answered."""
        return bytes(self._transport.received)

    def goes_on(self) -> bool:
        """Send the next packet, or leave when all is answered; return whether it is still there."""
        transport = self._transport
        if transport.ended:
            return False
        if transport.paused or transport.is_closing():
            return True
        if self._packets:
            transport.feed(self._packets.popleft())
            return True
        self._idle += 1
        if self._idle > _TURNS:
            transport.leave()
        return True


def _client(nmi: Agent, who: str, packets: list[bytes], port: int) -> Client:
    connection = nmi.listener.connect(Caller(ADDRESSES[who], port))
    assert connection is not None, "there are places for all"
    transport = MemoryTransport(connection)
    connection.connection_made(transport)
    return Client(transport, packets)


def _look_at(received: bytes, findings: Findings) -> None:
    findings.tokens += received.count(b"access_token")
    for status in _statuses(received):
        findings.answers[status] += 1


def _statuses(received: bytes) -> Iterator[int]:
    return map(int, re.findall(rb"HTTP/1\.1 (\d{3}) ", received))


def _look_behind(nmi: Agent, findings: Findings) -> None:
    for target, _ in nmi.metadata.asked:
        path, _, query = target.partition("?")
        findings.forwarded[path] += 1
        if leads_to_a_credential(path, query):
            findings.credentials_asked.append(target)
    nmi.metadata.asked.clear()
    nmi.attestor.asked.clear()
    nmi.clock.slept.clear()
    if len(nmi.record.written) > _KEPT:
        nmi.record.written.clear()
        nmi.record.audited.clear()
        nmi.record.told.clear()


def leads_to_a_credential(path: str, query: str) -> bool:
    """Return whether any reading of a target that IMDS was asked for may lead to a credential."""
    if path == "/metadata/identity/info" and not set(query) & set("/\\#?"):
        return False
    readings = [path, unquote(path), unquote(unquote(path)), unquote(unquote(f"{path}?{query}"))]
    for reading in readings:
        resolved = normpath(reading.lower().replace("\\", "/"))
        segments = resolved.partition("?")[0].split("/")
        if {"identity", "oauth2", "token"} & set(segments):
            return True
        if not resolved.startswith(("/metadata/instance", "/metadata/versions")):
            return True
    return False


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(arguments: Sequence[str]) -> int:
    """Attack as asked, print the counts; return 1 where something happened that must not."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    begun = time.monotonic()
    findings = asyncio.run(attack(chosen.requests, chosen.seed))
    seconds = time.monotonic() - begun
    print(f"{chosen.requests} requests of seed {chosen.seed} in {seconds:.0f} s")  # noqa: T201
    for name, value in vars(findings).items():
        shown = dict(value.most_common(12)) if isinstance(value, Counter) else value
        print(f"{name:18} {shown}")  # noqa: T201
    return 0 if findings.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Pods that ask for tokens one by one; without a client library, so that NMI is measured."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterable
from time import perf_counter
from typing import NamedTuple

from bench.stage.ground import BenchPod, Cgroups, socket_of

_IMDS = ("169.254.169.254", 80)
AUDIENCE = "https://management.azure.com/"
_TARGET = f"/metadata/identity/oauth2/token?api-version=2018-02-01&resource={AUDIENCE}"
_REQUEST = (
    f"GET {_TARGET} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n"
    "User-Agent: azsdk-python-identity/1.27.0 Python/3.11.7 (Linux)\r\n"
    "Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n"
).encode()


class Answer(NamedTuple):
    """What a pod was told."""

    status: int
    seconds: float
    body: bytes
    closes: bool = False
    """Whether the connection ends with it."""


class Asker:
    """One kept connection of a pod."""

    def __init__(self, cgroups: Cgroups, pod: BenchPod) -> None:
        self._socket = socket_of(cgroups, pod)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened = 0.0
        """When it began to connect, in `perf_counter` seconds."""

    @property
    def port(self) -> int:
        """Return the port of the pod's end; 0 before it connects."""
        return int(self._socket.getsockname()[1])

    async def connect(self) -> None:
        """Connect to IMDS, or to who answers in its place."""
        self.opened = perf_counter()
        await asyncio.get_running_loop().sock_connect(self._socket, _IMDS)

    async def ask(self) -> Answer:
        """Ask for a token, and wait for the whole answer; raise EOFError or OSError for none."""
        began = perf_counter()
        await asyncio.get_running_loop().sock_sendall(self._socket, _REQUEST)
        got = await self._more()
        while b"\r\n\r\n" not in got:
            got += await self._more()
        head, _, body = got.partition(b"\r\n\r\n")
        head = head.lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += await self._more()
        closes = b"connection: close" in head
        return Answer(int(head.split()[1]), perf_counter() - began, body, closes)

    async def _more(self) -> bytes:
        got = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
        if not got:
            raise EOFError("the connection ended before the answer did")
        return got

    async def token(self) -> str:
        """Return the token that the pod is given; end the program where it is none."""
        answer = await self.ask()
        must_be_token(answer)
        return str(json.loads(answer.body)["access_token"])

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


async def connect_all(cgroups: Cgroups, pods: Iterable[BenchPod]) -> list[Asker]:
    """Return a connection of each pod."""
    askers = [Asker(cgroups, pod) for pod in pods]
    await asyncio.gather(*(asker.connect() for asker in askers))
    return askers


async def ask_once(cgroups: Cgroups, pod: BenchPod) -> Answer:
    """Connect, ask, close; the time is that of both."""
    asker = Asker(cgroups, pod)
    began = perf_counter()
    try:
        await asker.connect()
        answer = await asker.ask()
        return answer._replace(seconds=perf_counter() - began)
    finally:
        asker.close()


def must_be_token(answer: Answer) -> None:
    """End the program where the answer is no token."""
    if answer.status != 200 or b'"access_token"' not in answer.body:
        sys.exit(f"not a token: {answer.status} {answer.body[:300]!r}")

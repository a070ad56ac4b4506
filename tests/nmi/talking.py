"""Raw bytes to a listener, and what comes back, over a real socket on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from podidentity.nmi.server.listener import IsLocal, Listener, is_local
from podidentity.nmi.server.messages import Handler, Limits
from podidentity.supervisor.listeners import listening_socket


@dataclass
class Reply:
    """An answer, taken apart."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Talk:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self, *, with_body: bool = True) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = []
        for line in head[1:]:
            if line:
                name, _, value = line.partition(": ")
                headers.append((name, value))
        reply = Reply(int(head[0].split(" ")[1]), headers, b"")
        assert head[0].startswith("HTTP/1.1 ")
        (length,) = reply.header("Content-Length")
        if with_body:
            reply.body = await self.reader.readexactly(int(length))
        return reply

    async def ask(self, request: bytes) -> Reply:
        await self.say(request)
        return await self.hear(with_body=not request.startswith(b"HEAD "))

    async def closed(self) -> bytes:
        """Return what else comes until the other side closes."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    async def leave(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def until(holds: Callable[[], bool]) -> None:
    """Return when it holds: nothing tells of what is looked at, in the kernel or in the server."""
    while not holds():  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.001)


def started_listener(
    handler: Handler,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: Limits | None = None,
    *,
    sockets: Sequence[socket.socket] = (),
    **more: Any,
) -> Listener:
    """Serve a handler on sockets that listen already, or on `host`:`port` (0: any).

    The listener closes the sockets when it ends. Raises ListenError.
    """
    listener = Listener(handler, limits, **more)
    for each in sockets or [listening_socket(host, port)]:
        listener.accept_from(each)
    return listener


@asynccontextmanager
async def listening(
    handler: Handler, *, local: IsLocal = is_local, **limits: Any
) -> AsyncIterator[Listener]:
    """Serve a handler on loopback, whose connections are the node's own unless `local` says no."""
    listener = started_listener(handler, limits=Limits(**limits), local=local)
    try:
        yield listener
    finally:
        await listener.close(0.0)


@asynccontextmanager
async def talking(listener: Listener, own: str = "127.0.0.1") -> AsyncIterator[Talk]:
    """Connect to a listener from one of loopback's addresses."""
    connected = asyncio.open_connection("127.0.0.1", listener.port, local_addr=(own, 0))
    talk = Talk(*await connected)
    try:
        yield talk
    finally:
        await talk.leave()

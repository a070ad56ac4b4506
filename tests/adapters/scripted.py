"""An HTTP server on loopback that sends a test's script byte for byte."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Turn = Callable[["Conversation"], Awaitable[None]]


class Conversation:
    """One request, and the connection to its sender."""

    def __init__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.head = head.decode()
        self.body = body
        self.method, self.target, _ = self.head.split("\r\n")[0].split(" ")
        self.path, _, self.query = self.target.partition("?")
        self.writer = writer
        self.left = asyncio.Event()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes | dict[str, Any], status: int = 200, more: str = "") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{more}\r\n"
        await self.send(head.encode() + content)

    async def begin(self) -> None:
        """Begin an answer that goes on, as a watch does."""
        await self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, kind: str, **content: Any) -> None:
        await self.chunk(json.dumps({"type": kind, "object": content}).encode() + b"\n")

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    def cut(self) -> None:
        """Break the connection off."""
        self.writer.transport.abort()


class Script:
    """Answers the requests one after the other by its turns; the last one stays."""

    def __init__(self, *turns: Turn) -> None:
        self.turns = list(turns)
        self.asked: list[Conversation] = []
        self.port = 0
        self.open = 0
        self.most_open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                ]
                body = await reader.readexactly(length[0]) if length else b""
                await self._turn(Conversation(head, body, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _turn(self, conversation: Conversation) -> None:
        self.asked.append(conversation)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await turn(conversation)
        finally:
            self.open -= 1


@asynccontextmanager
async def scripted(*turns: Turn, port: int = 0) -> AsyncIterator[Script]:
    """Serve the script while the block runs; then end its connections."""
    script = Script(*turns)
    talking: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            await script.serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            talking.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", port, limit=1 << 20)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()
        for task in list(talking):
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)


def answers(body: bytes | dict[str, Any], status: int = 200, more: str = "") -> Turn:
    """Return a turn that gives this answer."""

    async def turn(conversation: Conversation) -> None:
        await conversation.answer(body, status, more)

    return turn


async def hangs(conversation: Conversation) -> None:
    """Say nothing, for ever."""
    del conversation
    await asyncio.Event().wait()


async def resets(conversation: Conversation) -> None:
    """Break the connection off without an orderly end (RST), as a load balancer does."""
    once = struct.pack("ii", 1, 0)
    sock = conversation.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, once)
    conversation.cut()


async def cuts(conversation: Conversation) -> None:
    """Break the connection off instead of answering."""
    conversation.cut()

"""An HTTP proxy on loopback, and a TLS server behind it, both of this process.

The proxy leads every name to that server, and keeps each byte that it sees.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from podidentity_sandbox.world.authority import Authority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """What came, and where it listens."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    seen: bytearray = field(default_factory=bytearray)


@asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve while the block runs; yield the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def azure(folder: Path, *names: str) -> AsyncIterator[tuple[Server, Path]]:
    """Serve names by TLS, each request with `{}`; yield the server and its authority's file."""
    authority = Authority.new("proxying")
    certificate, key, trusted = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))
    authority.issue(names, certificate, key)
    trusted.write_text(authority.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    found = Server()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            found.heads.append(head)
            for line in head.lower().split("\r\n"):
                if line.startswith("content-length:"):
                    found.seen += await reader.readexactly(int(line.split(":")[1]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with listening(answer, context) as found.port:
        yield found, trusted


@asynccontextmanager
async def proxy(
    to: Server,
    answer: str = "200 Connection established",
    first: Sequence[Handler] = (),
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    """Be a proxy that answers each CONNECT so; "" for never. The first ones have these turns.

    With `tls` it is spoken to by TLS itself.
    """
    turns = list(first)
    found = Server()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65536):
            found.seen += part
            writer.write(part)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if turns:
            await turns.pop(0)(reader, writer)
            return
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        found.heads.append(head)
        if not answer:
            await asyncio.Event().wait()
        writer.write(f"HTTP/1.1 {answer}\r\n\r\n".encode("latin-1"))
        if answer.startswith("200"):
            far, back = await asyncio.open_connection("127.0.0.1", to.port)
            try:
                await asyncio.gather(copy(reader, back), copy(far, writer))
            finally:
                back.close()

    async with listening(serve, tls) as found.port:
        yield found

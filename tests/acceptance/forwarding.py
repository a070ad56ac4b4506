"""An HTTP proxy for a pod: `python -c … PORT USER:PASSWORD`. Each request is a line of its log."""

from __future__ import annotations

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from base64 import b64encode
from functools import partial


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    while part := await reader.read(65536):
        writer.write(part)
    writer.close()


async def _serve(login: str, reader: StreamReader, writer: StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:  # the kubelet looks whether anybody listens
        writer.close()
        return
    request = head.split("\r\n")[0]
    sys.stdout.write(f"{request}\n")
    sys.stdout.flush()
    if f"Basic {b64encode(login.encode()).decode()}\r\n" not in head:
        writer.write(b"HTTP/1.1 407 Who are you\r\n\r\n")
        writer.close()
        return
    host, _, port = request.split()[1].partition(":")
    far, back = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(_copy(reader, back), _copy(far, writer))


async def _run(port: str, login: str) -> None:
    server = await asyncio.start_server(partial(_serve, login), "", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))

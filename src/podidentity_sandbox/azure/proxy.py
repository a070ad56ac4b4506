"""An HTTP CONNECT proxy on the host's loopback, for tools outside the sandbox's world.

Azure's address is in another network namespace, so nothing is forwarded: once the client has its
`200`, its connection is handed to the TLS server of this process. Names that the sandbox's Azure
does not have are refused, so that a mistyped test can never reach the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

log = logging.getLogger(__name__)

HEAD_LIMIT = 8192
"""Bytes of a CONNECT request."""
PATIENCE = 10.0
"""Seconds for a client to send it."""


class ProxyRefused(Exception):
    """The request cannot be served: status line and reason."""


async def serve(
    listener: socket.socket,
    *,
    known: Callable[[str], bool],
    protocol: Callable[[], asyncio.Protocol],
    context: ssl.SSLContext,
) -> None:
    """Serve until cancelled; `known` says which host names lead to `protocol` behind TLS."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)

    async def connected(client: socket.socket) -> None:
        with contextlib.ExitStack() as unserved:
            unserved.callback(client.close)
            try:
                if await _admitted(client, known):
                    unserved.pop_all()
                    await loop.connect_accepted_socket(protocol, client, ssl=context)
            except (OSError, TimeoutError) as error:
                # ssl.SSLError is an OSError: a client that does not trust the sandbox's authority.
                log.info("proxy connection ended: %s", error)

    with listener:
        async with asyncio.TaskGroup() as connections:
            while True:
                client, _ = await loop.sock_accept(listener)
                connections.create_task(connected(client))


async def _admitted(client: socket.socket, known: Callable[[str], bool]) -> bool:
    loop = asyncio.get_running_loop()
    try:
        _check(await asyncio.wait_for(_head(client), PATIENCE), known)
    except ProxyRefused as refusal:
        status, reason = refusal.args
        log.info("proxy refused: %s", reason)
        body = f"{reason}\n".encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        await loop.sock_sendall(client, head.encode() + body)
        return False
    await loop.sock_sendall(client, b"HTTP/1.1 200 Connection established\r\n\r\n")
    return True


async def _head(client: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = await loop.sock_recv(client, HEAD_LIMIT)
        if not chunk or len(head) + len(chunk) > HEAD_LIMIT:
            raise ProxyRefused("400 Bad Request", "this is no CONNECT request")
        head += chunk
    return head


def _check(head: bytes, known: Callable[[str], bool]) -> None:
    """Raise ProxyRefused unless it is a CONNECT request for a known name."""
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3 or words[0] != "CONNECT" or not head.endswith(b"\r\n\r\n"):
        reason = "this proxy serves CONNECT only: it is for HTTPS_PROXY, not for HTTP_PROXY"
        raise ProxyRefused("405 Method Not Allowed", reason)
    host, _, port = words[1].rpartition(":")
    if port != "443":
        raise ProxyRefused("403 Forbidden", f"Azure is served on port 443, not on {port or 'none'}")
    if not known(host):
        reason = f"{host} is no name of the sandbox's Azure, or does not exist yet"
        raise ProxyRefused("403 Forbidden", reason)

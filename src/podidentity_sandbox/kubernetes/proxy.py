"""The API server's address for pods and commands; and who the bearer of a person's token is.

Bytes go on to kube-apiserver as they come: TLS and client certificates are between the two ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress

from aiohttp import web

from podidentity_sandbox.cluster.authentication import person_of
from podidentity_sandbox.kubernetes.programs import WEBHOOK_PORT
from podidentity_sandbox.plan import KUBERNETES_ADDRESS, Plan

_CHUNK = 1 << 16


def main(plan: Plan, listen: Sequence[int], ready_fd: int) -> None:
    """Serve on listening sockets, given as descriptors, until SIGTERM."""
    sockets = [socket.socket(fileno=each) for each in listen]
    with suppress(asyncio.CancelledError):
        asyncio.run(_serve(plan, sockets, ready_fd))


async def _serve(plan: Plan, sockets: Sequence[socket.socket], ready_fd: int) -> None:
    this = asyncio.current_task()
    assert this is not None  # noqa: S101 - a coroutine runs in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    app = web.Application()
    app.router.add_post("/", lambda request: _review(plan, request))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", WEBHOOK_PORT).start()
    for each in sockets:
        await asyncio.start_server(_relay, sock=each)
    os.write(ready_fd, b"ready\n")
    os.close(ready_fd)
    await asyncio.Event().wait()


async def _review(plan: Plan, request: web.Request) -> web.Response:
    """Answer a TokenReview of kube-apiserver: only a person's token is known here.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication
    """
    review = await request.json()
    user = person_of(plan, review["spec"].get("token", ""))
    status: dict[str, object] = {"authenticated": user is not None}
    if user is not None:
        status["user"] = {"username": user.name, "uid": user.name}
    return web.json_response({**review, "status": status})


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        there, back = await asyncio.open_connection(KUBERNETES_ADDRESS, 443)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_carry(reader, back), _carry(there, writer))


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Carry bytes until either end closes."""
    with suppress(OSError):
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
    sink.close()

"""Scenario: a program of another user listens at NMI's port in the node's network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

from podidentity.kernel.interception import Interception
from podidentity.kernel.rules import Redirect
from podidentity.net.main import Guard
from tests.kernel.agent import WallClock
from tests.kernel.topology import Imds, ask, serve, until

USER = 1234
_PROGRAM = """
import socket
listening = socket.create_server(("0.0.0.0", 2579))
print("ready", flush=True)
while True:
    client, _ = listening.accept()
    with client:
        client.recv(4096)
        client.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n{"who": "impostor"}')
"""


async def impostor() -> dict[str, Any]:
    """Return who answers p1: by the rules alone, then where `net` guards them."""
    found: dict[str, Any] = {}
    imds, redirect, clock = Imds(), Redirect(), WallClock()

    async def look(when: str) -> None:
        found[when] = (await ask("p1", "/"))["who"]

    async with imds.serving():
        before = Interception(redirect, clock)
        before.install()
        guard = Guard(Interception(redirect, clock), clock, users=frozenset({0}))
        async with _listening():
            await look("rules that an agent has left")
            before.close()
            guard.start()
            await look("an agent that comes")
            running = asyncio.create_task(guard.run())
            await guard.begin()
            await look("the agent repairs")
        server = await serve(socket.create_server(redirect.listener), lambda *_: {"who": "nmi"})
        await until(lambda: not guard.waiting)
        await look("the agent serves")
        server.close()
        async with _listening():
            await until(lambda: f"user {USER}" in "".join(guard.interception_problems()))
            await look("it took the agent's place")
        running.cancel()
        await asyncio.wait({running})
        found["reached IMDS"] = imds.seen
    return found


@contextlib.asynccontextmanager
async def _listening() -> AsyncIterator[None]:
    """Have a process of that user listen on all addresses of the node."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", f"--reuid={USER}", "--clear-groups"),
        *(sys.executable, "-c", _PROGRAM),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        process.kill()
        await process.wait()

"""Starts the sandbox's Azure on sockets that its starter opened.

They are inherited because each belongs to the network namespace in which it was made: the TLS, IMDS
and DNS sockets to Azure's own, the proxy's to the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from aiohttp import web

from podidentity_sandbox.azure import proxy
from podidentity_sandbox.azure.aks.provider import AksProvider
from podidentity_sandbox.azure.control import SOCKET, ControlApi
from podidentity_sandbox.azure.dns import Resolver
from podidentity_sandbox.azure.entra.issuers import PublishedKeys
from podidentity_sandbox.azure.entra.service import Entra
from podidentity_sandbox.azure.imds import Imds
from podidentity_sandbox.azure.journal import FILE, Journal
from podidentity_sandbox.azure.seed import seed
from podidentity_sandbox.azure.server import Front, place_of, server
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuers
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.weather import WeatherInForce

SHUTDOWN = 0.5
"""Seconds that requests under way have when it is told to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """The sockets by which Azure is reached; those of TCP listen already."""

    https: socket.socket
    imds: socket.socket
    dns: socket.socket
    proxy: socket.socket


@contextlib.asynccontextmanager
async def azure(
    plan: Plan,
    listeners: Listeners,
    *,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[World]:
    """Serve the Azure of `plan` while the context is open; `clock` is seconds since 1970."""
    # AKS reaches its cluster there, and Entra the keys of its issuer.
    apiserver = plan.apiserver_url
    world = World(plan, clock, WeatherInForce(plan.path))
    journal = Journal(plan.path / FILE, world)
    issuers = Issuers(world.tenants, journal.restore())
    if not world.principals:
        seed(world)
    journal.open(issuers.rings)
    imds = Imds(world, issuers.home)
    published = PublishedKeys(
        apiserver,
        lambda: ssl.create_default_context(cafile=str(plan.ca_certificate)),
        clock,
    )
    entra = Entra(world, issuers, published)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(plan.path / "azure.crt", plan.path / "azure.key")

    def is_azure(name: str) -> bool:
        return place_of(world, name) is not None

    async with contextlib.AsyncExitStack() as stack:
        stack.callback(journal.close)
        front = server(Front(world, issuers, entra, journal).handle, name="azure")
        await _serve(stack, front, listeners.https, context)
        await _serve(stack, server(imds.handle, name="imds"), listeners.imds)
        control = ControlApi(world, imds, entra, issuers, journal)
        await _serve(stack, server(control.handle, name="control"), _unix_listener(plan.path))
        resolver, loop = Resolver(is_azure), asyncio.get_running_loop()
        names, _ = await loop.create_datagram_endpoint(lambda: resolver, sock=listeners.dns)
        stack.callback(names.close)
        tunnels = proxy.serve(listeners.proxy, known=is_azure, protocol=front, context=context)
        _run(stack, tunnels)
        _run(stack, AksProvider(world, apiserver, journal).run())
        yield world


async def _serve(
    stack: contextlib.AsyncExitStack,
    front: web.Server,
    listener: socket.socket,
    context: ssl.SSLContext | None = None,
) -> None:
    runner = web.ServerRunner(front, shutdown_timeout=SHUTDOWN)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener, ssl_context=context).start()


def _unix_listener(folder: Path) -> socket.socket:
    path = folder / SOCKET
    path.unlink(missing_ok=True)  # of an Azure that has ended
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def _run(stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(stop)


async def _until_told_to_end(plan: Plan, listeners: Listeners, ready_fd: int) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with azure(plan, listeners):
        with os.fdopen(ready_fd, "w") as ready:
            ready.write("ready\n")
        await ended.wait()


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="With plan.json.")
@click.option("--https-fd", type=int, required=True, help="Entra, ARM, Key Vault; TCP.")
@click.option("--imds-fd", type=int, required=True, help="IMDS; TCP.")
@click.option("--dns-fd", type=int, required=True, help="DNS; UDP.")
@click.option("--proxy-fd", type=int, required=True, help="CONNECT proxy; TCP, on the host.")
@click.option("--ready-fd", type=int, required=True, help="Gets `ready` when all are served.")
def main(
    *, folder: Path, https_fd: int, imds_fd: int, dns_fd: int, proxy_fd: int, ready_fd: int
) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    fds = {"https": https_fd, "imds": imds_fd, "dns": dns_fd, "proxy": proxy_fd}
    listeners = Listeners(**{name: socket.socket(fileno=fd) for name, fd in fds.items()})
    asyncio.run(_until_told_to_end(Plan.load(folder), listeners, ready_fd))

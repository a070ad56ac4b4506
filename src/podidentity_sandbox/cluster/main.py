"""Puts the API server together and runs it: certificates and sockets in, `ready` out."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from aiohttp import web

from podidentity_sandbox.cluster.app import HttpApi
from podidentity_sandbox.cluster.cluster import Cluster, clock
from podidentity_sandbox.cluster.storage import Journal
from podidentity_sandbox.cluster.tokens import load_key
from podidentity_sandbox.plan import Plan

STOP_SECONDS = 1.0
"""How long open requests may take once the server is to stop; watches end at once."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line: folder, listen (file descriptors of listening sockets), ready."""
    parser = argparse.ArgumentParser(prog="podidentity_sandbox.cluster", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the sandbox's folder")
    parser.add_argument(
        "--listen-fd",
        type=int,
        action="append",
        required=True,
        dest="listen",
        help="a listening socket, on which the server speaks TLS; may come again",
    )
    parser.add_argument(
        "--ready-fd", type=int, dest="ready", help="gets `ready` once the server serves"
    )
    return parser.parse_args(arguments)


def make_cluster(
    folder: Path, journal: Journal | None = None, now: Callable[[], datetime] = clock
) -> Cluster:
    """Return the cluster of the sandbox in `folder`."""
    plan = Plan.load(folder)
    authority = plan.ca_certificate.read_text()
    key = load_key(folder / "sa.key")
    return Cluster(plan, key, authority=authority, journal=journal, now=now)


async def serve(cluster: Cluster, folder: Path, sockets: Sequence[socket.socket]) -> web.AppRunner:
    """Serve the cluster on listening sockets; the caller cleans the returned runner up."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "apiserver.crt", folder / "apiserver.key")
    # A caller who follows a log and goes away is noticed by nothing else.
    runner = web.AppRunner(
        HttpApi(cluster).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=STOP_SECONDS,
    )
    await runner.setup()
    for listener in sockets:
        await web.SockSite(runner, listener, ssl_context=tls).start()
    return runner


async def run(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    journal = Journal(options.folder / "cluster.journal")
    cluster = make_cluster(options.folder, journal)
    sockets = [socket.socket(fileno=number) for number in options.listen]
    runner = await serve(cluster, options.folder, sockets)
    controllers = asyncio.create_task(cluster.loop.run())
    controllers.add_done_callback(lambda _: stop.set())
    try:
        if options.ready is not None:
            with os.fdopen(options.ready, "w") as ready:
                ready.write("ready\n")
        await stop.wait()
    finally:
        controllers.cancel()
        await runner.cleanup()
        with contextlib.suppress(asyncio.CancelledError):
            await controllers
        journal.close()


def main() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    asyncio.run(run(parse()))

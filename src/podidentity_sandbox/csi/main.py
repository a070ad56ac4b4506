"""The driver, assembled: `python -m podidentity_sandbox.csi --rotation-poll-interval=2m`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import signal
import sys
from pathlib import Path

import aiohttp

from podidentity_sandbox.csi.cluster import OfAccount
from podidentity_sandbox.csi.driver import Driver
from podidentity_sandbox.csi.nmi import Nmi
from podidentity_sandbox.csi.provider import SecretsProvider, VaultClient
from podidentity_sandbox.csi.server import Server, healthy

NAME = "secrets-store.csi.k8s.io"
SOCKET = Path(f"/run/kubelet/plugins/{NAME}/csi.sock")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Return the seconds of `90s`, `2m`, `500ms`, as Go writes durations of one unit."""
    found = re.fullmatch(r"([0-9]+)(ms|s|m|h)", text)
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f'time: invalid duration "{text}"')
    return int(found[1]) * _UNITS[found[2]]


async def run(interval: float, health_port: int) -> None:
    """Serve until told to end."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    timeout = aiohttp.ClientTimeout(total=30)
    async with OfAccount() as cluster, aiohttp.ClientSession(timeout=timeout) as session:
        driver = Driver(cluster, SecretsProvider(Nmi(), VaultClient(session)))
        serving = await Server(driver).open(SOCKET)
        health = await asyncio.start_server(healthy, "0.0.0.0", health_port)  # noqa: S104 - the kubelet asks at the node's address
        logging.getLogger(__name__).info("serving %s, rotating each %g s", NAME, interval)
        try:
            while True:
                await asyncio.sleep(interval)
                await driver.rotate()
        finally:
            serving.close()
            health.close()


def main() -> None:
    """Run the driver of a node."""
    parser = argparse.ArgumentParser(prog="podidentity_sandbox.csi", description=__doc__)
    parser.add_argument("--rotation-poll-interval", type=duration, default="2m")
    parser.add_argument("--healthz-port", type=int, default=8989)
    given = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        asyncio.run(run(given.rotation_poll_interval, given.healthz_port))
    except (KeyboardInterrupt, asyncio.CancelledError):
        logging.getLogger(__name__).info("told to end")
    finally:
        # Then the kubelet knows that no driver is registered.
        SOCKET.unlink(missing_ok=True)

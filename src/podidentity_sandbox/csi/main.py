"""The driver, assembled: `python -m podidentity_sandbox.csi --rotation-poll-interval=2m`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from podidentity_sandbox.csi import provider
from podidentity_sandbox.csi.driver import Cluster, Driver
from podidentity_sandbox.csi.parameters import MountFailed

# ---- The socket that the kubelet calls, and the port that it probes.
#
# One line of JSON each way stands in for gRPC; `podidentity_sandbox.node.csi` has the protocol.

_log = logging.getLogger(__name__)
_LONGEST = 1 << 20
_HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Server:
    """Serves one driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the call of one connection."""
        try:
            raw = await reader.readline()
            writer.write(json.dumps(await self.answer(raw)).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError) as error:
            _log.info("a call was broken off: %s", error)
        finally:
            writer.close()

    async def answer(self, raw: bytes) -> Mapping[str, Any]:
        """Carry out the request of a line; return `{}`, or an error."""
        try:
            await self._do(raw)
        except MountFailed as error:
            _log.warning("%s", error)
            return {"error": {"code": error.code, "message": str(error)}}
        except OSError as error:
            _log.exception("a volume could not be written")
            return {"error": {"code": "Internal", "message": str(error)}}
        return {}

    async def _do(self, raw: bytes) -> None:
        try:
            request = json.loads(raw)
            operation = request["op"]
        except (ValueError, KeyError, TypeError) as error:
            raise MountFailed(f"not a call: {error}", "InvalidArgument") from error
        if operation == "publish":
            await self._driver.publish(request)
        elif operation == "unpublish":
            await self._driver.unpublish(request)
        else:
            raise MountFailed(f"unknown method {operation}", "Unimplemented")


async def healthy(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a probe."""
    writer.write(_HEALTHY)
    writer.close()


# ---- The program

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
    async with Cluster() as cluster, aiohttp.ClientSession(timeout=timeout) as session:
        secrets = provider.SecretsProvider(provider.token, partial(provider.secret, session))
        driver = Driver(cluster, secrets)
        # A socket that a crash has left gives way: asyncio removes it.
        serving = await asyncio.start_unix_server(Server(driver).serve, SOCKET, limit=_LONGEST)
        health = await asyncio.start_server(healthy, "0.0.0.0", health_port)  # noqa: S104 - the kubelet asks at the node's address
        _log.info("serving %s, rotating each %g s", NAME, interval)
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
    SOCKET.parent.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(run(given.rotation_poll_interval, given.healthz_port))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _log.info("told to end")
    finally:
        # Then the kubelet knows that no driver is registered.
        SOCKET.unlink(missing_ok=True)

"""The driver, assembled: `python -m podidentity_sandbox.csi --rotation-poll-interval=120`."""

from __future__ import annotations

import argparse
import asyncio
import atexit
import gc
import json
import logging
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


async def serve(driver: Driver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the call of one connection."""
    try:
        writer.write(json.dumps(await answer(driver, await reader.readline())).encode() + b"\n")
        await writer.drain()
    except (ConnectionError, ValueError) as error:
        _log.info("a call was broken off: %s", error)
    finally:
        writer.close()


async def answer(driver: Driver, raw: bytes) -> Mapping[str, Any]:
    """Carry out the request of a line; return `{}`, or an error."""
    request = json.loads(raw)
    try:
        await (driver.publish if request["op"] == "publish" else driver.unpublish)(request)
    except MountFailed as error:
        _log.warning("%s", error)
        return {"error": {"code": error.code, "message": str(error)}}
    except OSError as error:
        _log.exception("a volume could not be written")
        return {"error": {"code": "Internal", "message": str(error)}}
    return {}


async def healthy(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_HEALTHY)
    writer.close()


# ---- The program

NAME = "secrets-store.csi.k8s.io"
SOCKET = Path(f"/run/kubelet/plugins/{NAME}/csi.sock")
_HEALTH_PORT = 8989


async def run(interval: float) -> None:
    """Serve for ever, and read the volumes again each `interval` seconds."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with Cluster() as cluster, aiohttp.ClientSession(timeout=timeout) as session:
        secret = partial(provider.secret, session)
        driver = Driver(cluster, partial(provider.secrets, token=provider.token, secret=secret))
        # A socket that an earlier driver has left gives way: asyncio removes it.
        await asyncio.start_unix_server(partial(serve, driver), SOCKET, limit=_LONGEST)
        await asyncio.start_server(healthy, "0.0.0.0", _HEALTH_PORT)  # noqa: S104 - the kubelet asks at the node's address
        _log.info("serving %s, rotating each %g s", NAME, interval)
        while True:
            await asyncio.sleep(interval)
            await driver.rotate()


def main() -> None:
    """Run the driver of a node until it is told to end."""
    parser = argparse.ArgumentParser(prog="podidentity_sandbox.csi", description=__doc__)
    parser.add_argument("--rotation-poll-interval", type=float, required=True, metavar="SECONDS")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Process 1 of a pod ends by no signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    SOCKET.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(given.rotation_poll_interval))


if __name__ == "__main__":
    atexit.register(gc.freeze)  # at the end all goes anyhow: no garbage is looked for
    main()

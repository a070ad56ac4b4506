"""The socket that the kubelet calls, and the port that it probes.

One line of JSON each way stands in for gRPC; `podidentity_sandbox.node.csi` has the protocol.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podidentity_sandbox.csi.driver import Driver
from podidentity_sandbox.csi.parameters import MountFailed

_log = logging.getLogger(__name__)
_LONGEST = 1 << 20
_HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Server:
    """Serves one driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def open(self, path: Path) -> asyncio.Server:
        """Listen on a Unix socket, in the place of one that a crash has left."""
        _make_way(path)
        return await asyncio.start_unix_server(self._serve, str(path), limit=_LONGEST)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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


def _make_way(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)


async def healthy(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a probe."""
    writer.write(_HEALTHY)
    writer.close()

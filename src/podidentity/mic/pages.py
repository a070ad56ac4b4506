"""MIC's own pages: probes for the kubelet, metrics for Prometheus.

`/healthz` is the archived project's: always 200, `Active` while this replica leads, `Not Active`
while another one does. `/readyz` is true as soon as this replica could lead, and says what is
missing or waited for.

Every pod of the cluster reaches these ports. A request is a line and some headers; a connection is
answered once and closed, and no page names a tenant. Where all places are taken, the address
with most connections loses its oldest: a pod must not keep the kubelet's probe away, which restarts
MIC.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus

import msgspec

from podidentity.telemetry.metrics import CONTENT_TYPE, Registry, render

LONGEST_REQUEST = 8192
SECONDS = 5.0
"""A client that takes longer for its request, or for the answer, is left."""
AT_ONCE = 32
"""Connections."""


Page = tuple[HTTPStatus, str, bytes]
"""Status, content type and body."""
Pages = Mapping[str, Callable[[], Page]]
"""By path."""
_PLAIN = "text/plain; charset=utf-8"
_NOT_FOUND = (HTTPStatus.NOT_FOUND, _PLAIN, b"404 page not found\n")
_BAD = (HTTPStatus.BAD_REQUEST, _PLAIN, b"400 bad request\n")
_ALLOWED = {b"GET", b"HEAD"}


def probes(
    *,
    leading: Callable[[], bool],
    checks: Mapping[str, Callable[[], Sequence[str]]],
    said: Callable[[], Mapping[str, object]],
) -> Pages:
    """Return the pages of the probe port.

    A check returns what is wrong; `said` is what `/readyz` says beside that.
    """

    def healthz() -> Page:
        return HTTPStatus.OK, _PLAIN, b"Active" if leading() else b"Not Active"

    def readyz() -> Page:
        problems = {name: list(check()) for name, check in checks.items()}
        ready = not any(problems.values())
        body = msgspec.json.encode(
            {
                "ready": ready,
                "checks": {name: found or "ok" for name, found in problems.items()},
                **said(),
            }
        )
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "application/json", body

    return {"/healthz": healthz, "/readyz": readyz}


def scrapes(registry: Registry) -> Pages:
    return {
        "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE, render(registry, public=True).encode())
    }


class PageServer:
    """Serves pages on one port of all addresses."""

    def __init__(self, pages: Pages, *, seconds: float = SECONDS) -> None:
        self._pages = pages
        self._seconds = seconds
        self._open: dict[asyncio.StreamWriter, str] = {}
        """The address of each connection, the oldest first."""

    async def serve(self, port: int, host: str = "0.0.0.0") -> asyncio.Server:  # noqa: S104 - the kubelet asks at the pod's address
        """Listen; raise OSError. Close the server that is returned."""
        return await asyncio.start_server(self._accept, host, port, limit=LONGEST_REQUEST)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._take(writer)
        try:
            async with asyncio.timeout(self._seconds):
                await self._answer(reader, writer)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # It has gone, is too slow, or sends no HTTP.
        finally:
            self._open.pop(writer, None)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _take(self, writer: asyncio.StreamWriter) -> None:
        """Give a connection a place, if need be another's."""
        self._open[writer] = str((writer.get_extra_info("peername") or [""])[0])
        if len(self._open) <= AT_ONCE:
            return
        [(most, _)] = Counter(self._open.values()).most_common(1)
        oldest = next(each for each, address in self._open.items() if address == most)
        del self._open[oldest]
        oldest.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            head = b""
        words = head.partition(b"\r\n")[0].split(b" ")
        page = self._page(words)
        status, content_type, body = page
        shown = b"" if words[0] == b"HEAD" else body
        writer.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + shown
        )
        await writer.drain()

    def _page(self, words: Sequence[bytes]) -> Page:
        if len(words) != 3 or words[0] not in _ALLOWED or not words[2].startswith(b"HTTP/1."):
            return _BAD
        path = words[1].partition(b"?")[0].decode("latin-1")
        make = self._pages.get(path)
        return make() if make else _NOT_FOUND

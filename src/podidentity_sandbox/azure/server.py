"""The HTTP servers of Azure: bytes to a Request, a Reply to bytes, and the one TLS address."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from podidentity_sandbox.azure.arm.service import Arm
from podidentity_sandbox.azure.blob.service import BlobService
from podidentity_sandbox.azure.entra.service import Entra
from podidentity_sandbox.azure.faults import Reset
from podidentity_sandbox.azure.graph import Graph
from podidentity_sandbox.azure.journal import Journal, NotSaved
from podidentity_sandbox.azure.keyvault import KeyVault
from podidentity_sandbox.azure.messages import BODY_LIMIT, Reply, Request
from podidentity_sandbox.azure.names import Place, place_of
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuers
from podidentity_sandbox.weather import cut

# ---- aiohttp

log = logging.getLogger(__name__)

Service = Callable[[Request], Awaitable[Reply]]


def server(service: Service, *, name: str) -> web.Server:
    """Return an HTTP server that answers with `service`; `name` is for the log."""

    async def handle(raw: web.BaseRequest) -> web.StreamResponse:
        started = time.monotonic()
        request = await _read(raw)
        try:
            reply = await service(request)
        except Reset:
            cut(raw.transport)
            return web.Response(status=500)  # nobody is there to read it
        spent = (time.monotonic() - started) * 1000
        path = request.target.partition("?")[0]
        words = (name, request.source, request.method, request.host, path, reply.status, spent)
        log.info("%s %s %s %s%s %d %.1fms", *words)
        return _response(reply)

    return web.Server(handle, handler_cancellation=True, access_log=None)


async def _read(raw: web.BaseRequest) -> Request:
    body = await _body(raw)
    return Request(
        method=raw.method,
        target=raw.raw_path,
        host=raw.headers.get("Host", "").rpartition(":")[0].lower()
        or raw.headers.get("Host", "").lower(),
        headers={name.lower(): value for name, value in raw.headers.items()},
        body=body or b"",
        too_large=body is None,
        source=raw.remote or "",
    )


async def _body(raw: web.BaseRequest) -> bytes | None:
    """Return the body; None if it is larger than BODY_LIMIT."""
    body = bytearray()
    async for chunk in raw.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


def _response(reply: Reply) -> web.Response:
    headers = {"Server": "Microsoft-IIS/10.0", **reply.headers}
    if reply.body:
        headers["Content-Type"] = reply.content_type
    return web.Response(status=reply.status, body=reply.body, headers=headers)


# ---- The TLS address: the Host header says which service a request is for


class Front:
    """Hands each request to its service."""

    def __init__(self, world: World, issuers: Issuers, entra: Entra, journal: Journal) -> None:
        self._world = world
        self._journal = journal
        self._entra = entra
        issuer = issuers.home
        self._services: Mapping[Place, Callable[[Request], Reply]] = {
            Place.ARM: Arm(world, issuer).handle,
            Place.GRAPH: Graph(world, issuers).handle,
            Place.VAULT: KeyVault(world, issuer).handle,
            Place.BLOB: BlobService(world, issuer).handle,
        }

    async def handle(self, request: Request) -> Reply:
        """Answer one request to a name of Azure."""
        place = place_of(self._world, request.host)
        if place is None:
            error = {"code": "NoSuchHost", "message": f"The sandbox serves no '{request.host}'."}
            return Reply.json({"error": error}, status=404)
        if request.too_large and place is not Place.BLOB:
            words = "The request content was too large."
            return Reply.json({"error": {"code": "RequestTooLarge", "message": words}}, status=413)
        if place is Place.ENTRA:
            return await self._entra.handle(request)
        await asyncio.sleep(self._world.weather.seconds("answers", place.value))
        reply = self._services[place](request)
        try:
            if request.method not in ("GET", "HEAD"):
                self._journal.save()
            if reply.after:
                await asyncio.sleep(reply.after)
        except NotSaved as error:
            log.warning("%s", error)
            unkept = {"code": "InternalServerError", "message": str(error)}
            return Reply.json({"error": unkept}, status=500)
        finally:
            reply.ends()
        return reply

"""The HTTP servers of Azure: bytes to a Request, a Reply to bytes, and the one TLS address."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto

from aiohttp import web

from podidentity_sandbox.azure import graph, keyvault
from podidentity_sandbox.azure.arm.service import Arm
from podidentity_sandbox.azure.blob import service as blob
from podidentity_sandbox.azure.entra.service import Entra
from podidentity_sandbox.azure.faults import Reset
from podidentity_sandbox.azure.journal import Journal, NotSaved
from podidentity_sandbox.azure.messages import BODY_LIMIT, Reply, Request
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tenants import MANAGEMENT, cloud_of
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


# ---- The TLS address: a host name says which service a request is for; DNS and proxy ask as well


class Place(Enum):
    """The service behind a name."""

    ENTRA = auto()
    ARM = auto()
    GRAPH = auto()
    VAULT = auto()
    BLOB = auto()


def place_of(world: World, host: str) -> Place | None:
    """Return what serves the host name; None where Azure has no such name.

    As in Azure, the name of a vault or a storage account exists while it does.
    """
    name = host.lower().removesuffix(".")
    if cloud_of(name):
        return Place.ENTRA
    if name in MANAGEMENT:
        return Place.ARM
    if name in graph.HOSTS:
        return Place.GRAPH
    if name.endswith(keyvault.SUFFIX) and world.vault(name.removesuffix(keyvault.SUFFIX)):
        return Place.VAULT
    if name.endswith(blob.SUFFIX) and world.account(name.removesuffix(blob.SUFFIX)):
        return Place.BLOB
    return None


class Front:
    """Hands each request to its service."""

    def __init__(self, world: World, issuers: Issuers, entra: Entra, journal: Journal) -> None:
        self._world = world
        self._journal = journal
        self._entra = entra
        issuer = issuers.home
        self._services: Mapping[Place, Callable[[Request], Reply]] = {
            Place.ARM: Arm(world, issuer).handle,
            Place.GRAPH: graph.Graph(world, issuers).handle,
            Place.VAULT: keyvault.KeyVault(world, issuer).handle,
            Place.BLOB: blob.BlobService(world, issuer).handle,
        }

    async def handle(self, request: Request) -> Reply:
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

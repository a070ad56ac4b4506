"""Azure's one TLS address: the Host header says which service a request is for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from podidentity_sandbox.azure.arm.service import Arm
from podidentity_sandbox.azure.blob.service import BlobService
from podidentity_sandbox.azure.entra.service import Entra
from podidentity_sandbox.azure.graph.service import Graph
from podidentity_sandbox.azure.keyvault import KeyVault
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.names import Place, place_of
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuers


class Front:
    """Hands each request to its service."""

    def __init__(self, world: World, issuers: Issuers, entra: Entra) -> None:
        self._world = world
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
        if place is Place.ENTRA:
            return await self._entra.handle(request)
        reply = self._services[place](request)
        try:
            if reply.after:
                await asyncio.sleep(reply.after)
        finally:
            reply.ends()
        return reply

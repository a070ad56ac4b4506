"""Azure's one TLS address: the Host header says which service a request is for."""

from __future__ import annotations

from podidentity_sandbox.azure.arm.service import Arm
from podidentity_sandbox.azure.blob.service import BlobService
from podidentity_sandbox.azure.entra import Entra
from podidentity_sandbox.azure.graph import Graph
from podidentity_sandbox.azure.keyvault import KeyVault
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.names import Place, place_of
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuer


class Front:
    """Hands each request to its service."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._services = {
            Place.ENTRA: Entra(world, issuer).handle,
            Place.ARM: Arm(world, issuer).handle,
            Place.GRAPH: Graph(world, issuer).handle,
            Place.VAULT: KeyVault(world, issuer).handle,
            Place.BLOB: BlobService(world, issuer).handle,
        }

    async def handle(self, request: Request) -> Reply:
        """Answer one request to a name of Azure."""
        place = place_of(self._world, request.host)
        if place is None:
            error = {"code": "NoSuchHost", "message": f"The sandbox serves no '{request.host}'."}
            return Reply.json({"error": error}, status=404)
        return self._services[place](request)

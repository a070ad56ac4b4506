"""Azure's names that exist in the sandbox: one answer for its DNS, its proxy and its front."""

from __future__ import annotations

from enum import Enum, auto

from podidentity_sandbox.azure import graph, keyvault
from podidentity_sandbox.azure.blob import service as blob
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tenants import MANAGEMENT, cloud_of


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

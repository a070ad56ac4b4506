"""Which of Azure's names exist in the sandbox: one answer for its DNS, its proxy and its front."""

from __future__ import annotations

from enum import Enum, auto

from podidentity_sandbox.azure import keyvault
from podidentity_sandbox.azure.state import World

SIGN_IN = ("login.microsoftonline.com", "sts.windows.net")
MANAGEMENT = ("management.azure.com", "management.core.windows.net")


class Place(Enum):
    """The service behind a name."""

    ENTRA = auto()
    ARM = auto()
    VAULT = auto()


def place_of(world: World, host: str) -> Place | None:
    """Return what serves the host name; None where Azure has no such name.

    As in Azure, a vault's name exists while the vault does.
    """
    name = host.lower().removesuffix(".")
    if name in SIGN_IN:
        return Place.ENTRA
    if name in MANAGEMENT:
        return Place.ARM
    if name.endswith(keyvault.SUFFIX) and world.vault(name.removesuffix(keyvault.SUFFIX)):
        return Place.VAULT
    return None

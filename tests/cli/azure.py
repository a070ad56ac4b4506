"""The sandbox's Azure for the tests of the commands: their identities, and what machines have."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from podidentity_sandbox import weather
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.weather import CALM, Weather, changed
from tests.cli.world import World

T = TypeVar("T")


def operator(world: World, work: Callable[[AzureOperator], Awaitable[T]]) -> T:
    """Do something as the owner of the subscription."""

    async def connected() -> T:
        async with AzureOperator(world.plan) as azure:
            return await work(azure)

    return asyncio.run(connected())


@dataclass(frozen=True)
class Identity:
    """A managed identity that exists, and belongs to one test."""

    world: World
    id: str
    client_id: str
    object_id: str

    @property
    def name(self) -> str:
        return self.id.rpartition("/")[2]

    def attached(self) -> bool:
        """Return whether the machines have it, which are settled by then."""
        return self.id.lower() in attached(self.world)

    def weather(self, *settings: str) -> None:
        """Let Azure fail as the settings say; a change of the machines is done at once."""
        weather.write(self.world.plan.path, changed(CALM, ["scale-sets=0", *settings]))

    def attach(self) -> None:
        """Attach it as somebody else than podidentity does."""
        body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {self.id: {}}}}
        operator(self.world, lambda azure: azure.arm("PATCH", self.world.plan.scale_set_id, body))


def made_identity(world: World) -> Identity:
    """Make an identity whose name nobody has, in the group `shop`."""

    async def make(azure: AzureOperator) -> dict[str, str]:
        await azure.create_group("shop")
        return await azure.create_identity("shop", f"orders-{uuid.uuid4().hex[:6]}")

    made = operator(world, make)
    return Identity(world, made["id"], made["clientId"], made["principalId"])


def attached(world: World) -> set[str]:
    """Return the ids, in lower case, that the machines have, which are settled by then."""

    async def ask(azure: AzureOperator) -> Any:
        return await azure.arm("GET", world.plan.scale_set_id)

    found = operator(world, ask)
    assert found["properties"]["provisioningState"] == "Succeeded"
    return {each.lower() for each in found["identity"]["userAssignedIdentities"]}


@contextmanager
def weather_of(world: World) -> Iterator[Callable[[Weather], None]]:
    """Yield what puts a weather in force; afterwards it is calm again."""
    yield lambda wanted: weather.write(world.plan.path, wanted)
    weather.write(world.plan.path, CALM)

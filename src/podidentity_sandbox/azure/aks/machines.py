"""Giving managed identities to the machines of a cluster, and taking them back.

It acts as the cluster's own identity and by the same rules as anybody's PATCH: so an identity on
which the cluster is no Managed Identity Operator fails with ARM's own words, and does not hinder
the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from podidentity_sandbox.azure.aks.model import ManagedCluster
from podidentity_sandbox.azure.arm import scalesets
from podidentity_sandbox.azure.arm.call import ArmError
from podidentity_sandbox.azure.state import ScaleSet, World
from podidentity_sandbox.azure.verification import Caller

Sleep = Callable[[float], Awaitable[None]]


class Machines:
    """The scale sets of a cluster's node group."""

    def __init__(self, world: World, cluster: ManagedCluster, sleep: Sleep) -> None:
        who = cluster.principal
        self._world = world
        self._caller = Caller(app_id=who.app_id, object_id=who.object_id, issuer="")
        self._sleep = sleep

    async def attach(self, identities: Iterable[str]) -> dict[str, ArmError | None]:
        """Give every machine the identities; return for each id, as given, why it failed."""
        outcome: dict[str, ArmError | None] = dict.fromkeys(identities)
        for scale_set in self._scale_sets():
            settled = await self._settled(scale_set)
            lacking = [one for one in outcome if not _has(settled, one)]
            outcome |= {one: self._refusal(settled, one) for one in lacking}
            granted = [one for one in lacking if outcome[one] is None]
            await self._patch(settled, {one: {} for one in granted})
        return outcome

    async def detach(self, identities: Iterable[str]) -> None:
        """Take identities from every machine."""
        for scale_set in self._scale_sets():
            settled = await self._settled(scale_set)
            await self._patch(settled, {one: None for one in identities if _has(settled, one)})

    def has(self, identity: str) -> bool:
        """Return whether every machine has the identity already."""
        return all(_has(scale_set, identity) for scale_set in self._scale_sets())

    def _scale_sets(self) -> list[ScaleSet]:
        group = f"{self._world.subscription}/resourceGroups/{self._world.plan.node_group}"
        return self._world.all(ScaleSet, group)

    async def _settled(self, scale_set: ScaleSet) -> ScaleSet:
        """Return the scale set once no other change of it is under way."""
        current: ScaleSet | None = scale_set
        while current and (left := current.settled_at - self._world.clock()) > 0:
            await self._sleep(left)
            current = self._world.find(ScaleSet, scale_set.id)
        return current or scale_set

    def _refusal(self, scale_set: ScaleSet, identity: str) -> ArmError | None:
        try:
            scalesets.with_identity(
                self._world, self._caller, scale_set, _patch(scale_set, {identity: {}})
            )
        except ArmError as error:
            return error
        return None

    async def _patch(self, scale_set: ScaleSet, change: dict[str, Any]) -> None:
        if not change:
            return
        changed = scalesets.with_identity(
            self._world, self._caller, scale_set, _patch(scale_set, change)
        )
        scalesets.put(self._world, changed)
        await self._sleep(self._world.arm_delay)


def _has(scale_set: ScaleSet, identity: str) -> bool:
    return identity.lower() in {one.id.lower() for one in scale_set.identity.user}


def _patch(scale_set: ScaleSet, change: dict[str, Any]) -> dict[str, Any]:
    """Return the value of `identity` that makes `change` and keeps all else."""
    system = "SystemAssigned" if scale_set.identity.system else ""
    going = {name.lower() for name, value in change.items() if value is None}
    adding = any(value is not None for value in change.values())
    if not adding and {one.id.lower() for one in scale_set.identity.user} <= going:
        return {"type": system or "None"}
    kind = ", ".join(filter(None, (system, "UserAssigned")))
    return {"type": kind, "userAssignedIdentities": change}

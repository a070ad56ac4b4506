"""The Azure machine of a node, from the node's provider ID, and the identities that are on it.

A user-assigned identity is attached to a virtual machine or, for all its instances at once, to a
scale set. Subscription and resource group come from the provider ID alone, so one cluster may span
several of either.

Shapes: https://cloud-provider-azure.sigs.k8s.io/ (`azure:///subscriptions/…`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Self

from podidentity.core.resources import ResourceId

# They become parts of URLs, and of commands that are printed to be copied; and a tenant may write
# them into an AzureIdentity. A resource group may have letters of any script.
# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
_NAME = r"(?!\.\.?(?:/|$))[\w.()-]{1,128}"
_HOST = (
    rf"(?P<host>/subscriptions/(?P<subscription>{_NAME})/resourcegroups/(?P<group>(?u:{_NAME}))"
    r"/providers/microsoft\.compute/"
    rf"(?P<kind>virtualmachinescalesets|virtualmachines)/(?P<name>{_NAME}))"
)
_RESOURCE_ID = re.compile(_HOST, re.IGNORECASE | re.ASCII)
_PROVIDER_ID = re.compile(
    rf"azure://{_HOST}(?P<instance>/virtualmachines/{_NAME})?", re.IGNORECASE | re.ASCII
)


class NotAnAzureNode(ValueError):
    """The provider ID names no Azure machine."""


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """A scale set or a virtual machine, to which identities are attached; compared without case."""

    folded: str
    resource_id: str
    """Its ARM id as the node spells it."""
    name: str
    is_scale_set: bool
    subscription: str
    """In lower case, as is `group`: both are compared without case."""
    group: str

    @classmethod
    def of_node(cls, provider_id: str) -> Self:
        """Return the host of the node with this provider ID; raise NotAnAzureNode."""
        found = _PROVIDER_ID.fullmatch(provider_id)
        if found is None:
            raise NotAnAzureNode(f"provider ID {provider_id[:200]!r} names no Azure machine")
        host = cls._of(found)
        if bool(found["instance"]) != host.is_scale_set:
            raise NotAnAzureNode(f"provider ID {provider_id[:200]!r} names no one instance")
        return host

    @classmethod
    def parse(cls, resource_id: str) -> Self:
        """Return the host with this ARM id; raise NotAnAzureNode."""
        found = _RESOURCE_ID.fullmatch(resource_id)
        if found is None:
            raise NotAnAzureNode(f"{resource_id[:200]!r} names no machine and no scale set")
        return cls._of(found)

    @classmethod
    def _of(cls, found: re.Match[str]) -> Self:
        is_scale_set = found["kind"].lower() == "virtualmachinescalesets"
        return cls(
            folded=found["host"].lower(),
            resource_id=found["host"],
            name=found["name"],
            is_scale_set=is_scale_set,
            # Thousands of machines share these two.
            subscription=intern(found["subscription"].lower()),
            group=intern(found["group"].lower()),
        )

    def __str__(self) -> str:
        return self.resource_id

    # By hand: those of a dataclass make a tuple each time, and the controller asks all day long.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Host) and self.folded == other.folded

    def __hash__(self) -> int:
        return hash(self.folded)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentities:
    """The identities that are attached to a virtual machine or scale set."""

    state: str = ""
    """provisioningState in lower case: what is listed is what was asked for last, and the machines
    have it only when that is neither `updating` nor `failed`."""
    system: bool = False
    """Whether it has a system-assigned identity, which every change must keep."""
    user: Mapping[str, str] = field(default_factory=dict)
    """User-assigned ones: id in lower case → as Azure spells it here."""
    clients: Mapping[str, str] = field(default_factory=dict)
    """Client ids of those of which Azure says it: id in lower case → client id in lower case."""
    etag: str = ""
    """The version of the host, which a change may name; "" where Azure has none."""

    def has(self, identity: ResourceId) -> bool:
        return identity.folded in self.user

    @property
    def being_deleted(self) -> bool:
        return self.state == "deleting"

    @property
    def settled(self) -> bool:
        return self.state not in {"updating", "failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostChange:
    """One change of a host's identities; those that it does not name stay as they are."""

    attach: tuple[str, ...] = ()
    """Ids to attach, as they are spelled."""
    detach: tuple[str, ...] = ()
    """Ids to detach, as Azure spells them on this host."""
    system: bool = False
    """Whether the host has a system-assigned identity, which stays."""
    user: bool = False
    """Whether any user-assigned identity is left afterwards."""
    clients: tuple[tuple[str, frozenset[str]], ...] = field(default=(), compare=False)
    """Ids to attach that must have one of these client ids: a tenant may write any ARM id."""

    @classmethod
    def of(
        cls,
        current: HostIdentities,
        *,
        attach: Iterable[ResourceId] = (),
        detach: Iterable[str] = (),
    ) -> Self:
        """Return the change of `current`; `detach` are ids in lower case that it lists."""
        coming = {each.folded: each.spelling for each in attach}
        going = set(detach)
        return cls(
            attach=tuple(coming.values()),
            detach=tuple(current.user[each] for each in sorted(going)),
            system=current.system,
            user=bool(coming) or bool(current.user.keys() - going),
        )

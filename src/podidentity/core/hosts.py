"""The Azure machine of a node, from the node's provider ID.

A user-assigned identity is attached to a virtual machine or, for all its instances at once, to a
scale set. Subscription and resource group come from the provider ID alone, so one cluster may span
several of either.

Shapes: https://cloud-provider-azure.sigs.k8s.io/ (`azure:///subscriptions/…`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self

_HOST = (
    r"(?P<host>/subscriptions/[^/]+/resourcegroups/[^/]+/providers/microsoft\.compute/"
    r"(?P<kind>virtualmachinescalesets|virtualmachines)/(?P<name>[^/]+))"
)
_RESOURCE_ID = re.compile(_HOST, re.IGNORECASE | re.ASCII)
_PROVIDER_ID = re.compile(
    rf"azure://{_HOST}(?P<instance>/virtualmachines/[^/]+)?", re.IGNORECASE | re.ASCII
)


class NotAnAzureNode(ValueError):
    """The provider ID names no Azure machine."""


@dataclass(frozen=True, slots=True)
class Host:
    """A scale set or a virtual machine, to which identities are attached; compared without case."""

    folded: str
    resource_id: str = field(compare=False)
    """Its ARM id as the node spells it."""
    name: str = field(compare=False)
    is_scale_set: bool = field(compare=False)

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
        return cls(found["host"].lower(), found["host"], found["name"], is_scale_set)

    def __str__(self) -> str:
        return self.resource_id

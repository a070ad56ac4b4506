"""Decides which port of a bridge may send with which MAC address and which addresses.

A port is bound once, when its pod's namespace is first seen with an address, and stays bound until
the port or the namespace is deleted. On each bridge, an address or MAC address belongs to the port
that was first seen with it. Another port can have it when the first port is gone. The node's own
addresses belong to no port.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from podidentity.kernel.namespaces import NamespaceKey
from podidentity.kernel.source_rules import Elements

MOST_ADDRESSES = 16
"""Addresses of one port; a pod of Kubernetes has one IPv4 address on each of its links."""


class Since(NamedTuple):
    """When an address was first seen; values are ordered by time."""

    look: int
    """Number of the look that found it; 0: an earlier run did."""
    created: int
    """Creation time that the kernel reports, in 1/100 s since the boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The addresses with which one port was first seen."""

    port: int
    """Index of the node's end."""
    bridge: int
    """Index of the bridge whose port it is."""
    mac: str
    addresses: Mapping[str, Since]
    namespace: NamespaceKey | None
    """None if an earlier run made the binding, and the namespace is not found yet."""


def usable(addresses: Mapping[str, Since]) -> dict[str, Since]:
    """Return the addresses that a pod can be bound to; none if there are too many."""
    found = {
        address: since
        for address, since in addresses.items()
        if not IPv4Address(address).is_loopback and not IPv4Address(address).is_unspecified
    }
    return found if len(found) <= MOST_ADDRESSES else {}


def elements(
    bindings: Iterable[Binding],
    *,
    uplinks: Mapping[int, int],
    own: Mapping[int, Set[str]],
    closed: Set[str],
) -> Elements:
    """Return the elements of the sets in the bridge's rules.

    `uplinks` maps ports to their bridges, `own` bridges to the node's addresses there. `closed` are
    the addresses that nobody may have (IMDS).
    """
    bound = list(bindings)
    reserved = frozenset().union(*own.values())
    owners: dict[tuple[int, str], int] = {}
    claims = sorted(
        (since, each.port, each.bridge, address)
        for each in bound
        for address, since in each.addresses.items()
    )
    for _, port, bridge, address in claims:
        if address not in reserved and address not in closed:
            owners.setdefault((bridge, address), port)
    inside: dict[int, set[str]] = {bridge: set(addresses) for bridge, addresses in own.items()}
    for bridge, address in owners:
        inside.setdefault(bridge, set()).add(address)
    return Elements(
        pods=frozenset(each.port for each in bound),
        uplinks=frozenset(uplinks),
        macs=frozenset((each.port, each.mac) for each in bound),
        addresses=frozenset((port, address) for (_, address), port in owners.items()),
        reserved=frozenset(reserved | closed),
        inside_macs=frozenset(
            (uplink, each.mac)
            for uplink, bridge in uplinks.items()
            for each in bound
            if each.bridge == bridge
        ),
        inside_addresses=frozenset(
            (uplink, address)
            for uplink, bridge in uplinks.items()
            for address in inside.get(bridge, ())
        ),
    )


def namespaces(bindings: Iterable[Binding], granted: Elements) -> dict[str, NamespaceKey]:
    """Return, by address, the only namespace that can send from it.

    Leaves out addresses that ports of several bridges have.
    """
    found: dict[str, set[NamespaceKey | None]] = {}
    for each in bindings:
        for address in each.addresses:
            if (each.port, address) in granted.addresses:
                found.setdefault(address, set()).add(each.namespace)
    alone = {
        address: next(iter(several)) for address, several in found.items() if len(several) == 1
    }
    return {address: namespace for address, namespace in alone.items() if namespace is not None}


def disputed(bindings: Iterable[Binding], granted: Elements) -> dict[int, frozenset[str]]:
    """Return, by port, the addresses that it was seen with but that belong to another port."""
    found = {}
    for each in bindings:
        refused = {
            address for address in each.addresses if (each.port, address) not in granted.addresses
        }
        if refused:
            found[each.port] = frozenset(refused)
    return found

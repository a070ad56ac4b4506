"""Network policies: records only. The sandbox's nodes enforce none, as kubenet without an engine.

https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
Defaults and faults are those of SetDefaults_NetworkPolicy and ValidateNetworkPolicySpec in
pkg/apis/networking of https://github.com/kubernetes/kubernetes/tree/v1.32.3.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.kinds.services import port_faults
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

_TYPES = ("Egress", "Ingress")
_WAYS = (("ingress", "from"), ("egress", "to"))


class NetworkPolicyStrategy(Strategy):
    """Says which ways it judges, and checks its blocks and ports."""

    def default(self, new: Obj) -> None:
        """Fill in the defaults."""
        spec = new.setdefault("spec", {})
        spec.setdefault("podSelector", {})
        for way, _ in _WAYS:
            for rule in spec.get(way) or ():
                for port in rule.get("ports") or ():
                    port.setdefault("protocol", "TCP")
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:  # noqa: ARG002 - the same
        """Check types, peers and ports."""
        spec = new["spec"]
        for index, kind in enumerate(spec["policyTypes"]):
            if kind not in _TYPES:
                yield status.unsupported(f"spec.policyTypes[{index}]", kind, _TYPES)
        for way, peers in _WAYS:
            for index, rule in enumerate(spec.get(way) or ()):
                where = f"spec.{way}[{index}]"
                for number, port in enumerate(rule.get("ports") or ()):
                    yield from _port_faults(f"{where}.ports[{number}]", port)
                for number, peer in enumerate(rule.get(peers) or ()):
                    yield from _peer_faults(f"{where}.{peers}[{number}]", peer)


def _port_faults(where: str, port: Obj) -> Iterator[Cause]:
    yield from port_faults(where, port)
    first, last = port.get("port"), port.get("endPort")
    if last is None:
        return
    if not isinstance(first, int):
        detail = "may not be specified when `port` is not specified or is a name"
        yield status.invalid(f"{where}.endPort", last, detail)
    elif last < first:
        detail = "must be greater than or equal to `port`"
        yield status.invalid(f"{where}.endPort", last, detail)


def _peer_faults(where: str, peer: Obj) -> Iterator[Cause]:
    block = peer.get("ipBlock")
    if not peer:
        yield status.required(where, "must specify a peer")
    if block is None:
        return
    if len(peer) > 1:
        yield status.forbidden_field(where, "may not specify both ipBlock and another peer")
    places = {f"{where}.ipBlock.cidr": block.get("cidr", "")}
    places |= {f"{where}.ipBlock.except[{n}]": e for n, e in enumerate(block.get("except") or ())}
    outer = _network(block.get("cidr", ""))
    for place, cidr in places.items():
        inner = _network(cidr)
        if inner is None:
            detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            yield status.invalid(place, cidr, detail)
        elif outer is not None and not place.endswith(".cidr") and not _inside(inner, outer):
            yield status.invalid(place, cidr, "must be a strict subset of `cidr`")


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(cidr: str) -> _Network | None:
    try:
        return ipaddress.ip_network(cidr, strict=False) if "/" in cidr else None
    except ValueError:
        return None


def _inside(inner: _Network, outer: _Network) -> bool:
    """Whether one network is a part of another, and not all of it."""
    same = inner.version == outer.version
    return same and inner != outer and outer.supernet_of(inner)  # type: ignore[arg-type]

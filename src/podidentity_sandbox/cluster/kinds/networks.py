"""Network policies: records only. The sandbox's nodes enforce none, as kubenet without an engine.

https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
Defaults and faults are those of SetDefaults_NetworkPolicy and ValidateNetworkPolicySpec in
pkg/apis/networking of https://github.com/kubernetes/kubernetes/tree/v1.32.3.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

_TYPES = ("Egress", "Ingress")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
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

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:  # noqa: ARG002 - the same
        """Check types, peers and ports."""
        spec = new["spec"]
        faults = [
            status.unsupported(f"spec.policyTypes[{index}]", kind, _TYPES)
            for index, kind in enumerate(spec["policyTypes"])
            if kind not in _TYPES
        ]
        for way, peers in _WAYS:
            for index, rule in enumerate(spec.get(way) or ()):
                where = f"spec.{way}[{index}]"
                for number, port in enumerate(rule.get("ports") or ()):
                    faults += _port_faults(f"{where}.ports[{number}]", port)
                for number, peer in enumerate(rule.get(peers) or ()):
                    faults += _peer_faults(f"{where}.{peers}[{number}]", peer)
        return faults


def _port_faults(where: str, port: Obj) -> Iterator[Cause]:
    if port["protocol"] not in _PROTOCOLS:
        yield status.unsupported(f"{where}.protocol", port["protocol"], _PROTOCOLS)
    first, last = port.get("port"), port.get("endPort")
    if isinstance(first, int) and not 1 <= first <= 65535:
        yield status.invalid(f"{where}.port", first, "must be between 1 and 65535, inclusive")
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
    outer = _network(block.get("cidr", ""))
    if outer is None:
        yield _not_a_cidr(f"{where}.ipBlock.cidr", block.get("cidr", ""))
        return
    for index, each in enumerate(block.get("except") or ()):
        inner = _network(each)
        if inner is None:
            yield _not_a_cidr(f"{where}.ipBlock.except[{index}]", each)
        elif inner == outer or not _inside(inner, outer):
            detail = "must be a strict subset of `cidr`"
            yield status.invalid(f"{where}.ipBlock.except[{index}]", each, detail)


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(cidr: str) -> _Network | None:
    try:
        return ipaddress.ip_network(cidr, strict=False) if "/" in cidr else None
    except ValueError:
        return None


def _inside(inner: _Network, outer: _Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def _not_a_cidr(where: str, cidr: str) -> Cause:
    detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
    return status.invalid(where, cidr, detail)

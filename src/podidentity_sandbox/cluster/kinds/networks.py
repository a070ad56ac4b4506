"""Services and network policies: records only.

A Service gets an address inside the cluster, and nothing listens on it; there is no other type than
ClusterIP, since nothing here has an address outside. The sandbox's nodes enforce no policy, as
kubenet without an engine.

https://kubernetes.io/docs/concepts/services-networking/service/
https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
Defaults and faults are those of ValidateService in pkg/apis/core/validation/validation.go, of
SetDefaults_NetworkPolicy and of ValidateNetworkPolicySpec in pkg/apis/networking, all in
https://github.com/kubernetes/kubernetes/tree/v1.32.3.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.registry import ResourceType, Strategy
from podidentity_sandbox.cluster.status import Cause
from podidentity_sandbox.cluster.storage import Storage

ADDRESSES = ipaddress.ip_network("10.0.0.0/16")
"""AKS's default service CIDR."""
_TYPES = ("ClusterIP",)
_PROTOCOLS = ("SCTP", "TCP", "UDP")


class ServiceStrategy(Strategy):
    """Its address is the server's, and stays."""

    def default(self, new: Obj) -> None:
        """Fill in the defaults."""
        spec = new.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")

    def prepare_create(self, new: Obj) -> None:
        """Give it a status, which nothing ever fills."""
        new["status"] = {"loadBalancer": {}}

    def prepare_update(self, new: Obj, old: Obj) -> None:
        """Keep the address that the client leaves out."""
        spec, before = new["spec"], old["spec"]
        for field in ("clusterIP", "clusterIPs"):
            if not spec.get(field) and field in before:
                spec[field] = before[field]

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check type, ports and address."""
        spec = new["spec"]
        yield from _port_faults(spec)
        if spec["type"] not in _TYPES:
            yield status.unsupported("spec.type", spec["type"], _TYPES)
        address = spec.get("clusterIP")
        if old is not None and old["spec"].get("clusterIP") not in (None, address):
            yield status.invalid("spec.clusterIPs[0]", [address], "may not change once set")


def _number_faults(where: str, port: Obj) -> Iterator[Cause]:
    """Yield the faults of protocol and number; a port may have a name in place of its number."""
    number = port.get("port")
    if isinstance(number, int) and not 1 <= number <= 65535:
        yield status.invalid(f"{where}.port", number, "must be between 1 and 65535, inclusive")
    if port["protocol"] not in _PROTOCOLS:
        yield status.unsupported(f"{where}.protocol", port["protocol"], _PROTOCOLS)


def _port_faults(spec: Obj) -> Iterator[Cause]:
    ports = spec.get("ports", [])
    if not ports and spec.get("clusterIP") != "None":
        yield status.required("spec.ports")
    seen: set[tuple[int, str]] = set()
    for index, port in enumerate(ports):
        where, number = f"spec.ports[{index}]", port.get("port", 0)
        if len(ports) > 1 and not port.get("name"):
            yield status.required(f"{where}.name")
        yield from _number_faults(where, {"port": 0, **port})
        if (number, port["protocol"]) in seen:
            shown = f'{{"port":{number},"protocol":"{port["protocol"]}"}}'
            yield Cause(where, "FieldValueDuplicate", f"Duplicate value: {shown}")
        seen.add((number, port["protocol"]))


def allocate(storage: Storage, kind: ResourceType, new: Obj) -> None:
    """Give a new Service an address that no other has; raise 422 for one that is taken."""
    if kind.key != "services":
        return
    spec = new["spec"]
    taken = {one.object["spec"].get("clusterIP") for one in storage.all("services")}
    if not spec.get("clusterIP"):
        hosts = (str(host) for host in ADDRESSES.hosts())
        spec["clusterIP"] = next(host for host in hosts if host not in taken)
    elif spec["clusterIP"] != "None" and spec["clusterIP"] in taken:
        address = spec["clusterIP"]
        detail = f"failed to allocate IP {address}: provided IP is already allocated"
        fault = status.invalid("spec.clusterIPs", [address], detail)
        raise status.invalid_object("Service", "", new["metadata"]["name"], [fault])
    spec["clusterIPs"] = [spec["clusterIP"]]


# ---- Network policies

_POLICY_TYPES = ("Egress", "Ingress")
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
            if kind not in _POLICY_TYPES:
                yield status.unsupported(f"spec.policyTypes[{index}]", kind, _POLICY_TYPES)
        for way, peers in _WAYS:
            for index, rule in enumerate(spec.get(way) or ()):
                where = f"spec.{way}[{index}]"
                for number, port in enumerate(rule.get("ports") or ()):
                    yield from _policy_port_faults(f"{where}.ports[{number}]", port)
                for number, peer in enumerate(rule.get(peers) or ()):
                    yield from _peer_faults(f"{where}.{peers}[{number}]", peer)


def _policy_port_faults(where: str, port: Obj) -> Iterator[Cause]:
    yield from _number_faults(where, port)
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

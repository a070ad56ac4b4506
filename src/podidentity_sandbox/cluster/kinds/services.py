"""Services: records only. They get an address inside the cluster, and nothing listens on it.

There is no other type than ClusterIP: nothing here has an address outside.

https://kubernetes.io/docs/concepts/services-networking/service/
Faults are those of ValidateService in pkg/apis/core/validation/validation.go.
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


def port_faults(where: str, port: Obj) -> Iterator[Cause]:
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
        yield from port_faults(where, {"port": 0, **port})
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

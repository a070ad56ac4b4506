"""Services and network policies: records only.

A Service gets an address inside the cluster, and nothing listens on it. The sandbox's nodes enforce
no policy, as kubenet without an engine.
"""

from __future__ import annotations

import ipaddress

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.registry import ResourceType, Strategy
from podidentity_sandbox.cluster.storage import Storage

ADDRESSES = ipaddress.ip_network("10.0.0.0/16")
"""AKS's default service CIDR."""


class ServiceStrategy(Strategy):
    """Its address is the server's, and stays."""

    def default(self, new: Obj) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))

    def prepare_update(self, new: Obj, old: Obj) -> None:
        new["spec"]["clusterIP"] = old["spec"]["clusterIP"]


def allocate(storage: Storage, kind: ResourceType, new: Obj) -> None:
    """Give a new Service an address that no other has."""
    if kind.key == "services" and not new["spec"].get("clusterIP"):
        taken = {one.object["spec"].get("clusterIP") for one in storage.all("services")}
        hosts = (str(host) for host in ADDRESSES.hosts())
        new["spec"]["clusterIP"] = next(host for host in hosts if host not in taken)


class NetworkPolicyStrategy(Strategy):
    """Says which ways it judges."""

    def default(self, new: Obj) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("podSelector", {})
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]

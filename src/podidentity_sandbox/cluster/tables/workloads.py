"""The rows of workloads and of services.

As in https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/printers/internalversion/printers.go
"""

from __future__ import annotations

from datetime import datetime

from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.storage import field_of
from podidentity_sandbox.cluster.tables.columns import (
    AGE,
    NAME,
    NONE,
    Column,
    count,
    joined,
    selector,
    text,
)


def _containers(obj: Obj, field: str) -> str:
    found = field_of(obj, "spec.template.spec.containers")
    return ",".join(str(c.get(field, "")) for c in found) if isinstance(found, list) else ""


_TEMPLATE = (
    Column(
        name="Containers",
        wide=True,
        cell=lambda obj, _: _containers(obj, "name"),
        description="Names of each container in the template.",
    ),
    Column(
        name="Images",
        wide=True,
        cell=lambda obj, _: _containers(obj, "image"),
        description="Images referenced by each container in the template.",
    ),
    Column(name="Selector", wide=True, cell=lambda obj, _: selector(obj["spec"].get("selector"))),
)


def _desired(obj: Obj) -> Json:
    replicas = field_of(obj, "spec.replicas")
    return 1 if replicas is None else replicas


DEPLOYMENT = (
    NAME,
    Column(
        name="Ready",
        cell=lambda obj, _: f"{field_of(obj, 'status.readyReplicas') or 0}/{_desired(obj)}",
        description="Number of the pod with ready state",
    ),
    Column(name="Up-to-date", cell=lambda obj, _: field_of(obj, "status.updatedReplicas") or 0),
    Column(name="Available", cell=lambda obj, _: field_of(obj, "status.availableReplicas") or 0),
    AGE,
    *_TEMPLATE,
)
REPLICA_SET = (
    NAME,
    Column(name="Desired", type="integer", cell=lambda obj, _: _desired(obj)),
    count("Current", "status.replicas"),
    count("Ready", "status.readyReplicas"),
    AGE,
    *_TEMPLATE,
)
DAEMON_SET = (
    NAME,
    count("Desired", "status.desiredNumberScheduled"),
    count("Current", "status.currentNumberScheduled"),
    count("Ready", "status.numberReady"),
    count("Up-to-date", "status.updatedNumberScheduled"),
    count("Available", "status.numberAvailable"),
    Column(
        name="Node Selector",
        cell=lambda obj, _: joined(field_of(obj, "spec.template.spec.nodeSelector")),
    ),
    AGE,
    *_TEMPLATE,
)


def _external(obj: Obj, _: datetime) -> str:
    spec = obj.get("spec", {})
    own = list(spec.get("externalIPs", ()))
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName", ""))
        case "LoadBalancer":
            found = field_of(obj, "status.loadBalancer.ingress")
            ingress = found if isinstance(found, list) else []
            given = {each.get("ip") or each.get("hostname") or "" for each in ingress} - {""}
            return ",".join([*sorted(given), *own]) or "<pending>"
    return ",".join(own) or NONE


def _ports(obj: Obj, _: datetime) -> str:
    parts = []
    for port in obj.get("spec", {}).get("ports", ()):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        parts.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(parts) or NONE


SERVICE = (
    NAME,
    text("Type", "spec.type"),
    text("Cluster-IP", "spec.clusterIP", absent=NONE),
    Column(name="External-IP", cell=_external),
    Column(name="Port(s)", cell=_ports),
    AGE,
    Column(name="Selector", wide=True, cell=lambda obj, _: joined(field_of(obj, "spec.selector"))),
)

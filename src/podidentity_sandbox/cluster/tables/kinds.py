"""The columns of the built-in kinds.

As in https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/printers/internalversion/printers.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.storage import field_of
from podidentity_sandbox.cluster.tables import pods, workloads
from podidentity_sandbox.cluster.tables.ages import UNKNOWN, since
from podidentity_sandbox.cluster.tables.columns import AGE, NAME, NONE, Column, text

ROLE_LABEL = "node-role.kubernetes.io/"


def _size(*fields: str) -> Column:
    def cell(obj: Obj, _: datetime) -> Json:
        return sum(len(obj.get(field) or ()) for field in fields)

    return Column(name="Data", cell=cell)


def _node_status(obj: Obj, _: datetime) -> str:
    found = field_of(obj, "status.conditions")
    conditions = found if isinstance(found, list) else []
    ready = [c.get("status") for c in conditions if c.get("type") == "Ready"]
    parts = [("Ready" if ready[-1] == "True" else "NotReady") if ready else "Unknown"]
    if field_of(obj, "spec.unschedulable"):
        parts.append("SchedulingDisabled")
    return ",".join(parts)


def _node_roles(obj: Obj, _: datetime) -> str:
    labels = obj["metadata"].get("labels", {})
    roles = {label.removeprefix(ROLE_LABEL) for label in labels if label.startswith(ROLE_LABEL)}
    return ",".join(sorted((roles | {labels.get("kubernetes.io/role", "")}) - {""})) or NONE


def _address(name: str, kind: str) -> Column:
    def cell(obj: Obj, _: datetime) -> Json:
        found = field_of(obj, "status.addresses")
        addresses = found if isinstance(found, list) else []
        return next((a.get("address", "") for a in addresses if a.get("type") == kind), NONE)

    return Column(name=name, wide=True, cell=cell)


def _subjects(name: str, kind: str) -> Column:
    def cell(obj: Obj, _: datetime) -> Json:
        chosen = [s for s in obj.get("subjects") or () if s.get("kind") == kind]
        full = kind == "ServiceAccount"
        spelled = (f"{s.get('namespace', '')}/{s['name']}" if full else s["name"] for s in chosen)
        return ", ".join(spelled)

    return Column(name=name, wide=True, cell=cell)


def _role(obj: Obj, _: datetime) -> Json:
    return f"{field_of(obj, 'roleRef.kind')}/{field_of(obj, 'roleRef.name')}"


_BINDING = (
    NAME,
    Column(name="Role", cell=_role),
    AGE,
    _subjects("Users", "User"),
    _subjects("Groups", "Group"),
    _subjects("ServiceAccounts", "ServiceAccount"),
)


def _first_seen(obj: Obj, now: datetime) -> str:
    return since(obj.get("firstTimestamp") or obj.get("eventTime"), now)


def _last_seen(obj: Obj, now: datetime) -> str:
    series = obj.get("series") or {}
    last = series.get("lastObservedTime") if series else obj.get("lastTimestamp")
    seen = since(last, now)
    return _first_seen(obj, now) if seen == UNKNOWN and not series else seen


def _about(obj: Obj, _: datetime) -> str:
    about = obj.get("involvedObject", {})
    kind, name = about.get("kind", "").lower(), about.get("name", "")
    return f"{kind}/{name}" if name else kind


def _source(obj: Obj, _: datetime) -> str:
    source = obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent") or ""
    place = source.get("host") or obj.get("reportingInstance") or ""
    return f"{component}, {place}" if place else component


def _event_count(obj: Obj, _: datetime) -> Json:
    return (obj.get("series") or obj).get("count") or 1


_EVENT = (
    Column(name="Last Seen", cell=_last_seen),
    text("Type", "type"),
    text("Reason", "reason"),
    Column(name="Object", cell=_about),
    text("Subobject", "involvedObject.fieldPath", wide=True),
    Column(name="Source", cell=_source, wide=True),
    Column(name="Message", cell=lambda obj, _: str(obj.get("message") or "").strip()),
    Column(name="First Seen", cell=_first_seen, wide=True),
    Column(name="Count", cell=_event_count, wide=True),
    Column(name="Name", format="name", wide=True, cell=NAME.cell, description=NAME.description),
)


def _flag(name: str, field: str, *, otherwise: bool = False) -> Column:
    def cell(obj: Obj, _: datetime) -> Json:
        found = field_of(obj, f"spec.{field}")
        return otherwise if found is None else found

    return Column(name=name, type="boolean", cell=cell)


def _audiences(obj: Obj, _: datetime) -> str:
    requests = field_of(obj, "spec.tokenRequests")
    if not isinstance(requests, list):
        return "<unset>"
    return ",".join(request.get("audience", "") for request in requests)


def _modes(obj: Obj, _: datetime) -> str:
    modes = field_of(obj, "spec.volumeLifecycleModes")
    return ",".join(modes) if isinstance(modes, list) and modes else NONE


COLUMNS: Mapping[str, Sequence[Column]] = {
    "namespaces": (NAME, text("Status", "status.phase"), AGE),
    "nodes": (
        NAME,
        Column(name="Status", cell=_node_status, description="The status of the node"),
        Column(name="Roles", cell=_node_roles, description="The roles of the node"),
        AGE,
        text("Version", "status.nodeInfo.kubeletVersion"),
        _address("Internal-IP", "InternalIP"),
        _address("External-IP", "ExternalIP"),
        text("OS-Image", "status.nodeInfo.osImage", wide=True, absent=UNKNOWN),
        text("Kernel-Version", "status.nodeInfo.kernelVersion", wide=True, absent=UNKNOWN),
        text(
            "Container-Runtime",
            "status.nodeInfo.containerRuntimeVersion",
            wide=True,
            absent=UNKNOWN,
        ),
    ),
    "pods": pods.COLUMNS,
    "events": _EVENT,
    "secrets": (NAME, text("Type", "type"), _size("data"), AGE),
    "configmaps": (NAME, _size("data", "binaryData"), AGE),
    "serviceaccounts": (
        NAME,
        Column(name="Secrets", cell=lambda obj, _: len(obj.get("secrets") or ())),
        AGE,
    ),
    "services": workloads.SERVICE,
    "deployments.apps": workloads.DEPLOYMENT,
    "replicasets.apps": workloads.REPLICA_SET,
    "daemonsets.apps": workloads.DAEMON_SET,
    "leases.coordination.k8s.io": (NAME, text("Holder", "spec.holderIdentity"), AGE),
    "rolebindings.rbac.authorization.k8s.io": _BINDING,
    "clusterrolebindings.rbac.authorization.k8s.io": _BINDING,
    "csidrivers.storage.k8s.io": (
        NAME,
        _flag("AttachRequired", "attachRequired", otherwise=True),
        _flag("PodInfoOnMount", "podInfoOnMount"),
        _flag("StorageCapacity", "storageCapacity"),
        Column(name="TokenRequests", cell=_audiences),
        _flag("RequiresRepublish", "requiresRepublish"),
        Column(name="Modes", cell=_modes),
        AGE,
    ),
}
"""By storage key. Kinds that are not here have the columns DEFAULT, as on a real server."""

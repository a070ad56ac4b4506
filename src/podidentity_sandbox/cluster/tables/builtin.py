"""The columns of the built-in kinds.

As in
https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/printers/internalversion/printers.go
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from podidentity_sandbox.cluster import Json, Obj
from podidentity_sandbox.cluster.storage import field_of
from podidentity_sandbox.cluster.tables.columns import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Column,
    count,
    joined,
    selector,
    since,
    text,
)

# ---- Pods: above all the status, which is put together from those of the containers

ENDED = ("Succeeded", "Failed")


def _status(obj: Obj, _: datetime) -> str:
    state = obj.get("status", {})
    reason = state.get("reason") or state.get("phase") or ""
    reason = _initial(obj) or _running(obj, reason)
    going = "deletionTimestamp" in obj["metadata"] and state.get("phase") not in ENDED
    return "Terminating" if going else reason


def _initial(obj: Obj) -> str:
    """Return the state of the first init container that has not finished; "" if all have."""
    for index, container in enumerate(obj.get("status", {}).get("initContainerStatuses", ())):
        state = container.get("state", {})
        ended, waiting = state.get("terminated"), state.get("waiting", {}).get("reason")
        if ended and not ended.get("exitCode"):
            continue
        if ended:
            return f"Init:{_ending(ended)}"
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{len(obj['spec'].get('initContainers', ()))}"
    return ""


def _running(obj: Obj, reason: str) -> str:
    """Return the state of the first container that has one to tell, else `reason`."""
    some_run = False
    for container in reversed(obj.get("status", {}).get("containerStatuses", ())):
        state = container.get("state", {})
        if waiting := state.get("waiting", {}).get("reason"):
            reason = waiting
        elif "terminated" in state:
            reason = _ending(state["terminated"])
        elif container.get("ready") and "running" in state:
            some_run = True
    if reason == "Completed" and some_run:
        ready = any(c.get("status") == "True" for c in _conditions(obj, "Ready"))
        return "Running" if ready else "NotReady"
    return reason


def _ending(ended: Obj) -> str:
    return str(ended.get("reason") or f"ExitCode:{ended['exitCode']}")


def _conditions(obj: Obj, kind: str) -> Iterator[Obj]:
    return (c for c in obj.get("status", {}).get("conditions", ()) if c.get("type") == kind)


def _ready(obj: Obj, _: datetime) -> str:
    found = () if _initial(obj) else obj.get("status", {}).get("containerStatuses", ())
    ready = [c for c in found if c.get("ready") and "running" in c.get("state", {})]
    return f"{len(ready)}/{len(obj.get('spec', {}).get('containers', ()))}"


def _restarts(obj: Obj, now: datetime) -> str:
    state = obj.get("status", {})
    found = state.get("initContainerStatuses" if _initial(obj) else "containerStatuses", ())
    ends = [
        ended["finishedAt"]
        for container in found
        if (ended := container.get("lastState", {}).get("terminated")) and ended.get("finishedAt")
    ]
    number = sum(container.get("restartCount", 0) for container in found)
    return f"{number} ({since(max(ends), now)} ago)" if ends else str(number)


POD = (
    NAME,
    Column("Ready", _ready),
    Column("Status", _status),
    Column("Restarts", _restarts),
    AGE,
    text("IP", "status.podIP", wide=True, absent=NONE),
    text("Node", "spec.nodeName", wide=True, absent=NONE),
    text("Nominated Node", "status.nominatedNodeName", wide=True, absent=NONE),
    Column("Readiness Gates", lambda *_: NONE, wide=True),
)


# ---- Workloads and services


def _containers(obj: Obj, field: str) -> str:
    containers = field_of(obj, "spec.template.spec.containers") or []
    return ",".join(str(container.get(field, "")) for container in containers)


_TEMPLATE = (
    Column("Containers", lambda obj, _: _containers(obj, "name"), wide=True),
    Column("Images", lambda obj, _: _containers(obj, "image"), wide=True),
    Column("Selector", lambda obj, _: selector(obj["spec"].get("selector")), wide=True),
)


def _desired(obj: Obj) -> Json:
    replicas = field_of(obj, "spec.replicas")
    return 1 if replicas is None else replicas


DEPLOYMENT = (
    NAME,
    Column("Ready", lambda obj, _: f"{field_of(obj, 'status.readyReplicas') or 0}/{_desired(obj)}"),
    Column("Up-to-date", lambda obj, _: field_of(obj, "status.updatedReplicas") or 0),
    Column("Available", lambda obj, _: field_of(obj, "status.availableReplicas") or 0),
    AGE,
    *_TEMPLATE,
)
REPLICA_SET = (
    NAME,
    Column("Desired", lambda obj, _: _desired(obj), type="integer"),
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
        "Node Selector", lambda obj, _: joined(field_of(obj, "spec.template.spec.nodeSelector"))
    ),
    AGE,
    *_TEMPLATE,
)


def _ports(obj: Obj, _: datetime) -> str:
    ports = obj.get("spec", {}).get("ports", ())
    return ",".join(f"{each.get('port')}/{each.get('protocol', 'TCP')}" for each in ports) or NONE


SERVICE = (
    NAME,
    text("Type", "spec.type"),
    text("Cluster-IP", "spec.clusterIP", absent=NONE),
    Column("External-IP", lambda *_: NONE),
    Column("Port(s)", _ports),
    AGE,
    Column("Selector", lambda obj, _: joined(field_of(obj, "spec.selector")), wide=True),
)


# ---- All kinds

ROLE_LABEL = "node-role.kubernetes.io/"


def _size(*fields: str) -> Column:
    def cell(obj: Obj, _: datetime) -> Json:
        return sum(len(obj.get(field) or ()) for field in fields)

    return Column("Data", cell)


def _node_status(obj: Obj, _: datetime) -> str:
    ready = [condition.get("status") for condition in _conditions(obj, "Ready")]
    parts = [("Ready" if ready[-1] == "True" else "NotReady") if ready else "Unknown"]
    if field_of(obj, "spec.unschedulable"):
        parts.append("SchedulingDisabled")
    return ",".join(parts)


def _node_roles(obj: Obj, _: datetime) -> str:
    labels = obj["metadata"].get("labels", {})
    roles = {label.removeprefix(ROLE_LABEL) for label in labels if label.startswith(ROLE_LABEL)}
    return ",".join(sorted(roles)) or NONE


def _address(name: str, kind: str) -> Column:
    def cell(obj: Obj, _: datetime) -> Json:
        addresses = field_of(obj, "status.addresses") or []
        return next((a.get("address", "") for a in addresses if a.get("type") == kind), NONE)

    return Column(name, cell, wide=True)


def _subjects(name: str, kind: str) -> Column:
    def cell(obj: Obj, _: datetime) -> Json:
        chosen = [s for s in obj.get("subjects") or () if s.get("kind") == kind]
        full = kind == "ServiceAccount"
        spelled = (f"{s.get('namespace', '')}/{s['name']}" if full else s["name"] for s in chosen)
        return ", ".join(spelled)

    return Column(name, cell, wide=True)


def _role(obj: Obj, _: datetime) -> Json:
    return f"{field_of(obj, 'roleRef.kind')}/{field_of(obj, 'roleRef.name')}"


_BINDING = (
    NAME,
    Column("Role", _role),
    AGE,
    _subjects("Users", "User"),
    _subjects("Groups", "Group"),
    _subjects("ServiceAccounts", "ServiceAccount"),
)


def _last_seen(obj: Obj, now: datetime) -> str:
    last = field_of(obj, "series.lastObservedTime") or obj.get("lastTimestamp")
    return since(last or obj.get("firstTimestamp") or obj.get("eventTime"), now)


def _about(obj: Obj, _: datetime) -> str:
    about = obj.get("involvedObject", {})
    kind, name = about.get("kind", "").lower(), about.get("name", "")
    return f"{kind}/{name}" if name else kind


_EVENT = (
    Column("Last Seen", _last_seen),
    text("Type", "type"),
    text("Reason", "reason"),
    Column("Object", _about),
    Column("Message", lambda obj, _: str(obj.get("message") or "").strip()),
)


COLUMNS: Mapping[str, Sequence[Column]] = {
    "namespaces": (NAME, text("Status", "status.phase"), AGE),
    "nodes": (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
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
    "pods": POD,
    "events": _EVENT,
    "secrets": (NAME, text("Type", "type"), _size("data"), AGE),
    "configmaps": (NAME, _size("data", "binaryData"), AGE),
    "serviceaccounts": (
        NAME,
        Column("Secrets", lambda obj, _: len(obj.get("secrets") or ())),
        AGE,
    ),
    "services": SERVICE,
    "deployments.apps": DEPLOYMENT,
    "replicasets.apps": REPLICA_SET,
    "daemonsets.apps": DAEMON_SET,
    "networkpolicies.networking.k8s.io": (
        NAME,
        Column("Pod-Selector", lambda obj, _: selector(obj["spec"].get("podSelector"))),
        AGE,
    ),
    "leases.coordination.k8s.io": (NAME, text("Holder", "spec.holderIdentity"), AGE),
    "rolebindings.rbac.authorization.k8s.io": _BINDING,
    "clusterrolebindings.rbac.authorization.k8s.io": _BINDING,
}
"""By storage key. Kinds that are not here have the columns DEFAULT, as on a real server."""

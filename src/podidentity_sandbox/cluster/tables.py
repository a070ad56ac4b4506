"""Tables: the columns of each kind, and their cells as the real server words them.

Those of the built-in kinds are as in
https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/printers/internalversion/printers.go
Custom resources have those that their definition names, as in
https://github.com/kubernetes/kubernetes/blob/v1.32.3/staging/src/k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any

from podidentity_sandbox.cluster import Json, Obj, selectors
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import field_of

# ---- Ages: `12s`, `5m3s`, `7d`, as the real server prints them
#
# The steps are those of HumanDuration in
# https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/duration/duration.go

UNKNOWN = "<unknown>"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "y": 365 * 24 * 3600}
"""Seconds."""
_STEPS = (
    *((120, "s", ""), (600, "m", "s"), (3 * 3600, "m", "")),
    *((8 * 3600, "h", "m"), (2 * _UNITS["d"], "h", ""), (8 * _UNITS["d"], "d", "h")),
    *((2 * _UNITS["y"], "d", ""), (8 * _UNITS["y"], "y", "d"), (math.inf, "y", "")),
)
"""Up to how many seconds a duration is said in which unit, and which smaller one beside it."""


def since(stamp: Json, now: datetime) -> str:
    """Return the time from an RFC 3339 stamp to now, UNKNOWN where there is none."""
    if not isinstance(stamp, str):
        return UNKNOWN
    try:
        return lasting((now - datetime.fromisoformat(stamp)).total_seconds())
    except (ValueError, TypeError):
        return "<invalid>"


def lasting(seconds: float) -> str:
    """Return a duration in words, rounded down."""
    if int(seconds) < -1:
        return "<invalid>"
    whole = max(0, int(seconds))
    _, unit, smaller = next(step for step in _STEPS if whole < step[0])
    first, rest = divmod(whole, _UNITS[unit])
    second = rest // _UNITS[smaller] if smaller else 0
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


# ---- Columns

Cell = Callable[[Obj, datetime], Json]
"""The cell of an object at a time."""
NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column, as a TableColumnDefinition; of built-in kinds without a description."""

    name: str
    cell: Cell
    _: KW_ONLY
    type: str = "string"
    format: str = ""
    description: str = ""
    wide: bool = False
    """Shown with `-o wide` only."""

    def definition(self) -> dict[str, Any]:
        """Return the column's definition for the client."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": int(self.wide),
        }


def text(name: str, path: str, *, wide: bool = False, absent: str = "") -> Column:
    """Return a column of one field's text."""
    return Column(name, lambda obj, _: field_of(obj, path) or absent, wide=wide)


def count(name: str, path: str) -> Column:
    """Return a column of one field's number; 0 where the field is not there."""
    return Column(name, lambda obj, _: field_of(obj, path) or 0, type="integer")


def joined(labels: Json) -> str:
    """Return `a=b,c=d`, or <none>, as labels.FormatLabels does."""
    if not isinstance(labels, Mapping) or not labels:
        return NONE
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def selector(found: Json) -> str:
    """Return a label selector as text, as metav1.FormatLabelSelector does."""
    return selectors.text(found or {}) or NONE


NAME = Column("Name", lambda obj, _: field_of(obj, "metadata.name") or "", format="name")
AGE = Column("Age", lambda obj, now: since(field_of(obj, "metadata.creationTimestamp"), now))
CREATED_AT = Column(
    "Created At", lambda obj, _: field_of(obj, "metadata.creationTimestamp") or "", type="date"
)
DEFAULT = (NAME, CREATED_AT)
"""Columns of a kind that has none of its own: roles and definitions."""


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


# ---- The JSONPaths of printer columns
#
# Such as `.spec.type` and `.status.conditions[?(@.type=="Ready")].status`.
# What a definition may use of https://kubernetes.io/docs/reference/kubectl/jsonpath/: fields, all
# items, and those of which a field is a text; others are refused with it.

_STEP = re.compile(
    r"""\.?\[\?\(@\.(?P<of>[\w-]+)\s*==\s*["'](?P<text>[^"']*)["']\)\]"""
    r"""|\.?\[(?P<all>\*)\]|\.(?P<field>(?:\\.|[^.\[\]\\])+)"""
)


def readable(path: str) -> bool:
    """Say whether a path is one that is read here."""
    return re.fullmatch(f"(?:{_STEP.pattern})+", path) is not None


def find(path: str, value: Json) -> list[Json]:
    """Return what stands at the path, in order; nothing where a step leads nowhere."""
    found = [value]
    for step in _STEP.finditer(path):
        if name := step["field"]:
            name = re.sub(r"\\(.)", r"\1", name)
            found = [each[name] for each in found if isinstance(each, dict) and name in each]
            continue
        found = [item for each in found if isinstance(each, list) for item in each]
        if key := step["of"]:
            found = [i for i in found if isinstance(i, dict) and i.get(key) == step["text"]]
    return found


def columns(kind: ResourceType) -> Sequence[Column]:
    """Return the columns of a type; name and age of a custom one whose definition has none."""
    if not kind.custom:
        return COLUMNS.get(kind.key, DEFAULT)
    return NAME, *(map(_column, kind.columns) if kind.columns else (AGE,))


def _column(defined: Obj) -> Column:
    path, kind = defined["jsonPath"], defined["type"]
    otherwise = f"Custom resource definition column (in JSONPath format): {path}"
    return Column(
        defined["name"],
        _cell(path, kind),
        type=kind,
        format=defined.get("format", ""),
        description=defined.get("description") or otherwise,
        wide=bool(defined.get("priority")),
    )


def _cell(path: str, kind: str) -> Cell:
    def cell(obj: Obj, now: datetime) -> Json:
        found = find(path, obj)
        return _shown(kind, found[0], now) if found else None

    return cell


def _shown(kind: str, value: Json, now: datetime) -> Json:
    """Return a value in a column of a type; None, an empty cell, where it does not fit."""
    match kind, value:
        case "string", str():
            return value
        case "string", _:
            return json.dumps(value, separators=(",", ":"), sort_keys=True)
        case "date", str():
            return since(value, now)
        case (("integer" | "number"), (int() | float())) if not isinstance(value, bool):
            return int(value) if kind == "integer" else value
        case "boolean", bool():
            return value
    return None

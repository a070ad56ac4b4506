"""Tables: the columns of six kinds and of custom resources; of all others name and age.

Custom resources have those that their definition names, as in
https://github.com/kubernetes/kubernetes/blob/v1.32.3/staging/src/k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any

from podidentity_sandbox.cluster import Json, Obj
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
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": int(self.wide),
        }


def text(name: str, path: str, *, wide: bool = False, absent: str = "") -> Column:
    return Column(name, lambda obj, _: field_of(obj, path) or absent, wide=wide)


def count(name: str, path: str) -> Column:
    """Return a column of one field's number; 0 where the field is not there."""
    return Column(name, lambda obj, _: field_of(obj, path) or 0, type="integer")


NAME = Column("Name", lambda obj, _: field_of(obj, "metadata.name") or "", format="name")
AGE = Column("Age", lambda obj, now: since(field_of(obj, "metadata.creationTimestamp"), now))

# ---- The kinds that have columns of their own

ENDED = ("Succeeded", "Failed")


def _status(obj: Obj, _: datetime) -> str:
    """Return the state of the first container that has one to tell, else that of the pod."""
    state = obj.get("status", {})
    if "deletionTimestamp" in obj["metadata"] and state.get("phase") not in ENDED:
        return "Terminating"
    for field, prefix in (("initContainerStatuses", "Init:"), ("containerStatuses", "")):
        for container in state.get(field, ()):
            told = container.get("state", {})
            ended, waiting = told.get("terminated"), told.get("waiting", {}).get("reason")
            if ended and (ended.get("exitCode") or not prefix):
                return f"{prefix}{ended.get('reason') or ended['exitCode']}"
            if waiting and waiting != "PodInitializing":
                return f"{prefix}{waiting}"
    return state.get("reason") or state.get("phase") or ""


def _ready(obj: Obj, _: datetime) -> str:
    found = obj.get("status", {}).get("containerStatuses", ())
    return f"{sum(bool(c.get('ready')) for c in found)}/{len(obj['spec'].get('containers', ()))}"


def _restarts(obj: Obj, _: datetime) -> str:
    found = obj.get("status", {}).get("containerStatuses", ())
    return str(sum(container.get("restartCount", 0) for container in found))


def _node_status(obj: Obj, _: datetime) -> str:
    conditions = field_of(obj, "status.conditions") or []
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    parts = ["Ready" if ready else "NotReady"]
    if field_of(obj, "spec.unschedulable"):
        parts.append("SchedulingDisabled")
    return ",".join(parts)


def _desired(obj: Obj, _: datetime) -> str:
    return f"{field_of(obj, 'status.readyReplicas') or 0}/{field_of(obj, 'spec.replicas')}"


def _last_seen(obj: Obj, now: datetime) -> str:
    return since(obj.get("lastTimestamp") or obj.get("eventTime"), now)


def _about(obj: Obj, _: datetime) -> str:
    about = obj.get("involvedObject", {})
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


COLUMNS: Mapping[str, Sequence[Column]] = {
    "namespaces": (NAME, text("Status", "status.phase"), AGE),
    "nodes": (
        NAME,
        Column("Status", _node_status),
        AGE,
        text("Version", "status.nodeInfo.kubeletVersion"),
    ),
    "pods": (
        NAME,
        Column("Ready", _ready),
        Column("Status", _status),
        Column("Restarts", _restarts),
        AGE,
        text("IP", "status.podIP", wide=True, absent=NONE),
        text("Node", "spec.nodeName", wide=True, absent=NONE),
    ),
    "events": (
        Column("Last Seen", _last_seen),
        text("Type", "type"),
        text("Reason", "reason"),
        Column("Object", _about),
        Column("Message", lambda obj, _: str(obj.get("message") or "").strip()),
    ),
    "deployments.apps": (
        NAME,
        Column("Ready", _desired),
        count("Up-to-date", "status.updatedReplicas"),
        count("Available", "status.availableReplicas"),
        AGE,
    ),
    "daemonsets.apps": (
        NAME,
        count("Desired", "status.desiredNumberScheduled"),
        count("Current", "status.currentNumberScheduled"),
        count("Ready", "status.numberReady"),
        count("Up-to-date", "status.updatedNumberScheduled"),
        count("Available", "status.numberAvailable"),
        AGE,
    ),
}
"""By storage key. Other kinds have name and age."""


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
    """Return the columns of a type; name and age of one that has none."""
    if kind.columns:
        return NAME, *map(_column, kind.columns)
    return COLUMNS.get(kind.key, (NAME, AGE))


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

"""The row of a pod: above all its status, which is put together from those of its containers.

As printPod in https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/printers/internalversion/printers.go
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.storage import field_of
from podidentity_sandbox.cluster.tables.ages import since
from podidentity_sandbox.cluster.tables.columns import AGE, NAME, NONE, Column, text

ENDED = ("Succeeded", "Failed")


def _status(obj: Obj, _: datetime) -> str:
    state = obj.get("status", {})
    reason = state.get("reason") or state.get("phase") or ""
    if any(c.get("reason") == "SchedulingGated" for c in _conditions(obj, "PodScheduled")):
        reason = "SchedulingGated"
    reason = _initial(obj) or _running(obj, reason)
    if "deletionTimestamp" not in obj["metadata"]:
        return reason
    if state.get("reason") == "NodeLost":
        return "Unknown"
    return reason if state.get("phase") in ENDED else "Terminating"


def _initial(obj: Obj) -> str:
    """Return what the first init container does that is not done; "" when all are."""
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
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended['exitCode']}"


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


def _gates(obj: Obj, _: datetime) -> str:
    gates = field_of(obj, "spec.readinessGates")
    if not isinstance(gates, list) or not gates:
        return NONE
    wanted = [gate.get("conditionType", "") for gate in gates]
    true = [w for w in wanted if any(c.get("status") == "True" for c in _conditions(obj, w))]
    return f"{len(true)}/{len(gates)}"


COLUMNS = (
    NAME,
    Column(
        name="Ready",
        cell=_ready,
        description="The aggregate readiness state of this pod for accepting traffic.",
    ),
    Column(
        name="Status",
        cell=_status,
        description="The aggregate status of the containers in this pod.",
    ),
    Column(
        name="Restarts",
        cell=_restarts,
        description=(
            "The number of times the containers in this pod have been restarted and when the last "
            "container in this pod has restarted."
        ),
    ),
    AGE,
    text("IP", "status.podIP", wide=True, absent=NONE),
    text("Node", "spec.nodeName", wide=True, absent=NONE),
    text("Nominated Node", "status.nominatedNodeName", wide=True, absent=NONE),
    Column(name="Readiness Gates", cell=_gates, wide=True),
)

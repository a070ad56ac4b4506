"""What a pod's resources come to: requests that follow from limits, and its class of service.

https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
"""

from __future__ import annotations

from podidentity_sandbox.cluster.jsontypes import Obj

_COUNTED = ("cpu", "memory")


def default_requests(spec: Obj) -> None:
    """Request what is the limit, where a container names no request: SetDefaults_Pod."""
    for container in _containers(spec):
        resources = container.get("resources", {})
        for name, limit in resources.get("limits", {}).items():
            resources.setdefault("requests", {}).setdefault(name, limit)


def qos_class(spec: Obj) -> str:
    """Return the class of a pod's spec, whose defaults are filled in."""
    asked = [container.get("resources", {}) for container in _containers(spec)]
    counted = [
        {kind: _part(resources.get(kind, {})) for kind in ("limits", "requests")}
        for resources in asked
    ]
    if not any(each["limits"] or each["requests"] for each in counted):
        return "BestEffort"
    whole = all(
        len(each["limits"]) == len(_COUNTED) and each["limits"] == each["requests"]
        for each in counted
    )
    return "Guaranteed" if whole else "Burstable"


def _part(amounts: Obj) -> Obj:
    return {name: str(amounts[name]) for name in _COUNTED if name in amounts}


def _containers(spec: Obj) -> list[Obj]:
    return [*spec.get("initContainers", []), *spec.get("containers", [])]

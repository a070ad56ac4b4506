"""Which nodes a pod may run on: selector, required affinity and taints.

https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
Resources are not counted: the sandbox's nodes are namespaces on one machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.selectors import satisfies
from podidentity_sandbox.cluster.storage import field_of

NOT_READY = "node.kubernetes.io/not-ready"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_REQUIRED = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"


def ready(obj: Obj) -> bool:
    """Whether a node, or a pod, has the condition Ready."""
    conditions = field_of(obj, "status.conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def fits(pod: Obj, node: Obj) -> bool:
    """Whether a pod may be placed on a node."""
    spec = pod["spec"]
    return (
        "deletionTimestamp" not in node["metadata"]
        and selected(spec, node)
        and all(tolerated(spec, taint) for taint in taints(node))
    )


def obstacle(pod: Obj, node: Obj) -> str:
    """Return why a pod may not be placed on a node, as the scheduler says it; "" if it may.

    Words of the plugins of pkg/scheduler/framework/plugins, in the order in which they are asked.
    """
    spec = pod["spec"]
    for taint in taints(node):
        if taint["key"] == UNSCHEDULABLE and not tolerated(spec, taint):
            return "node(s) were unschedulable"
    for taint in taints(node):
        if not tolerated(spec, taint):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not selected(spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def host_ports(pod: Obj) -> set[tuple[str, int]]:
    """Return the ports of its node that a pod declares: protocol and number.

    On every address of the node: `hostIP` is not looked at.
    """
    return {
        (port.get("protocol", "TCP"), port["hostPort"])
        for container in pod["spec"].get("containers", [])
        for port in container.get("ports", [])
        if port.get("hostPort")
    }


def selected(spec: Obj, node: Obj) -> bool:
    """Whether a pod's spec wants a node: nodeSelector and required node affinity."""
    labels = node["metadata"].get("labels", {})
    wanted = spec.get("nodeSelector", {})
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    required = field_of(spec, _REQUIRED)
    if required is None:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        all(satisfies(rule, labels) for rule in term.get("matchExpressions", []))
        and all(satisfies(rule, fields) for rule in term.get("matchFields", []))
        for term in required.get("nodeSelectorTerms", [])
        if term
    )


def taints(node: Obj) -> Iterator[Obj]:
    """Yield the taints that keep pods away, those of its state included."""
    for taint in field_of(node, "spec.taints") or []:
        if taint.get("effect") in ("NoSchedule", "NoExecute"):
            yield taint
    if not ready(node):
        yield {"key": NOT_READY, "effect": "NoSchedule"}
    if field_of(node, "spec.unschedulable"):
        yield {"key": UNSCHEDULABLE, "effect": "NoSchedule"}


def tolerated(spec: Obj, taint: Obj) -> bool:
    """Whether a pod's spec tolerates a taint."""
    for toleration in spec.get("tolerations", []):
        key, effect = toleration.get("key"), toleration.get("effect")
        if (key and key != taint["key"]) or (effect and effect != taint["effect"]):
            continue
        exists = toleration.get("operator", "Equal") == "Exists"
        if exists or (key and toleration.get("value", "") == taint.get("value", "")):
            return True
    return False

"""Nodes: whom NMI serves, whose packets pass it, and what closes a node while it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from podidentity.cli import local_redirect
from podidentity.cli.checks.findings import CheckReason, Finding, Severity, named
from podidentity.cli.enable import CRITICAL
from podidentity.cli.objects import Object
from podidentity.cli.rollout import lasts
from podidentity.core.data_path import Backend
from podidentity.core.resources import ObjectRef
from podidentity.wire.events import AgentReason


def closed_while_starting(
    pods: Sequence[Object], events: Sequence[Object], now: float
) -> dict[str, str]:
    """Return for each node with NMI what closes it while NMI does not run; "" if nothing is known.

    `now` in seconds since 1970.
    """
    nodes = {each["metadata"]["uid"]: each["spec"].get("nodeName", "") for each in pods}
    found = dict.fromkeys(filter(None, nodes.values()), "")
    for each in events:
        node = nodes.get(each["involvedObject"].get("uid", ""))
        if node and each.get("reason") == AgentReason.BOOT_CLOSED and lasts(each, now):
            found[node] = each.get("message", "")
    return found


def open_while_starting(closed_by: Mapping[str, str], taint: str) -> Iterator[Finding]:
    """Yield the nodes that nothing is known to close until NMI is up, as one finding.

    `closed_by` is what `closed_while_starting` returns; `taint` the one that NMI takes off, or "".
    """
    names = sorted(node for node, what in closed_by.items() if not what)
    if names:
        new = "" if taint else " New nodes are open, too: NMI takes no start-up taint off."
        yield Finding(
            kind="Node",
            about=ObjectRef("", names[0]),
            reason=CheckReason.OPEN_START,
            what=f"{named(names)}: after a restart pods reach every identity of the machine until "
            f"NMI is up. Nothing is known that closes them.{new}",
            mend="Close the window: docs/how-to/close-the-boot-window.md has three ways.",
            severity=Severity.WARNING,
        )


def nodes_without(
    daemon_set: Object, pods: Sequence[Object], nodes: Sequence[Object]
) -> Iterator[Finding]:
    """Yield the nodes that have no pod of NMI, those of one kind together.

    Where NMI has never been, nothing stands between a pod and the node's own identities.
    """
    served = {each["spec"].get("nodeName") for each in pods}
    alike: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        if (name := node["metadata"]["name"]) not in served:
            alike.setdefault(why_without(daemon_set, node), []).append(name)
    for (why, mend), names in sorted(alike.items()):
        names.sort()
        yield Finding(
            kind="Node",
            about=ObjectRef("", names[0]),
            reason=CheckReason.NO_AGENT,
            what=f"{named(names)}: {why}. Their pods get no token. Where NMI has never "
            "been, they reach IMDS itself and every identity of the machine, unless something else "
            "closes it.",
            mend=mend,
        )


def why_without(daemon_set: Object, node: Object) -> tuple[str, str]:
    labels = node["metadata"].get("labels") or {}
    if labels.get("kubernetes.io/os", "linux") != "linux":
        return (
            f"NMI does not run on {labels['kubernetes.io/os'].capitalize()}",
            "Give the machines of such nodes no identity that their pods may not have.",
        )
    if labels.get("type") == "virtual-kubelet":
        return (
            "a virtual node runs no DaemonSet",
            "Pods there are machines of their own: give them identities by their group.",
        )
    if (taint := untolerated(daemon_set, node)) is not None:
        return f"NMI does not tolerate the taint {_written(taint)}", _mend_taint(taint)
    wanted = daemon_set["spec"]["template"]["spec"].get("nodeSelector") or {}
    lacking = [f"{key}={value}" for key, value in wanted.items() if labels.get(key) != value]
    if lacking:
        return (
            f"NMI's DaemonSet has the nodeSelector {', '.join(lacking)}",
            "Label the node so, or change the nodeSelector.",
        )
    return (
        "there is no pod of NMI",
        "See kubectl describe daemonset -n "
        f"{daemon_set['metadata']['namespace']} {daemon_set['metadata']['name']}.",
    )


_ADDED = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": effect}
    for effect, states in {
        "NoExecute": ("not-ready", "unreachable"),
        "NoSchedule": (
            *("disk-pressure", "memory-pressure", "pid-pressure"),
            *("unschedulable", "network-unavailable"),
        ),
    }.items()
    for state in states
]
"""What the DaemonSet's controller has its pods tolerate, those of the node's network.

https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations
"""


def untolerated(daemon_set: Object, node: Object) -> Object | None:
    """Return the first taint of a node that keeps the DaemonSet's pods away; None if none does."""
    known = [*_ADDED, *(daemon_set["spec"]["template"]["spec"].get("tolerations") or [])]
    for taint in node.get("spec", {}).get("taints") or []:
        keeps = taint["effect"] in {"NoSchedule", "NoExecute"}
        if keeps and not _tolerated(taint, known):
            found: Object = taint
            return found
    return None


def _tolerated(taint: Object, tolerations: Sequence[Object]) -> bool:
    """Whether one of them matches, as the scheduler sees it: no key, or no effect, is each."""
    return any(
        each.get("key", "") in {"", taint["key"]}
        and each.get("effect", "") in {"", taint["effect"]}
        and (each.get("operator") == "Exists" or each.get("value", "") == taint.get("value", ""))
        for each in tolerations
    )


def _written(taint: Object) -> str:
    of = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{of}:{taint['effect']}"


def _mend_taint(taint: Object) -> str:
    if taint["key"] == CRITICAL:
        return (
            "Where AKS refuses pods that tolerate it (Automatic), these nodes are for its own: let "
            "it close IMDS on them (--enable-imds-restriction). Elsewhere run podidentity enable "
            "without a --profile: NMI tolerates every taint then."
        )
    return (
        f"Add --toleration={_written(taint)} to the flags of podidentity enable, and run it again."
    )


def host_routed(nodes: Sequence[Object], told: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the nodes with eBPF host routing, by the label that AKS gives them.

    But for those where Cilium leads requests to NMI, as that has `told`.

    https://learn.microsoft.com/azure/aks/container-network-performance-ebpf-host-routing
    """
    found = (each["metadata"] for each in nodes)
    names = sorted(
        each["name"]
        for each in found
        if (each.get("labels") or {}).get("kubernetes.azure.com/ebpf-host-routing") == "true"
        and told.get(each["name"]) != Backend.LRP
    )
    if names:
        yield Finding(
            kind="Node",
            about=ObjectRef("", names[0]),
            reason=CheckReason.HOST_ROUTING,
            what=f"{named(names)}: eBPF host routing is on, by the node's label. It sends packets "
            "of pods past NMI's redirection: they get no token, and only a route closes IMDS.",
            mend="Run podidentity enable --backend=lrp, or set the acceleration mode of the "
            "cluster's container networking services to None; see docs/reference/nodes.md.",
        )


def of_denial(told: Mapping[str, str], *, denied: bool) -> Iterator[Finding]:
    """Yield what is wrong about the policy that denies IMDS to pods, or about its absence.

    `told` is what leads requests to NMI on each node.
    """
    others = sorted(node for node, backend in told.items() if backend == Backend.NFTABLES)
    known = set(told.values()) == {Backend.LRP}
    mend = "Run podidentity enable --backend=lrp again: it {}."
    if denied and others:
        yield Finding(
            kind="CiliumClusterwideNetworkPolicy",
            about=local_redirect.DENIAL,
            reason=CheckReason.CUTS_OFF,
            what=f"On {named(others)} pods' requests come by the node's rules, and the policy "
            "denies them before: where Cilium judges it there, pods get no token.",
            mend=mend.format("takes the policy away"),
        )
    elif known and not denied:
        yield Finding(
            kind="CiliumClusterwideNetworkPolicy",
            about=local_redirect.DENIAL,
            reason=CheckReason.FAILS_OPEN,
            what="It is not there: where NMI is not ready, Cilium sends requests on to IMDS, and "
            "only NMI's routing rules close it.",
            mend=mend.format("makes the policy"),
        )

"""What can be known of a cluster before NMI is in it: `podidentity check --pre`.

How packets go on a node, and whether a probe arrives, only NMI sees there: what cannot be known
before says so, with the command that tells it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from podidentity.cli.checks.findings import CheckReason, Finding, Severity, named, of_daemon_set
from podidentity.cli.checks.programs import worded
from podidentity.cli.cluster_rights import Single
from podidentity.cli.objects import Object, ref_of
from podidentity.cli.rollout import DAEMON_SET, is_archived_nmi, is_ours, release_of
from podidentity.core.resources import ObjectRef

_ENFORCE = "pod-security.kubernetes.io/enforce"
OLDEST = 22
"""Minor version of the oldest Kubernetes that serves what the manifests have."""


def version(minor: int) -> Iterator[Finding | str]:
    """Yield what the API server's version allows; `minor` is 36 of 1.36, 0 of an unknown one."""
    if not minor:
        yield "It does not say its version."
        return
    yield f"Kubernetes 1.{minor}"
    if minor < OLDEST:
        yield Finding(
            kind="Cluster",
            about=ObjectRef("", "version"),
            reason=CheckReason.TOO_OLD,
            what=f"It is Kubernetes 1.{minor}: NMI's manifests need 1.{OLDEST}.",
            mend="Update the cluster first.",
        )


def caller_lacks(has: Mapping[Single, bool]) -> Iterator[Finding]:
    """Yield the rights that `enable` needs and the person lacks, as one finding."""
    missing = [right for right, allowed in has.items() if not allowed]
    if missing:
        yield Finding(
            kind="Cluster",
            about=ObjectRef("", "enable"),
            reason=CheckReason.LACKS_RIGHTS,
            what=f"You may not {named(worded(missing), 'verbs')}: podidentity enable would stop "
            "there.",
            mend="Have a cluster administrator run it, or grant what podidentity rights enable -o "
            "yaml prints.",
        )


def conflicts(daemon_sets: Sequence[Object], namespace: str) -> Iterator[Finding]:
    """Yield what `enable` would not change or replace, and beside what it would come.

    `namespace` is that of NMI.
    """
    for each in daemon_sets:
        where = ref_of(each)
        of_our_name = where == ObjectRef(namespace, DAEMON_SET)
        if is_archived_nmi(each) and of_our_name:
            yield of_daemon_set(
                each,
                CheckReason.CONFLICT,
                "It is NMI of AAD Pod Identity, and has the name of ours: enable makes nothing.",
                "Run podidentity enable: it says in which order its pods go on until ours are "
                "there. Or choose another --namespace.",
            )
        elif is_archived_nmi(each):
            yield of_daemon_set(
                each,
                CheckReason.ARCHIVED,
                "It is NMI of AAD Pod Identity: enable comes beside it, and gets each new "
                "connection of the pods of a node where both are.",
                "Run podidentity migrate plan first, which says whom the rules here would "
                "refuse: docs/how-to/take-over.md.",
                Severity.WARNING,
            )
        elif is_ours(each) and (release := release_of(each)) and where.name != "podidentity-probe":
            yield of_daemon_set(
                each,
                CheckReason.CONFLICT,
                f"NMI is here already, of Helm release {release}: enable changes nothing of it.",
                "Use helm upgrade.",
            )
        elif of_our_name and not is_ours(each):
            yield of_daemon_set(
                each,
                CheckReason.CONFLICT,
                "Something else has the name of NMI's DaemonSet there.",
                "Choose another namespace: podidentity enable --namespace.",
            )


PORTS = {2579, 8085, 9090, 9447}
"""Of a node, that NMI listens at by its default flags."""


def ports_taken(daemon_sets: Sequence[Object]) -> Iterator[Finding]:
    """Yield who has a port of the nodes that NMI wants, by what DaemonSets declare."""
    for each in daemon_sets:
        spec = each["spec"]["template"]["spec"]
        if is_ours(each) or is_archived_nmi(each):
            continue
        field = "containerPort" if spec.get("hostNetwork") else "hostPort"
        taken = sorted(
            PORTS.intersection(
                port.get(field, 0)
                for container in spec["containers"]
                for port in container.get("ports") or ()
            )
        )
        if taken:
            yield of_daemon_set(
                each,
                CheckReason.PORT_TAKEN,
                f"It has port {', '.join(map(str, taken))} of the nodes: NMI listens there.",
                "Give NMI other ports (--nmi-port, --http-probe-port, --prometheus-port, "
                "--metrics-secure-port).",
                Severity.WARNING,
            )


def automatic(binding: Object | None) -> Iterator[Finding]:
    """Yield that AKS keeps kube-system to itself, by the policy binding that does it."""
    if binding is not None and "Deny" in (binding["spec"].get("validationActions") or ()):
        yield Finding(
            kind="Cluster",
            about=ObjectRef("", "kube-system"),
            reason=CheckReason.AUTOMATIC,
            what="This is AKS Automatic: it keeps kube-system to itself, and NMI cannot be there.",
            mend="Run podidentity enable --profile aks-automatic.",
            severity=Severity.WARNING,
        )


def pod_security(name: str, namespace: Object | None) -> Iterator[Finding | str]:
    """Yield whether NMI's namespace lets its pods in."""
    if namespace is None:
        yield f"Namespace {name} is not there: enable makes it, and lets NMI's pods in."
        return
    level = (namespace["metadata"].get("labels") or {}).get(_ENFORCE, "")
    if level and level != "privileged":
        yield Finding(
            kind="Namespace",
            about=ObjectRef("", name),
            reason=CheckReason.POD_SECURITY,
            what=f"Pod Security enforces {level} there, and NMI's pods are in the network of their "
            "node, with capabilities: they would not be made.",
            mend=f"Run podidentity enable --namespace {name}, which labels it privileged, or "
            "choose a namespace of NMI's own.",
            severity=Severity.WARNING,
        )


def kinds(nodes: Sequence[Object]) -> Iterator[str]:
    """Yield a line for each kind of node: what is known of it, and what only NMI will know."""
    alike: dict[str, list[str]] = {}
    for each in nodes:
        alike.setdefault(_kind(each), []).append(each["metadata"]["name"])
    for kind, names in sorted(alike.items()):
        yield f"{named(sorted(names))}: {kind}"


def _kind(node: Object) -> str:
    labels = node["metadata"].get("labels") or {}
    info = (node.get("status") or {}).get("nodeInfo") or {}
    if labels.get("type") == "virtual-kubelet":
        return "virtual: it runs no DaemonSet, and its pods are machines of their own"
    system = labels.get("kubernetes.io/os", "linux")
    if system != "linux":
        return f"{system.capitalize()}: NMI does not run there, and pods reach IMDS itself"
    about = ", ".join(
        filter(
            None,
            [
                f"Linux {info.get('kernelVersion', '')}".strip(),
                info.get("osImage", ""),
                info.get("containerRuntimeVersion", ""),
            ],
        )
    )
    return f"{about}. {_plane(labels)}"


def _plane(labels: Mapping[str, str]) -> str:
    """Return what AKS's labels say of a node's network, and what they leave open."""
    if labels.get("kubernetes.azure.com/ebpf-host-routing") == "true":
        return (
            "Plane: eBPF host routing, by its label; it needs --backend=lrp. Whether the probe "
            "arrives is not known before NMI runs."
        )
    if labels.get("kubernetes.azure.com/ebpf-dataplane") == "cilium":
        return (
            "Plane: Cilium, by its label; whether packets pass the node's rules, and whether the "
            "probe arrives, is not known before NMI runs."
        )
    return (
        "Plane, cgroups and whether the probe arrives are not known before NMI runs: podidentity "
        "nodes and podidentity check say them then."
    )


def unreachable(nodes: Sequence[Object]) -> Iterator[Finding]:
    """Yield the nodes that NMI cannot serve, with what their pods reach."""
    for system, what in (
        ("windows", "NMI does not run on Windows: their pods reach every identity of the machine."),
        ("virtual", "A virtual node runs no DaemonSet: its pods are machines of their own."),
    ):
        names = sorted(each["metadata"]["name"] for each in nodes if _system(each) == system)
        if names:
            yield Finding(
                kind="Node",
                about=ObjectRef("", names[0]),
                reason=CheckReason.NOT_SERVED,
                what=f"{named(names)}: {what}",
                mend="Give the machines of such nodes no identity that their pods may not have."
                if system == "windows"
                else "Give such pods identities by their container group.",
                severity=Severity.WARNING,
            )


def _system(node: Object) -> str:
    labels = node["metadata"].get("labels") or {}
    if labels.get("type") == "virtual-kubelet":
        return "virtual"
    return str(labels.get("kubernetes.io/os", "linux"))

"""NMI itself: what its DaemonSet gives up, where it is not ready, what it warns of by events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from podidentity.cli.checks.findings import (
    CheckReason,
    Finding,
    Severity,
    by_reason,
    first_lines,
    named,
    of_daemon_set,
    sentence,
)
from podidentity.cli.objects import Object, ref_of
from podidentity.cli.rollout import (
    DAEMON_SET,
    Rollout,
    has_one_container,
    lasts,
    ready,
    rollback_of,
    seen,
)
from podidentity.core.attestation import STRICT_TRUST, AttestationMode, Trust
from podidentity.core.resources import ObjectRef, Pod
from podidentity.wire.events import PATH_PROVED, AgentReason


def weaknesses(
    daemon_set: Object, attestation: AttestationMode, trust: Trust = STRICT_TRUST
) -> Iterator[Finding]:
    """Yield what NMI's DaemonSet gives up by how it is written."""
    if has_one_container(daemon_set):
        yield of_daemon_set(
            daemon_set,
            CheckReason.ONE_CONTAINER,
            "Its pods have one container, so serve, which parses pods' requests, is user 0 "
            "(without a capability), and an update interrupts requests.",
            "Run podidentity enable: it makes a container of its own for serve.",
            Severity.WARNING,
        )
    if attestation.weakness:
        what, _, mend = attestation.weakness.partition("; ")
        yield of_daemon_set(
            daemon_set,
            CheckReason.WEAKER_PROOF,
            f"It has --attestation={attestation}: {what}.",
            sentence(mend),
            Severity.WARNING,
        )
    for what, mend in trust.weaknesses():
        yield of_daemon_set(
            daemon_set,
            CheckReason.WEAKER_PROOF,
            f"It has {what}.",
            sentence(mend),
            Severity.WARNING,
        )
    images = {
        each["name"]: each.get("image", "")
        for each in daemon_set["spec"]["template"]["spec"]["containers"]
        if each["name"] in {"serve", "net"}
    }
    if len(set(images.values())) > 1:
        yield of_daemon_set(
            daemon_set,
            CheckReason.TWO_IMAGES,
            f"Its containers have two images, serve {images['serve']} and net {images['net']}: "
            "programs of different versions do not talk with each other.",
            "Give both the same image.",
        )


def no_agent(namespace: str, pods: Sequence[Pod]) -> Finding:
    """Return that NMI is nowhere; `pods` are those with an identity."""
    such_as = f", such as {min(each.ref for each in pods)}" if pods else ""
    return Finding(
        kind="DaemonSet",
        about=ObjectRef(namespace, DAEMON_SET),
        reason=CheckReason.NO_AGENT,
        what=f"NMI is not in this cluster: {len(pods)} pods with an identity get no "
        f"token{such_as}. Where the rules of an earlier NMI have gone, pods reach IMDS itself and "
        "every identity of the machine.",
        mend="Run podidentity enable, or helm install as docs/how-to/install-with-helm.md has it.",
    )


def two_agents(namespace: str, daemon_sets: Sequence[Object]) -> Iterator[Finding]:
    """Yield that NMI is in other namespaces, too: of two on a node, one stands back."""
    others = sorted((ref_of(each) for each in daemon_sets), key=str)
    others = [each for each in others if each.namespace != namespace]
    if others:
        names = " and ".join(each.namespace for each in others)
        yield Finding(
            kind="DaemonSet",
            about=others[0],
            reason=CheckReason.TWO_AGENTS,
            what=f"NMI is also in namespace{'s' * (len(others) > 1)} {names}: a node has one NMI, "
            "and the one that came last serves it, by its own flags.",
            mend="Delete the DaemonSets that you do not want, then run podidentity enable "
            f"--namespace {namespace} or that of the one that stays: they share one "
            "ClusterRoleBinding.",
        )


def tokens_of_any(daemon_set: Object) -> Finding:
    return of_daemon_set(
        daemon_set,
        CheckReason.ANY_TOKENS,
        "NMI may ask for the token of any service account, and so may whoever is root on one of "
        "its nodes; this API server could bound that by the node.",
        "Run podidentity enable: NMI asks as its own node then.",
        Severity.WARNING,
    )


def no_probe(daemon_set: Object, state: Rollout, lines: Sequence[str]) -> Finding:
    """Return the finding about nodes on which the probe pod is not ready; `lines` say why."""
    return of_daemon_set(
        daemon_set,
        CheckReason.NO_PROBE_POD,
        f"The probe pod is ready on {state.ready} of {state.desired} nodes. On the others nothing "
        f"shows where pods' requests arrive, and NMI is not ready. {first_lines(lines)}",
        "Let it run: it needs 10Mi, an address of its own, and NMI's image on each node.",
    )


def not_ready(
    daemon_set: Object, state: Rollout, pods: Sequence[Object], lines: Sequence[str]
) -> Finding:
    """Return on how many nodes NMI is not ready, or that its update is stuck; `lines` say why."""
    waiting = {_node(each) for each in pods} - {_node(each) for each in pods if ready(each)}
    told = first_lines(by_reason(lines))
    if waiting or not lines or not state.desired <= state.ready:
        return of_daemon_set(
            daemon_set,
            CheckReason.NOT_READY,
            f"{state}. {told}",
            "Pods of these nodes may get 503 for an answer: see `/readyz` of a node, or the logs "
            "of its pod, containers serve and net.",
        )
    audit = ", without the audit log that the new one cannot write" * (_AUDIT in told)
    where = ref_of(daemon_set)
    undo = f"kubectl rollout undo daemonset/{where.name} --namespace {where.namespace}"
    back = rollback_of(daemon_set) or undo
    return of_daemon_set(
        daemon_set,
        CheckReason.UPDATE_STUCK,
        f"An update of NMI has not ended. On each node the NMI before it serves on{audit}. The "
        f"new NMI is not ready: {told}",
        f"If it does not go on, correct what the new NMI says, or go back: {back}.",
    )


_AUDIT = "the audit log cannot be written"


def _node(pod: Object) -> str:
    return str(pod["spec"].get("nodeName", ""))


def agent_warnings(
    pods: Sequence[Object], events: Sequence[Object], now: float
) -> Iterator[Finding]:
    """Yield what the agents warn of by events on their own pods: of each kind, all nodes at once.

    `now` in seconds since 1970. An event that is not repeated any more is over, and so is one of a
    pod that has gone.
    """
    mended = _mended(events)
    served = {_node(each) for each in pods if ready(each)}
    # What a new agent lacks while the one before it serves on is no warning of its node.
    pods = [each for each in pods if ready(each) or _node(each) not in served]
    nodes = {each["metadata"]["uid"]: _node(each) for each in pods}
    names = {each["metadata"]["uid"]: ref_of(each) for each in pods}
    alike: dict[tuple[str, str], list[str]] = {}
    for each in events:
        uid, reason = each["involvedObject"].get("uid", ""), each.get("reason", "")
        over = mended.get(uid, 0.0) if reason == AgentReason.PATH_BROKEN else 0.0
        if uid in nodes and reason in _WARNINGS and lasts(each, now) and seen(each) > over:
            alike.setdefault((reason, each.get("message", "")), []).append(uid)
    for (reason, message), uids in sorted(alike.items()):
        where = sorted({nodes[uid] for uid in uids})
        what, _, mend = message.partition("; ")
        yield Finding(
            kind="Pod",
            about=min(names[uid] for uid in uids),
            reason=reason,
            what=f"On {named(where)}: {what}.",
            mend=sentence(mend or "see NMI's log there"),
            severity=Severity.WARNING if reason in _MILD else Severity.ERROR,
        )


_WARNINGS = frozenset(each for each in AgentReason if each.is_warning)
_MILD = _WARNINGS - {
    *(AgentReason.PATH_BROKEN, AgentReason.PATH_UNPROVED),
    *(AgentReason.TOO_MANY_RIGHTS, AgentReason.SOURCES_UNGUARDED, AgentReason.TOKENS_FAIL),
}
"""With these, pods get their own tokens and no others."""


def _mended(events: Sequence[Object]) -> dict[str, float]:
    """Return when the data path of each agent was whole again, by the uid of its pod."""
    found: dict[str, float] = {}
    for each in events:
        if each.get("reason") == PATH_PROVED:
            uid = each["involvedObject"].get("uid", "")
            found[uid] = max(found.get(uid, 0.0), seen(each))
    return found

"""`podidentity check`: what the rules refuse in a cluster, where NMI is weaker than it could be.

The rules themselves judge each identity, binding and exception, with a pod that only the check
invents: so a finding does not depend on the pods of one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import click

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.kube import Kube
from podidentity.cli.agent_choices import Choices, choices_of_nmi
from podidentity.cli.chain import LinkState
from podidentity.cli.connection import ClusterTarget, cluster_options, on_cluster
from podidentity.cli.objects import DAEMON_SETS, Object, find, find_all
from podidentity.cli.output import FORMATS, data, examples, output_option
from podidentity.cli.pod_facts import credentials_of
from podidentity.cli.rollout import (
    DAEMON_SET,
    NAMESPACE,
    PODS_OF_NMI,
    Rollout,
    has_one_container,
    rollout,
    troubles,
)
from podidentity.cli.use_roles import Roles
from podidentity.core.attestation import AttestationMode
from podidentity.core.authorities import KNOWN_AUTHORITIES, Authority
from podidentity.core.ids import ObjectRef
from podidentity.core.matching import (
    Rules,
    exception_of,
    ineffective_exception,
    malformed,
    match,
    unusable,
)
from podidentity.core.permission import Authorization, Use, not_permitted, permission_names
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    Pod,
)
from podidentity.wire.events import AGAIN, COMPONENT, AgentReason
from podidentity.wire.kube import (
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    EVENTS,
    PODS,
    KubeError,
)
from podidentity.wire.manifests import parse_binding, parse_exception, parse_identity
from podidentity.wire.pods import parse_pod


@click.command(
    epilog=examples(
        "podidentity check",
        "podidentity check -o json | jq -r '.[].switch'",
    )
)
@output_option(*FORMATS, default="table")
@cluster_options
@click.pass_context
def check(ctx: click.Context, /, *, target: ClusterTarget, output: str) -> None:
    """Say what in a cluster the rules refuse, and what would let it be; and how NMI itself is.

    Identities that are bound and not granted, secrets and bindings of other namespaces, exceptions
    without effect, unknown authorities, objects and secrets that cannot be used. Before `enable` it
    says what an upgrade would change; then by NMI's own flags. Of NMI: nodes where it is not ready,
    what its nodes warn of, choices that weaken it. Exit code 1: something was found, or you may not
    read who is granted what, or what NMI's nodes say.
    """
    found, unread = on_cluster(target, _findings)
    complete = not unread
    for each in unread:
        click.echo(each, err=True)
    if output != "table":
        click.echo(data([_as_data(each) for each in found], output))
    elif found:
        click.echo("\n\n".join(map(_shown, found)))
    elif complete:
        click.echo("Nothing that the rules refuse.")
    else:
        click.echo("Nothing else that the rules refuse.")
    ctx.exit(1 if found or not complete else 0)


_NO_GRANTS = f"whether identities are granted could not be checked: that takes {Roles.RIGHT}"
_NO_AGENTS = (
    "how NMI is on its nodes could not be checked: that takes the right to get daemonsets and list "
    f"pods and events in {NAMESPACE}"
)


async def _findings(kube: Kube) -> tuple[list[Finding], list[str]]:
    """Return what is found, and what could not be looked at, each as a line."""
    exceptions = await kube.list_all(AZURE_POD_IDENTITY_EXCEPTIONS.path())
    parsed = [parse_exception(each) for each in exceptions.items]
    cluster = WatchedCluster.of(
        SystemClock(),
        pods=map(parse_pod, (await kube.list_all(PODS.path())).items),
        identities=map(parse_identity, (await kube.list_all(AZURE_IDENTITIES.path())).items),
        bindings=map(parse_binding, (await kube.list_all(AZURE_IDENTITY_BINDINGS.path())).items),
    )
    choices = await choices_of_nmi(kube)
    asked = choices.authorization is not Authorization.OFF
    roles = await Roles.read(kube) if asked else None

    def lacking(namespace: str, identity: AzureIdentity) -> list[str]:
        return roles.lacking(namespace, permission_names(identity)) if roles else []

    found = findings(cluster, parsed, choices.rules, lacking)
    if choices.authorization is Authorization.OBSERVE:
        found = [_only_told(each) for each in found]
    usable = usable_identities(cluster, choices.rules)
    facts = await credentials_of(kube, usable, choices.identities_namespace)
    broken = [(ref, fact) for ref, fact in sorted(facts.items()) if fact.state is LinkState.BROKEN]
    told = [*found, *(cannot_sign_in(ref, fact.text) for ref, fact in broken)]
    unread = [_NO_GRANTS] if asked and roles is None else []
    try:
        told += await _of_agents(kube, choices)
    except KubeError as error:
        if not error.forbidden:
            raise
        unread.append(_NO_AGENTS)
    return told, unread


async def _of_agents(kube: Kube, choices: Choices) -> list[Finding]:
    """Return what is wrong with NMI itself; [] where there is none."""
    daemon_set = await find(kube, DAEMON_SETS, NAMESPACE, DAEMON_SET)
    if daemon_set is None:
        return []
    found = list(weaknesses(daemon_set, choices.attestation))
    state = rollout(daemon_set)
    if not state.done:
        found.append(_not_ready(state, await troubles(kube)))
    pods = await find_all(kube, PODS, NAMESPACE, labelSelector=PODS_OF_NMI)
    events = await find_all(kube, EVENTS, NAMESPACE, fieldSelector=_AGENTS_EVENTS)
    return [*found, *agent_warnings(pods, events, SystemClock().time())]


def _only_told(finding: Finding) -> Finding:
    """Return it without a switch that is on already, if it is about a grant."""
    if finding.reason != Reason.NOT_PERMITTED.value:
        return finding
    return replace(
        finding, what=f"{finding.what} NMI tells it only, by {finding.switch}.", switch=""
    )


def _shown(finding: Finding) -> str:
    head = f"{finding.kind} {finding.about} ({finding.reason})"
    switch = [f"  or, for all of the cluster: {finding.switch}"] if finding.switch else []
    return "\n".join([head, f"  {finding.what}", f"  {finding.mend}", *switch])


def _as_data(finding: Finding) -> dict[str, str]:
    return {
        "kind": finding.kind,
        "namespace": finding.about.namespace,
        "name": finding.about.name,
        "reason": finding.reason,
        "message": finding.what,
        "nextStep": finding.mend,
        "switch": finding.switch,
    }


SWITCHES = {
    Reason.OTHER_NAMESPACE: "--compat-cross-namespace",
    Reason.FOREIGN_SECRET: "--compat-foreign-secrets",
}
"""NMI's flag that brings the old rule back, for all of the cluster."""
_AGENTS_EVENTS = f"involvedObject.kind=Pod,source={COMPONENT}"
_MOST_NODES = 5
"""Named in one finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that the rules refuse, or that NMI gives up or lacks."""

    kind: str
    about: ObjectRef
    reason: str
    what: str
    """A sentence."""
    mend: str
    """What to do about it, as a sentence."""
    switch: str = ""
    """The flag of NMI that brings the old rule back; "" where there is none."""


Lacking = Callable[[str, AzureIdentity], Sequence[str]]
"""The permissions for want of which no service account of a namespace may use an identity."""


def findings(
    cluster: WatchedCluster,
    exceptions: Sequence[AzurePodIdentityException | Malformed],
    rules: Rules,
    lacking: Lacking,
) -> list[Finding]:
    """Return what the rules refuse, in order of namespace and name, each once."""
    found = [
        *_malformed([*cluster.all_identities(), *cluster.all_bindings(), *exceptions]),
        *_bound(cluster, rules, lacking),
        *_borrowed(cluster, rules, lacking),
        *_elsewhere(cluster, rules),
        *(each for one in exceptions for each in _exception(cluster, one, rules)),
    ]
    return sorted(dict.fromkeys(found), key=lambda each: (each.about, each.kind, each.reason))


def _malformed(values: Sequence[object]) -> Iterator[Finding]:
    for each in values:
        if isinstance(each, Malformed):
            yield _refused(each.kind, replace(malformed(each), about=each.ref))


def _bound(cluster: WatchedCluster, rules: Rules, lacking: Lacking) -> Iterator[Finding]:
    """Yield what keeps bound identities from being used by pods of their namespace."""
    for binding, found, refusal in _bindings(cluster, rules):
        if isinstance(found, AzureIdentity) and refusal is None:
            yield from _not_granted(binding.ref.namespace, found, lacking)
        elif refusal is not None and not isinstance(found, Malformed):
            kind = "AzureIdentityBinding" if found is None else "AzureIdentity"
            authority = found.entra.authority if found and found.entra else None
            yield _refused(kind, refusal, _switch(refusal, rules, authority))


def usable_identities(cluster: WatchedCluster, rules: Rules) -> list[AzureIdentity]:
    """Return the identities that are bound and that the rules let be used, each once."""
    usable = (found for _, found, refusal in _bindings(cluster, rules) if refusal is None)
    return list(dict.fromkeys(each for each in usable if isinstance(each, AzureIdentity)))


def _bindings(
    cluster: WatchedCluster, rules: Rules
) -> Iterator[tuple[AzureIdentityBinding, AzureIdentity | Malformed | None, Refusal | None]]:
    """Yield each binding with its identity, and why that cannot be used, if so."""
    for binding in cluster.all_bindings():
        if not isinstance(binding, Malformed):
            found = cluster.identity(ObjectRef(binding.ref.namespace, binding.identity))
            pod = _any_pod(binding.ref.namespace)
            yield binding, found, unusable(binding, found, pod, rules)


def cannot_sign_in(identity: ObjectRef, why: str) -> Finding:
    """Return the finding of an identity whose secret or account cannot be used."""
    return Finding(
        kind="AzureIdentity",
        about=identity,
        reason="Credential",
        what=f"AzureIdentity {identity} cannot sign in: {why}.",
        mend="Make it, or correct what it holds.",
    )


def _not_granted(namespace: str, identity: AzureIdentity, lacking: Lacking) -> Iterator[Finding]:
    """Yield each permission that is missing: with one of two, an identity is of no use."""
    pod = _any_pod(namespace)
    for name in lacking(namespace, identity):
        use = Use(ObjectRef(namespace, pod.service_account), name)
        yield Finding(
            kind="AzureIdentity",
            about=identity.ref,
            reason=Reason.NOT_PERMITTED.value,
            what=f"No pod of namespace {namespace} may use AzureIdentity {identity.ref}, for want "
            f"of the permission for {name}.",
            mend=not_permitted(pod, identity, use).next_step,
            switch="--authorization=observe",
        )


def _borrowed(cluster: WatchedCluster, rules: Rules, lacking: Lacking) -> Iterator[Finding]:
    """Yield identities of other namespaces that pods are bound to, and were not granted."""
    for pod in cluster.pods():
        for each in match(pod, cluster, rules).entitlements:
            namespace, binding = pod.ref.namespace, each.binding
            if binding is not None and binding.ref.namespace != namespace:
                yield from _not_granted(namespace, each.identity, lacking)


def _elsewhere(cluster: WatchedCluster, rules: Rules) -> Iterator[Finding]:
    """Yield labels of pods that only another namespace has a binding for; once a label."""
    for pod in cluster.pods():
        refusals = match(pod, cluster, rules).refusals
        if refusals and refusals[0].reason is Reason.OTHER_NAMESPACE:
            about = ObjectRef(pod.ref.namespace, f"aadpodidbinding={pod.selector}")
            found = replace(refusals[0], about=about)
            yield _refused("Pod", found, _switch(found, rules))


def _exception(
    cluster: WatchedCluster, exception: AzurePodIdentityException | Malformed, rules: Rules
) -> Iterator[Finding]:
    if isinstance(exception, Malformed):
        return
    namespace = exception.ref.namespace
    pod = replace(_any_pod(namespace), labels=exception.pod_labels)
    if exception_of(pod, [exception], rules) is None:
        idle = ineffective_exception(pod, [exception], rules)
        names = sorted({namespace, *(rules.exception_namespaces or ())})
        switch = f"--exception-namespaces={','.join(names)}" if idle else ""
        yield _refused("AzurePodIdentityException", idle or _empty(exception), switch)
    old = replace(rules, any_label=True)
    by_one = [
        each
        for each in cluster.pods()
        if each.ref.namespace == namespace
        and exception_of(each, [exception], old)
        and not exception_of(each, [exception], rules)
    ]
    if by_one:
        yield Finding(
            kind="AzurePodIdentityException",
            about=exception.ref,
            reason="AnyLabel",
            what=f"Pods that have some of its labels and not all: {len(by_one)}, such as "
            f"{by_one[0].ref}.",
            mend="Leave out of spec.podLabels what its pods do not have.",
            switch="--compat-any-label-exceptions",
        )


def _empty(exception: AzurePodIdentityException) -> Refusal:
    return Refusal(
        reason=Reason.EXCEPTION_IGNORED,
        message=f"AzurePodIdentityException {exception.ref} names no label, and so no pod.",
        next_step="Name labels in spec.podLabels, or delete it.",
        about=exception.ref,
    )


def weaknesses(daemon_set: Object, attestation: AttestationMode) -> Iterator[Finding]:
    """Yield what NMI's DaemonSet gives up by how it is written."""
    if has_one_container(daemon_set):
        yield _of_daemon_set(
            "OneContainer",
            "Its pods have one container, so serve, which parses pods' requests, is user 0 "
            "(without a capability), and an update interrupts requests.",
            "Run podidentity enable: it makes a container of its own for serve.",
        )
    if attestation.weakness:
        what, _, mend = attestation.weakness.partition("; ")
        yield _of_daemon_set(
            "WeakerProof", f"It has --attestation={attestation}: {what}.", _sentence(mend)
        )
    images = {
        each["name"]: each.get("image", "")
        for each in daemon_set["spec"]["template"]["spec"]["containers"]
        if each["name"] in {"serve", "net"}
    }
    if len(set(images.values())) > 1:
        yield _of_daemon_set(
            "TwoImages",
            f"Its containers have two images, serve {images['serve']} and net {images['net']}: "
            "programs of different versions do not talk with each other.",
            "Give both the same image.",
        )


def _not_ready(state: Rollout, lines: Sequence[str]) -> Finding:
    more = f" And {len(lines) - _MOST_NODES} more." if len(lines) > _MOST_NODES else ""
    return _of_daemon_set(
        "NotReady",
        f"{state}. {'; '.join(lines[:_MOST_NODES]).rstrip('.')}.{more}",
        "Pods of these nodes may get 503 for an answer: see `/readyz` of a node, or the logs of "
        "its pod, containers serve and net.",
    )


def agent_warnings(
    pods: Sequence[Object], events: Sequence[Object], now: float
) -> Iterator[Finding]:
    """Yield what the agents warn of by events on their own pods: of each kind, all nodes at once.

    `now` in seconds since 1970. An event that is not repeated any more is over, and so is one of a
    pod that has gone.
    """
    nodes = {each["metadata"]["uid"]: each["spec"].get("nodeName", "") for each in pods}
    names = {each["metadata"]["uid"]: each["metadata"]["name"] for each in pods}
    alike: dict[tuple[str, str], list[str]] = {}
    for each in events:
        uid, reason = each["involvedObject"].get("uid", ""), each.get("reason", "")
        ours = (each.get("source") or {}).get("component") == COMPONENT
        if uid in nodes and ours and reason in set(AgentReason) and _seen(each) > now - 2 * AGAIN:
            alike.setdefault((reason, each.get("message", "")), []).append(uid)
    for (reason, message), uids in sorted(alike.items()):
        where = sorted({nodes[uid] for uid in uids})
        shown = ", ".join(where[:_MOST_NODES])
        more = f" and {len(where) - _MOST_NODES} more nodes" if len(where) > _MOST_NODES else ""
        what, _, mend = message.partition("; ")
        yield Finding(
            kind="Pod",
            about=ObjectRef(NAMESPACE, min(names[uid] for uid in uids)),
            reason=reason,
            what=f"On {shown}{more}: {what}.",
            mend=_sentence(mend or "see NMI's log there"),
        )


def _seen(event: Object) -> float:
    """Return when an event was last written, in seconds since 1970; 0 if it does not say."""
    try:
        return datetime.fromisoformat(event.get("lastTimestamp") or "").timestamp()
    except ValueError:
        return 0.0


def _of_daemon_set(reason: str, what: str, mend: str) -> Finding:
    about = ObjectRef(NAMESPACE, DAEMON_SET)
    return Finding(kind="DaemonSet", about=about, reason=reason, what=what, mend=mend)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _any_pod(namespace: str) -> Pod:
    return Pod(ref=ObjectRef(namespace, "any"), uid="")


def _refused(kind: str, refusal: Refusal, switch: str = "") -> Finding:
    return Finding(
        kind=kind,
        about=refusal.about or ObjectRef("", ""),
        reason=refusal.reason.value,
        what=refusal.message,
        mend=refusal.next_step,
        switch=switch,
    )


def _switch(refusal: Refusal, rules: Rules, authority: Authority | None = None) -> str:
    if refusal.reason is Reason.UNKNOWN_AUTHORITY and authority is not None:
        more = sorted(map(str, {authority, *(rules.authorities - KNOWN_AUTHORITIES)}))
        return f"--authorities={','.join(more)}"
    return SWITCHES.get(refusal.reason, "")

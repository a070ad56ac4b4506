"""`podidentity check`: what the rules refuse in a cluster, where NMI is weaker than it could be.

The rules themselves judge each identity, binding and exception, with a pod that only the check
invents: so a finding does not depend on the pods of one moment.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import click

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.kube import Kube
from podidentity.cli import boot_window, controller, local_redirect
from podidentity.cli.agent_choices import Choices, choices_of_nmi
from podidentity.cli.chain import LinkState
from podidentity.cli.connection import ClusterTarget, cluster_options, on_cluster
from podidentity.cli.enable import CRITICAL, NODE_TOKENS_SINCE
from podidentity.cli.mic import deployments_of_mic
from podidentity.cli.network_policies import Egress, egress_of, policies_of
from podidentity.cli.objects import (
    DAEMON_SETS,
    Object,
    find,
    find_all,
    minor_version,
)
from podidentity.cli.output import FORMATS, data, examples, output_option
from podidentity.cli.parameters import PodRef, agents_option
from podidentity.cli.path_check import PodPath, path_of
from podidentity.cli.pod_facts import credentials_of
from podidentity.cli.proofs import Unproved, unproved
from podidentity.cli.rollout import (
    PODS_OF_PROBE,
    PROBE_SET,
    Rollout,
    has_one_container,
    nmi_of,
    nmis,
    pods_of_nmi,
    ready,
    rollout,
    seen,
    troubles,
)
from podidentity.cli.token_bounds import read_bounds
from podidentity.cli.use_roles import Roles
from podidentity.core.attestation import STRICT_TRUST, AttestationMode, Trust
from podidentity.core.authorities import KNOWN_AUTHORITIES
from podidentity.core.data_path import Backend
from podidentity.core.decision import (
    Authorization,
    Rules,
    Use,
    exception_of,
    ineffective_exception,
    malformed,
    match,
    not_permitted,
    permission_names,
    unusable,
)
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    Authority,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    ObjectRef,
    Pod,
)
from podidentity.manifests import NAMESPACE, NODE_AUDIENCES, POLICY_OF_NMI, asks_for_any
from podidentity.wire.events import (
    AGAIN,
    AGAIN_OF_MIC,
    COMPONENT,
    COMPONENT_OF_MIC,
    PATH_PROVED,
    AgentReason,
    MicReason,
    ProbeReason,
)
from podidentity.wire.kube import (
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    EVENTS,
    NODES,
    PODS,
    KubeError,
)
from podidentity.wire.manifests import parse_binding, parse_exception, parse_identity
from podidentity.wire.pauses import PAUSES, Pauses, parse_pauses
from podidentity.wire.pods import parse_pod


@click.command(
    epilog=examples(
        "podidentity check",
        "podidentity check -o json | jq -r '.[].switch'",
        "podidentity check --pod shop/orders-0",
    )
)
@click.option(
    "--pod",
    "pod",
    type=PodRef(),
    metavar="NAMESPACE/NAME",
    help="Only check where requests from this pod's network arrive, by one that NMI sends itself.",
)
@agents_option
@output_option(*FORMATS, default="table")
@cluster_options
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    target: ClusterTarget,
    pod: ObjectRef | None,
    agents: str | None,
    output: str,
) -> None:
    """List everything that the rules refuse, with the change that would allow it, and NMI's faults.

    It finds identities that are bound and not granted, secrets and bindings of other namespaces,
    exceptions without effect, unknown authorities, objects and secrets that cannot be used,
    audiences that NMI may not ask for, and NetworkPolicies that keep pods from IMDS.
    Before `enable` it shows the effects of an upgrade; afterwards it judges by NMI's own flags.
    Of NMI it finds nodes without it, and where it is not ready, warnings of its nodes, and settings
    that weaken it. On stderr it says what closes each node while it starts.
    Exit code 1: something was found, or you may not read the grants, policies or NMI's state.
    """
    if pod is not None:
        path = on_cluster(target, lambda kube: path_of(kube, pod, agents))
        told = [] if path.arrived else [lost(path)]
        arrived = f"Pod {pod} on node {path.node}: {path.text}."
        people = arrived if path.arrived else _shown(told[0])
        click.echo(people if output == "table" else data(list(map(_as_data, told)), output))
        ctx.exit(1 if told else 0)
    found, unread, of_starts = on_cluster(target, lambda kube: _findings(kube, agents))
    complete = not unread
    for each in (*unread, *of_starts):
        click.echo(each, err=True)
    if output != "table":
        click.echo(data([_as_data(each) for each in found], output))
    elif found:
        click.echo("\n\n".join(map(_shown, found)))
    elif complete:
        click.echo("The rules refuse nothing.")
    else:
        click.echo("The rules refuse nothing else.")
    ctx.exit(1 if found or not complete else 0)


def lost(path: PodPath) -> Finding:
    """Return the finding about a pod whose request did not arrive, or could not be sent."""
    return Finding(
        kind="Pod",
        about=path.pod,
        reason=path.reason,
        what=f"On {path.node}: {path.text}.",
        mend=_sentence(path.next_step or "see NMI's log there, container net"),
    )


_NO_GRANTS = f"could not check which identities are granted: you need {Roles.RIGHT}"
_NO_POLICIES = (
    "could not check whether NetworkPolicies let pods out to IMDS: you need the right to list "
    "networkpolicies"
)
_NO_BOUNDS = (
    "could not check for which audiences NMI may ask: you need the right to get "
    f"validatingadmissionpolicies {POLICY_OF_NMI} and clusterroles {NODE_AUDIENCES}"
)
_NO_AGENTS = (
    "could not check the state of NMI: you need the right to get daemonsets and list pods and "
    "events in {}"
)
_NO_MIC = (
    "could not check MIC: you need the right to list deployments, and where it is to get "
    "configmaps in its namespace"
)
_NO_OTHER_AGENTS = (
    "could not check that NMI is in one namespace alone: you need the right to list daemonsets"
)
_NO_ROLE = "could not check what NMI may do: you need the right to get clusterroles {}"
_NO_DENIAL = (
    "could not check whether a policy denies IMDS: you need the right to get "
    f"ciliumclusterwidenetworkpolicies {local_redirect.DENIAL.name}"
)
_NO_NODES = "could not check that every node has NMI: you need the right to list nodes"


async def _findings(kube: Kube, agents: str | None) -> tuple[list[Finding], list[str], list[str]]:
    """Return the findings, a line for each part of the check that was not possible, and notes."""
    exceptions = await kube.list_all(AZURE_POD_IDENTITY_EXCEPTIONS.path())
    parsed = [parse_exception(each) for each in exceptions.items]
    cluster = WatchedCluster.of(
        SystemClock(),
        pods=map(parse_pod, (await kube.list_all(PODS.path())).items),
        identities=map(parse_identity, (await kube.list_all(AZURE_IDENTITIES.path())).items),
        bindings=map(parse_binding, (await kube.list_all(AZURE_IDENTITY_BINDINGS.path())).items),
    )
    choices = await choices_of_nmi(kube, agents)
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
    unread += [
        f"could not check whether AzureIdentity {ref} can sign in: {fact.text}"
        for ref, fact in sorted(facts.items())
        if fact.state is LinkState.UNKNOWN
    ]
    policies = await policies_of(kube, "")
    if policies is None:
        unread.append(_NO_POLICIES)
    told += closed_by_policies(cluster, parsed, policies or (), choices)
    told += not_provable(cluster, parsed, choices)
    asking = list(_asking(cluster, parsed, choices))
    for look, lost in (
        (partial(_of_audiences, usable), _NO_BOUNDS),
        (_of_agents, _NO_AGENTS.format(choices.namespace)),
        (_of_other_agents, _NO_OTHER_AGENTS),
        (_of_mic, _NO_MIC),
        (_of_rights, _NO_ROLE.format(choices.account)),
        (_of_nodes, _NO_NODES),
        (_of_policies, _NO_DENIAL),
        (partial(_of_pods, asking), _NO_AGENTS.format(choices.namespace)),
    ):
        try:
            async for each in look(kube, choices):
                told.append(each)
        except KubeError as error:
            if not error.forbidden:
                raise
            unread.append(lost)
    return told, unread, await _of_starts(kube, choices)


async def _of_audiences(
    identities: Sequence[AzureIdentity], kube: Kube, choices: Choices
) -> AsyncIterator[Finding]:
    """Yield the identities with an audience that NMI may not ask for; raise KubeError."""
    bounds = await read_bounds(kube, as_node=choices.tokens_as_node)
    for identity in identities:
        if audience := bounds.refused(identity):
            yield unnamed_audience(identity, audience)


async def _of_agents(kube: Kube, choices: Choices) -> AsyncIterator[Finding]:
    """Yield the faults of NMI itself; raise KubeError."""
    daemon_set = await nmi_of(kube, choices.namespace)
    if daemon_set is None:
        return
    for each in weaknesses(daemon_set, choices.attestation, choices.trust):
        yield each
    state = rollout(daemon_set)
    if not state.done:
        name = daemon_set["metadata"]["name"]
        yield _not_ready(daemon_set, state, await troubles(kube, choices.namespace, name=name))
    pods = await pods_of_nmi(kube, choices.namespace)
    events = await find_all(kube, EVENTS, choices.namespace, fieldSelector=_AGENTS_EVENTS)
    for each in agent_warnings(pods, events, SystemClock().time()):
        yield each
    probe = await find(kube, DAEMON_SETS, choices.namespace, PROBE_SET)
    if probe is not None and not rollout(probe).done:
        lines = await troubles(kube, choices.namespace, PODS_OF_PROBE, PROBE_SET)
        yield no_probe(probe, rollout(probe), lines)


async def _of_other_agents(kube: Kube, choices: Choices) -> AsyncIterator[Finding]:
    """Yield that NMI is in other namespaces, too; raise KubeError."""
    everywhere = await nmis(kube)
    if any(each["metadata"]["namespace"] == choices.namespace for each in everywhere):
        for each in two_agents(choices.namespace, everywhere):
            yield each


async def _of_mic(kube: Kube, choices: Choices) -> AsyncIterator[Finding]:
    """Yield what keeps identities from following pods; raise KubeError."""
    ours = await deployments_of_mic(kube)
    if not ours:
        if choices.rules.standard and not await controller.archived_mics(kube):
            yield Finding(
                kind="Deployment",
                about=ObjectRef(choices.namespace, controller.DEPLOYMENT),
                reason="NoController",
                what="NMI is in standard mode, and no MIC is there: requests of pods wait in vain.",
                mend="Run podidentity enable --mic, or give NMI --operation-mode=managed.",
            )
        return
    for each in ours:
        async for finding in _of_deployment(kube, each):
            yield finding
    for found in await find_all(kube, AZURE_IDENTITIES):
        for finding in not_attached(found):
            yield finding


async def _of_deployment(kube: Kube, deployment: Object) -> AsyncIterator[Finding]:
    """Yield what keeps one MIC from its work; raise KubeError."""
    where = _ref(deployment)
    if not deployment.get("status", {}).get("readyReplicas"):
        yield mic_not_ready(where, await controller.troubles(kube, where.namespace))
    pauses = parse_pauses(await find(kube, CONFIG_MAPS, where.namespace, PAUSES))
    if pauses.all or pauses.hosts:
        yield mic_paused(where, pauses)
    pods = await controller.pods(kube, where.namespace)
    events = await find_all(kube, EVENTS, where.namespace, fieldSelector=_EVENTS_OF_MIC)
    for finding in mic_warnings(pods, events, SystemClock().time()):
        yield finding


def mic_not_ready(where: ObjectRef, lines: Sequence[str]) -> Finding:
    """Return that no replica of MIC is ready, with the reason of the first."""
    return Finding(
        kind="Deployment",
        about=where,
        reason="ControllerNotReady",
        what=f"No replica of MIC is ready: {_first(lines)}",
        mend=f"See kubectl logs -n {where.namespace} deployment/{where.name}.",
    )


def mic_paused(where: ObjectRef, pauses: Pauses) -> Finding:
    """Return that an operator has paused MIC."""
    return Finding(
        kind="Deployment",
        about=where,
        reason="ControllerPaused",
        what=str(pauses),
        mend="Run podidentity mic resume.",
    )


_OF_AZURE = {"Denied", "Forbidden", "RefusedByAzure"}
"""Reasons of MIC's condition of an AzureIdentity that Azure has given, and the rules have not."""


def not_attached(identity: Object) -> Iterator[Finding]:
    """Yield why Azure does not let MIC attach an identity, by its condition."""
    for each in (identity.get("status") or {}).get("conditions") or ():
        if (each.get("type"), each.get("status")) != ("Ready", "False"):
            continue
        if each.get("reason") in _OF_AZURE:
            yield Finding(
                kind="AzureIdentity",
                about=_ref(identity),
                reason=each["reason"],
                what=_sentence(str(each.get("message", ""))),
                mend="MIC tries again by itself when that is mended.",
            )


async def _of_rights(kube: Kube, choices: Choices) -> AsyncIterator[Finding]:
    """Yield the rights that NMI need not have on this API server; raise KubeError."""
    daemon_set = await nmi_of(kube, choices.namespace)
    if daemon_set is None or await minor_version(kube) < NODE_TOKENS_SINCE:
        return
    role = await find(kube, CLUSTER_ROLES, "", choices.account)
    if role is not None and any(map(asks_for_any, role.get("rules") or ())):
        yield _tokens_of_any(daemon_set)


async def _of_nodes(kube: Kube, choices: Choices) -> AsyncIterator[Finding]:
    """Yield the nodes without NMI, and those whose pods may pass its rules; raise KubeError."""
    daemon_set = await nmi_of(kube, choices.namespace)
    if daemon_set is not None:
        pods = await pods_of_nmi(kube, choices.namespace)
        nodes = await find_all(kube, NODES)
        events = await find_all(kube, EVENTS, choices.namespace, fieldSelector=_AGENTS_EVENTS)
        told = local_redirect.backends(pods, events, SystemClock().time())
        for each in (*nodes_without(daemon_set, pods, nodes), *host_routed(nodes, told)):
            yield each


async def _of_policies(kube: Kube, choices: Choices) -> AsyncIterator[Finding]:
    """Yield what is wrong with the policy that denies IMDS; raise KubeError."""
    if choices.backend is Backend.LRP:
        denied = await local_redirect.denial_is_there(kube)
        pods = await pods_of_nmi(kube, choices.namespace)
        events = await find_all(kube, EVENTS, choices.namespace, fieldSelector=_AGENTS_EVENTS)
        told = local_redirect.backends(pods, events, SystemClock().time())
        for each in of_denial(told, denied=denied):
            yield each


async def _of_pods(asking: Sequence[Pod], kube: Kube, choices: Choices) -> AsyncIterator[Finding]:
    """Yield the pods with an identity whose requests do not come to NMI; raise KubeError."""
    pods = await pods_of_nmi(kube, choices.namespace)
    if not pods:
        return  # that NMI is on no node is said elsewhere, and there is nobody who could tell more
    events = await find_all(kube, EVENTS, choices.namespace, fieldSelector=_AGENTS_EVENTS)
    told = local_redirect.backends(pods, events, SystemClock().time())
    serving = {each["spec"].get("nodeName") for each in pods if ready(each)}
    silent = {node for node, backend in told.items() if not backend and node not in serving}
    for each in without_tokens(asking, silent):
        yield each


async def _of_starts(kube: Kube, choices: Choices) -> list[str]:
    """Return what closes nodes while they start, for a terminal; raise KubeError."""
    try:
        pods = await pods_of_nmi(kube, choices.namespace)
        events = await find_all(kube, EVENTS, choices.namespace, fieldSelector=_AGENTS_EVENTS)
    except KubeError as error:
        if not error.forbidden:
            raise
        return []  # it is said already that this was not possible
    now = SystemClock().time()
    told = closed_while_starting(pods, events, now)
    return [
        *local_redirect.lines(local_redirect.backends(pods, events, now)),
        *boot_window.lines(choices.startup_taint, told),
    ]


def _only_told(finding: Finding) -> Finding:
    """Return a finding about a grant without its flag, which NMI has already."""
    if finding.reason != Reason.NOT_PERMITTED.value:
        return finding
    return replace(
        finding, what=f"{finding.what} NMI only reports it ({finding.switch}).", switch=""
    )


def _shown(finding: Finding) -> str:
    about = finding.about if finding.about.namespace else finding.about.name
    head = f"{finding.kind} {about} ({finding.reason})"
    if finding.reason in {OPEN_NODE, HOST_ROUTING, AgentReason.PATH_BROKEN, ProbeReason.LOST}:
        head = click.style(head, fg="red", bold=True)
    switch = (
        [f"  or start NMI, for the whole cluster, with {finding.switch}"] if finding.switch else []
    )
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
"""NMI's flag that brings the archived project's rule back, for the whole cluster."""
_AGENTS_EVENTS = f"involvedObject.kind=Pod,source={COMPONENT}"
_REASONS_OF_MIC = {each.value for each in MicReason}
_EVENTS_OF_MIC = f"involvedObject.kind=Pod,source={COMPONENT_OF_MIC}"
_MOST_NODES = 5
"""Named in one finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An object that the rules refuse, or a fault of NMI."""

    kind: str
    about: ObjectRef
    reason: str
    what: str
    """The reason, as a sentence."""
    mend: str
    """The next step, as a sentence."""
    switch: str = ""
    """The flag of NMI that would allow it; "" if none does."""


Lacking = Callable[[str, AzureIdentity], Sequence[str]]
"""Returns the missing permissions if no service account of a namespace may use an identity."""


def findings(
    cluster: WatchedCluster,
    exceptions: Sequence[AzurePodIdentityException | Malformed],
    rules: Rules,
    lacking: Lacking,
) -> list[Finding]:
    """Return the findings, in order of namespace and name, each once."""
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
    """Yield why pods cannot use the identities that are bound in their namespace."""
    for binding, found, refusal in _bindings(cluster, rules):
        if isinstance(found, AzureIdentity) and refusal is None:
            yield from _not_granted(binding.ref.namespace, found, lacking)
        elif refusal is not None and not isinstance(found, Malformed):
            kind = "AzureIdentityBinding" if found is None else "AzureIdentity"
            authority = found.entra.authority if found and found.entra else None
            yield _refused(kind, refusal, _switch(refusal, rules, authority))


def usable_identities(cluster: WatchedCluster, rules: Rules) -> list[AzureIdentity]:
    """Return the bound identities that the rules allow, each once."""
    usable = (found for _, found, refusal in _bindings(cluster, rules) if refusal is None)
    return list(dict.fromkeys(each for each in usable if isinstance(each, AzureIdentity)))


def _bindings(
    cluster: WatchedCluster, rules: Rules
) -> Iterator[tuple[AzureIdentityBinding, AzureIdentity | Malformed | None, Refusal | None]]:
    """Yield each binding with its identity, and the refusal if that cannot be used."""
    for binding in cluster.all_bindings():
        if not isinstance(binding, Malformed):
            found = cluster.identity(ObjectRef(binding.ref.namespace, binding.identity))
            pod = _any_pod(binding.ref.namespace)
            yield binding, found, unusable(binding, found, pod, rules)


def cannot_sign_in(identity: ObjectRef, why: str) -> Finding:
    """Return the finding about an identity whose Secret or service account cannot be used."""
    return Finding(
        kind="AzureIdentity",
        about=identity,
        reason="Credential",
        what=f"AzureIdentity {identity} cannot sign in: {why}.",
        mend="Create it, or correct its contents.",
    )


def unnamed_audience(identity: AzureIdentity, audience: str) -> Finding:
    """Return the finding about an identity whose tokens the API server will refuse to NMI."""
    return Finding(
        kind="AzureIdentity",
        about=identity.ref,
        reason="AudienceNotNamed",
        what=f"NMI may not ask for tokens for {audience}, the audience of AzureIdentity "
        f"{identity.ref}: pods get 403.",
        mend=f"Add {shlex.quote(f'--token-audience={audience}')} to the flags of podidentity "
        "enable, and run it again.",
    )


def _not_granted(namespace: str, identity: AzureIdentity, lacking: Lacking) -> Iterator[Finding]:
    """Yield each missing permission: an identity may need two."""
    pod = _any_pod(namespace)
    for name in lacking(namespace, identity):
        use = Use(ObjectRef(namespace, pod.service_account), name)
        yield Finding(
            kind="AzureIdentity",
            about=identity.ref,
            reason=Reason.NOT_PERMITTED.value,
            what=f"No pod of namespace {namespace} may use AzureIdentity {identity.ref}: the "
            f"permission for {name} is not granted.",
            mend=not_permitted(pod, identity, use).next_step,
            switch="--authorization=observe",
        )


def _borrowed(cluster: WatchedCluster, rules: Rules, lacking: Lacking) -> Iterator[Finding]:
    """Yield identities of other namespaces that are bound to pods and not granted."""
    for pod in cluster.pods():
        for each in match(pod, cluster, rules).entitlements:
            namespace, binding = pod.ref.namespace, each.binding
            if binding is not None and binding.ref.namespace != namespace:
                yield from _not_granted(namespace, each.identity, lacking)


def _elsewhere(cluster: WatchedCluster, rules: Rules) -> Iterator[Finding]:
    """Yield each label of pods for which only another namespace has a binding, once."""
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
            what=f"Pods with some of its labels but not all: {len(by_one)}, such as "
            f"{by_one[0].ref}.",
            mend="Remove the labels from spec.podLabels that its pods do not have.",
            switch="--compat-any-label-exceptions",
        )


def _empty(exception: AzurePodIdentityException) -> Refusal:
    return Refusal(
        reason=Reason.EXCEPTION_IGNORED,
        message=f"AzurePodIdentityException {exception.ref} names no labels, so it selects no pod.",
        next_step="Name labels in spec.podLabels, or delete it.",
        about=exception.ref,
    )


def closed_by_policies(
    cluster: WatchedCluster,
    exceptions: Sequence[AzurePodIdentityException | Malformed],
    policies: Sequence[Object],
    choices: Choices,
) -> Iterator[Finding]:
    """Yield which policies let no request of pods with an identity out to IMDS, for all at once."""
    by_namespace: dict[str, list[Object]] = {}
    for each in policies:
        by_namespace.setdefault(each["metadata"]["namespace"], []).append(each)
    alike: dict[tuple[str, Egress], list[str]] = {}
    for pod in _asking(cluster, exceptions, choices):
        judging = by_namespace.get(pod.ref.namespace, [])
        if judging:
            egress = egress_of(pod.labels, judging, choices.redirect)
            if egress and not egress.before and not egress.after:
                alike.setdefault((pod.ref.namespace, egress), []).append(str(pod.ref))
    for (namespace, egress), pods in sorted(alike.items(), key=lambda each: each[1]):
        yield Finding(
            kind="NetworkPolicy",
            about=ObjectRef(namespace, egress.policies[0]),
            reason="EgressClosed",
            what=f"No policy of {', '.join(egress.policies)} lets requests out to IMDS: "
            f"{len(pods)} pods with an identity get no answer, such as {min(pods)}.",
            mend=_sentence(f"allow egress to {egress.missing(choices.redirect)}"),
        )


def not_provable(
    cluster: WatchedCluster,
    exceptions: Sequence[AzurePodIdentityException | Malformed],
    choices: Choices,
) -> Iterator[Finding]:
    """Yield why pods with an identity are refused for the way in which their connections are made.

    All pods with the same reason are one finding.
    """
    alike: dict[Unproved, list[ObjectRef]] = {}
    for pod in _asking(cluster, exceptions, choices):
        found = unproved(pod, choices.attestation, choices.trust)
        if found is not None:
            alike.setdefault(found, []).append(pod.ref)
    for found, pods in sorted(alike.items()):
        others = len(pods) - 1
        more = f"{others} more pods" if others > 1 else "one more pod" if others else ""
        yield Finding(
            kind="Pod",
            about=min(pods),
            reason=found.reason.value,
            what=f"It {found.what}{f', as with {more}' if more else ''}: requests are refused.",
            mend=_sentence(found.mend),
        )


def _asking(
    cluster: WatchedCluster,
    exceptions: Sequence[AzurePodIdentityException | Malformed],
    choices: Choices,
) -> Iterator[Pod]:
    """Yield the pods that have an identity, and ask for it over the network."""
    known = [each for each in exceptions if not isinstance(each, Malformed)]
    for pod in cluster.pods():
        if pod.host_network or pod.ended:
            continue
        matched = match(pod, cluster, choices.rules)
        if matched.entitlements or exception_of(pod, known, choices.rules):
            yield pod


def weaknesses(
    daemon_set: Object, attestation: AttestationMode, trust: Trust = STRICT_TRUST
) -> Iterator[Finding]:
    """Yield what NMI's DaemonSet gives up by how it is written."""
    if has_one_container(daemon_set):
        yield _of_daemon_set(
            daemon_set,
            "OneContainer",
            "Its pods have one container, so serve, which parses pods' requests, is user 0 "
            "(without a capability), and an update interrupts requests.",
            "Run podidentity enable: it makes a container of its own for serve.",
        )
    if attestation.weakness:
        what, _, mend = attestation.weakness.partition("; ")
        yield _of_daemon_set(
            daemon_set,
            "WeakerProof",
            f"It has --attestation={attestation}: {what}.",
            _sentence(mend),
        )
    for what, mend in trust.weaknesses():
        yield _of_daemon_set(daemon_set, "WeakerProof", f"It has {what}.", _sentence(mend))
    images = {
        each["name"]: each.get("image", "")
        for each in daemon_set["spec"]["template"]["spec"]["containers"]
        if each["name"] in {"serve", "net"}
    }
    if len(set(images.values())) > 1:
        yield _of_daemon_set(
            daemon_set,
            "TwoImages",
            f"Its containers have two images, serve {images['serve']} and net {images['net']}: "
            "programs of different versions do not talk with each other.",
            "Give both the same image.",
        )


def two_agents(namespace: str, daemon_sets: Sequence[Object]) -> Iterator[Finding]:
    """Yield that NMI is in other namespaces, too: of two on a node, one stands back."""
    others = sorted((_ref(each) for each in daemon_sets), key=str)
    others = [each for each in others if each.namespace != namespace]
    if others:
        names = " and ".join(each.namespace for each in others)
        yield Finding(
            kind="DaemonSet",
            about=others[0],
            reason="TwoAgents",
            what=f"NMI is also in namespace{'s' * (len(others) > 1)} {names}: a node has one NMI, "
            "and the one that came last serves it, by its own flags.",
            mend="Delete the DaemonSets that you do not want, then run podidentity enable "
            f"--namespace {namespace} or that of the one that stays: they share one "
            "ClusterRoleBinding.",
        )


def _tokens_of_any(daemon_set: Object) -> Finding:
    return _of_daemon_set(
        daemon_set,
        "TokensOfAnyPod",
        "NMI may ask for the token of any service account, and so may whoever is root on one of "
        "its nodes; this API server could bound that by the node.",
        "Run podidentity enable: NMI asks as its own node then.",
    )


def no_probe(daemon_set: Object, state: Rollout, lines: Sequence[str]) -> Finding:
    """Return the finding about nodes on which the probe pod is not ready; `lines` say why."""
    return _of_daemon_set(
        daemon_set,
        "NoProbePod",
        f"The probe pod is ready on {state.ready} of {state.desired} nodes. On the others nothing "
        f"shows where pods' requests arrive, and NMI is not ready. {_first(lines)}",
        "Let it run: it needs 10Mi, an address of its own, and NMI's image on each node.",
    )


def _first(lines: Sequence[str]) -> str:
    more = f" And {len(lines) - _MOST_NODES} more." if len(lines) > _MOST_NODES else ""
    return f"{'; '.join(lines[:_MOST_NODES]).rstrip('.')}.{more}"


def _not_ready(daemon_set: Object, state: Rollout, lines: Sequence[str]) -> Finding:
    return _of_daemon_set(
        daemon_set,
        "NotReady",
        f"{state}. {_first(lines)}",
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
    mended = _mended(events)
    nodes = {each["metadata"]["uid"]: each["spec"].get("nodeName", "") for each in pods}
    names = {each["metadata"]["uid"]: _ref(each) for each in pods}
    alike: dict[tuple[str, str], list[str]] = {}
    for each in events:
        uid, reason = each["involvedObject"].get("uid", ""), each.get("reason", "")
        over = mended.get(uid, 0.0) if reason == AgentReason.PATH_BROKEN else 0.0
        if uid in nodes and reason in _WARNINGS and _lasts(each, now) and seen(each) > over:
            alike.setdefault((reason, each.get("message", "")), []).append(uid)
    for (reason, message), uids in sorted(alike.items()):
        where = sorted({nodes[uid] for uid in uids})
        what, _, mend = message.partition("; ")
        yield Finding(
            kind="Pod",
            about=min(names[uid] for uid in uids),
            reason=reason,
            what=f"On {_named(where)}: {what}.",
            mend=_sentence(mend or "see NMI's log there"),
        )


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
        if node and each.get("reason") == AgentReason.BOOT_CLOSED and _lasts(each, now):
            found[node] = each.get("message", "")
    return found


def _lasts(event: Object, now: float) -> bool:
    """Whether an event is the agents', and still repeated."""
    ours = (event.get("source") or {}).get("component") == COMPONENT
    return ours and seen(event) > now - 2 * AGAIN


def mic_warnings(pods: Sequence[Object], events: Sequence[Object], now: float) -> Iterator[Finding]:
    """Yield what keeps MIC from its work in Azure, by the events on its pods.

    `now` in seconds since 1970. Of each reason the newest event counts; one that is not repeated
    any more is over, and so is one of a pod that has gone.
    """
    names = {each["metadata"]["name"]: _ref(each) for each in pods}
    newest: dict[str, Object] = {}
    for each in sorted(events, key=seen):
        ours = (each.get("source") or {}).get("component") == COMPONENT_OF_MIC
        if (
            ours
            and each["involvedObject"].get("name") in names
            and each.get("reason") in _REASONS_OF_MIC
        ):
            newest[each["reason"]] = each
    for reason, each in sorted(newest.items()):
        if seen(each) > now - 2 * AGAIN_OF_MIC:
            what, _, mend = str(each.get("message", "")).partition("; ")
            yield Finding(
                kind="Pod",
                about=names[each["involvedObject"]["name"]],
                reason=reason,
                what=_sentence(what),
                mend=_sentence(mend or "see MIC's log"),
            )


_WARNINGS = frozenset(each for each in AgentReason if each.is_warning)


def _mended(events: Sequence[Object]) -> dict[str, float]:
    """Return when the data path of each agent was whole again, by the uid of its pod."""
    found: dict[str, float] = {}
    for each in events:
        if each.get("reason") == PATH_PROVED:
            uid = each["involvedObject"].get("uid", "")
            found[uid] = max(found.get(uid, 0.0), seen(each))
    return found


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
            alike.setdefault(_why_without(daemon_set, node), []).append(name)
    for (why, mend), names in sorted(alike.items()):
        names.sort()
        yield Finding(
            kind="Node",
            about=ObjectRef("", names[0]),
            reason=OPEN_NODE,
            what=f"{_named(names)}: {why}. Their pods reach IMDS itself, and with it every "
            "identity of the machine, unless something else closes it.",
            mend=mend,
        )


OPEN_NODE = "NoAgent"
"""Reason of the finding about nodes that NMI does not serve: told in red."""


def _why_without(daemon_set: Object, node: Object) -> tuple[str, str]:
    """Return why NMI may not be on a node, and the next step."""
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
    return (
        "there is no pod of NMI",
        "Compare the DaemonSet's nodeSelector with the node's labels.",
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
            reason=HOST_ROUTING,
            what=f"{_named(names)}: eBPF host routing is on, by the node's label. It sends packets "
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
            reason="CutsOff",
            what=f"On {_named(others)} pods' requests come by the node's rules, and the policy "
            "denies them before: where Cilium judges it there, pods get no token.",
            mend=mend.format("takes the policy away"),
        )
    elif known and not denied:
        yield Finding(
            kind="CiliumClusterwideNetworkPolicy",
            about=local_redirect.DENIAL,
            reason="FailsOpen",
            what="It is not there: where NMI is not ready, Cilium sends requests on to IMDS, and "
            "only NMI's routing rules close it.",
            mend=mend.format("makes the policy"),
        )


def without_tokens(asking: Sequence[Pod], silent: Collection[str]) -> Iterator[Finding]:
    """Yield the pods with an identity on nodes where no request comes to NMI, by node."""
    for node in sorted(silent):
        pods = sorted(pod.ref for pod in asking if pod.node == node)
        if pods:
            shown = ", ".join(map(str, pods[:_MOST_NODES]))
            more = f" and {len(pods) - _MOST_NODES} more" if pods[_MOST_NODES:] else ""
            yield Finding(
                kind="Pod",
                about=pods[0],
                reason="NoTokens",
                what=f"On {node} no request of a pod comes to NMI, so these get no token: "
                f"{shown}{more}.",
                mend=f"See the findings about {node}, or run podidentity check --pod {pods[0]}.",
            )


HOST_ROUTING = "HostRouting"
"""Reason of the finding about nodes where packets pass NMI's redirection: told in red.

https://learn.microsoft.com/azure/aks/container-network-performance-ebpf-host-routing
"""


def _named(nodes: Sequence[str]) -> str:
    shown = ", ".join(nodes[:_MOST_NODES])
    return f"{shown} and {len(nodes) - _MOST_NODES} more nodes" if nodes[_MOST_NODES:] else shown


def _of_daemon_set(daemon_set: Object, reason: str, what: str, mend: str) -> Finding:
    about = _ref(daemon_set)
    return Finding(kind="DaemonSet", about=about, reason=reason, what=what, mend=mend)


def _ref(found: Object) -> ObjectRef:
    return ObjectRef(found["metadata"].get("namespace", NAMESPACE), found["metadata"]["name"])


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

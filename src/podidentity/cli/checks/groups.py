"""The order in which a cluster with NMI is looked at: all its checks, in groups.

A check here reads what it needs, and has the pages beside this one judge it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from math import inf

from podidentity import __version__
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.published_issuer import DISCOVERY, read_issuer
from podidentity.cli import admission_policies, boot_window, controller, local_redirect
from podidentity.cli.azure_access import by_https
from podidentity.cli.chain import LinkState
from podidentity.cli.checks import (
    agents,
    federation,
    labels,
    leftovers,
    mic,
    nodes,
    pods,
    probes,
    programs,
    rules,
    takers,
    versions,
)
from podidentity.cli.checks.check import Check, Group, Line
from podidentity.cli.checks.findings import Finding, Severity, not_read
from podidentity.cli.checks.reading import NotMade, Reading
from podidentity.cli.connection import right_to
from podidentity.cli.enable import NODE_TOKENS_SINCE
from podidentity.cli.mic import deployments_of_mic
from podidentity.cli.network_policies import NETWORK_POLICIES
from podidentity.cli.objects import (
    DAEMON_SETS,
    NAMESPACES,
    POLICY_BINDINGS,
    Object,
    find,
    find_all,
    minor_version,
    ref_of,
    unless_forbidden,
)
from podidentity.cli.pod_facts import credentials_of, secrets_changed
from podidentity.cli.pod_requests import OF_A_CREDENTIAL, is_mended
from podidentity.cli.rollout import (
    OF_AGENTS,
    PODS_OF_PROBE,
    PROBE_SET,
    is_archived_nmi,
    labelled,
    ready,
    rollout,
    troubles,
)
from podidentity.cli.token_bounds import read_bounds
from podidentity.cli.use_roles import Roles
from podidentity.core.data_path import Backend
from podidentity.core.decision import Authorization, Use, permission_names
from podidentity.core.resources import AzureIdentity, AzureIdentityBinding, ObjectRef
from podidentity.manifests import ADMIN_SECRET, NODE_AUDIENCES, POLICY_OF_NMI, asks_for_any, crds
from podidentity.manifests import mic as mic_manifests
from podidentity.manifests import nmi as nmi_manifests
from podidentity.wire.events import AgentReason
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    ENDPOINTS,
    EVENTS,
    NODES,
    KubeError,
)
from podidentity.wire.pauses import PAUSES, parse_pauses
from podidentity.wire.rbac import Grantee
from podidentity.wire.reviews import PATH as REVIEWS

# ---- Identities, bindings and exceptions


async def _rules(reading: Reading) -> Iterable[Finding]:
    cluster, exceptions = await reading.cluster(), await reading.exceptions()
    return rules.refused(cluster, exceptions, reading.choices.rules, await reading.matches())


async def _grants(reading: Reading) -> AsyncIterator[Finding]:
    authorization = reading.choices.authorization
    if authorization is Authorization.OFF:
        raise NotMade("NMI asks for no grant (--authorization=off)")
    cluster, matched = await reading.cluster(), await reading.matches()
    roles = await Roles.read(reading.kube)
    if roles is None and reading.only:
        raise NotMade(f"who may use which identity is not known: you need {Roles.RIGHT}")
    if roles is None:
        yield not_read(f"could not check which identities are granted: you need {Roles.RIGHT}")
        return

    for each in rules.ungranted(cluster, reading.choices.rules, matched, _lacking(roles)):
        yield rules.only_told(each) if authorization is Authorization.OBSERVE else each


def _lacking(roles: Roles) -> rules.Lacking:
    return cache(lambda namespace, identity: roles.lacking(namespace, permission_names(identity)))


async def _credentials(reading: Reading) -> AsyncIterator[Finding]:
    usable = rules.usable_identities(await reading.cluster(), reading.choices.rules)
    facts = await credentials_of(reading.kube, usable, reading.choices.identities_namespace)
    for ref, fact in sorted(facts.items()):
        if fact.state is LinkState.BROKEN:
            yield rules.cannot_sign_in(ref, fact.text)
        elif fact.state is LinkState.UNKNOWN:
            yield not_read(f"could not check whether AzureIdentity {ref} can sign in: {fact.text}")


async def _audiences(reading: Reading) -> AsyncIterator[Finding]:
    bounds = await read_bounds(reading.kube, as_node=reading.choices.tokens_as_node)
    for each in rules.usable_identities(await reading.cluster(), reading.choices.rules):
        if audience := bounds.refused(each):
            yield rules.unnamed_audience(each, audience)


IDENTITIES = Group(
    title="Identities and bindings",
    checks=(
        Check(
            holds="the rules refuse no identity, binding or exception",
            look=_rules,
            right="the custom resources: you need the right to list them, and pods",
        ),
        Check(
            holds="each bound identity is granted to its namespace",
            look=_grants,
            right=f"which identities are granted: you need {Roles.RIGHT}",
        ),
        Check(
            holds="each credential in the cluster can be used",
            look=_credentials,
            right="credentials: you need the right to get secrets",
            reads_secrets=True,
        ),
        Check(
            holds="NMI may ask for tokens for each audience",
            look=_audiences,
            right="for which audiences NMI may ask: you need the right to get "
            f"validatingadmissionpolicies {POLICY_OF_NMI} and clusterroles {NODE_AUDIENCES}",
        ),
    ),
)


# ---- Pods


async def _labels(reading: Reading) -> Iterable[Finding]:
    bindings = [
        each
        for each in (await reading.cluster()).all_bindings()
        if isinstance(each, AzureIdentityBinding)
    ]
    matched = await reading.matches()
    return (
        *labels.unmatched(matched, bindings),
        *labels.misspelt(matched),
        *labels.on_the_node(matched),
    )


async def _permitted(reading: Reading) -> AsyncIterator[Finding]:
    authorization = reading.choices.authorization
    roles = None if authorization is Authorization.OFF else await Roles.read(reading.kube)
    if roles is None:
        raise NotMade("NMI asks for no grant, or you may not read the grants")
    for each in labels.not_theirs(await reading.matches(), _lacking(roles), partial(_may, roles)):
        told = authorization is Authorization.OBSERVE
        yield replace(each, severity=Severity.WARNING) if told else each


def _may(roles: Roles, use: Use) -> bool:
    account = Grantee(*use.service_account)
    return any(each.grantee.includes(account) for each in roles.holders(use.name))


async def _policies(reading: Reading) -> Iterable[Finding]:
    policies = await find_all(reading.kube, NETWORK_POLICIES, reading.only)
    return pods.closed_by_policies(await reading.asking(), policies, reading.choices)


async def _proofs(reading: Reading) -> Iterable[Finding]:
    return pods.not_provable(await reading.asking(), reading.choices)


async def _requests(reading: Reading) -> Iterable[Finding]:
    told = await find_all(reading.kube, EVENTS, reading.only, fieldSelector=OF_AGENTS)
    matched = {each.pod.ref: each for each in await reading.matches()}
    refuses = reading.choices.authorization is Authorization.RBAC
    roles = await Roles.read(reading.kube) if refuses else None

    def permitted(use: Use) -> bool:
        return not refuses or (roles is not None and _may(roles, use))

    credentials = (each for each in told if each.get("reason") in OF_A_CREDENTIAL)
    changed = {
        ref: await secrets_changed(reading.kube, matched[ref])
        for ref in set(map(pods.about, credentials)) & matched.keys()
    }

    def stands(pod: ObjectRef, reason: str, at: float) -> bool:
        if is_mended(reason, at, changed.get(pod, -inf)):
            return False
        return pods.stands(reason, matched.get(pod), permitted)

    return pods.refused_lately(told, reading.now, stands)


async def _azure(reading: Reading) -> AsyncIterator[Finding]:
    try:
        found, backends = await reading.agents(), await reading.backends()
    except KubeError as error:
        if not error.forbidden:
            raise
        right = right_to("list", "pods and events", reading.choices.namespace)
        raise NotMade(f"whether IMDS and Entra answer is not known: {right}") from error
    archived = None if found else await unless_forbidden(reading.archived_nmis(), None)
    if archived:
        raise NotMade("the NMI of AAD Pod Identity serves here")
    heard = {each["spec"].get("nodeName") for each in found if ready(each)}
    heard |= {node for node, backend in backends.items() if backend}
    asking = await reading.asking()
    for finding in pods.without_tokens(asking, {each.node for each in asking if each.node} - heard):
        yield finding
    async for finding in _tokens_fail(reading, found):
        yield finding


async def _failing(reading: Reading) -> AsyncIterator[Finding]:
    async for finding in _tokens_fail(reading, await reading.agents_there()):
        yield finding


async def _tokens_fail(reading: Reading, found: Sequence[Object]) -> AsyncIterator[Finding]:
    """Yield where tokens fail, by NMI's events and by its counts of the last minute."""
    told, by_node = await reading.told(), Counter(each.node for each in await reading.asking())
    asked = [each for each in found if ready(each) and by_node[each["spec"].get("nodeName", "")]]
    asked.sort(key=lambda each: by_node[each["spec"]["nodeName"]], reverse=True)
    counts, port = {}, reading.choices.probe_port
    unknown = "" if by_node else "no pod has an identity"
    try:
        counts = await probes.tokens_lately(reading.kube, asked[: probes.MOST_ASKED], port)
        if by_node and not counts:
            unknown = f"{_THIS_MINUTE} is not known: no NMI says it"
    except KubeError as error:
        if not error.forbidden:
            raise
        right = right_to("get", "pods/proxy", reading.choices.namespace)
        unknown = f"{_THIS_MINUTE} is not known: {right}"
    for each in probes.failing(found, told, counts, reading.now):
        yield each
    if unknown:
        raise NotMade(unknown)


_THIS_MINUTE = "whether tokens have begun to fail in this minute"


async def _tokens(reading: Reading) -> Iterable[Finding]:
    found = await reading.agents_there()
    serving = {each["spec"].get("nodeName") for each in found if ready(each)}
    told = await reading.backends()
    silent = {node for node, backend in told.items() if not backend and node not in serving}
    return pods.without_tokens(await reading.asking(), silent)


_STATE_OF_NMI = (
    "the state of NMI: you need the right to get daemonsets and list pods and events in {nmi}"
)
PODS = Group(
    title="Pods",
    checks=(
        Check(
            holds="each pod's label leads to a binding",
            look=_labels,
            right="the labels of pods: you need the right to list pods",
        ),
        Check(
            holds="each pod's service account may use what is bound to it",
            look=_permitted,
            right=f"what pods may use: you need {Roles.RIGHT}",
        ),
        Check(
            holds="NetworkPolicies let pods with an identity out to IMDS",
            look=_policies,
            right="whether NetworkPolicies let pods out to IMDS: you need the right to list "
            "networkpolicies",
        ),
        Check(
            holds="each pod with an identity can be proved to be itself",
            look=_proofs,
            right="the proof of pods: you need the right to list pods",
        ),
        Check(
            holds="requests of each pod with an identity come to NMI",
            look=_tokens,
            right=_STATE_OF_NMI,
        ),
    ),
)


_OF_A_NAMESPACE = {_rules, _grants, _credentials, _labels, _permitted, _policies, _proofs}
OF_A_NAMESPACE = (
    *(
        replace(group, checks=tuple(each for each in group.checks if each.look in _OF_A_NAMESPACE))
        for group in (IDENTITIES, PODS)
    ),
    Group(
        title="Requests",
        checks=(
            Check(
                holds="NMI refused no pod a token in the last five minutes",
                look=_requests,
                right="what NMI answered pods: you need the right to list events",
            ),
            Check(
                holds="NMI serves the pods with an identity, and says of no failing tokens",
                look=_azure,
                right=_STATE_OF_NMI,
            ),
        ),
    ),
)
"""What the rights of one namespace suffice for: `podidentity check NAMESPACE`."""


# ---- Versions


async def _versions(reading: Reading) -> AsyncIterator[Finding | Line]:
    daemon_set = await reading.nmi()
    workloads = [
        *([{"kind": "DaemonSet", **daemon_set}] if daemon_set else []),
        *({"kind": "Deployment", **each} for each in await deployments_of_mic(reading.kube)),
    ]
    yield versions.told(__version__, workloads)
    if not workloads:
        raise NotMade("neither NMI nor MIC is in this cluster")
    for each in versions.differing(__version__, workloads):
        yield each


async def _admission(reading: Reading) -> AsyncIterator[Line]:
    await reading.agent()
    if await minor_version(reading.kube) < admission_policies.SINCE:
        raise NotMade(f"Kubernetes has admission policies since 1.{admission_policies.SINCE}")
    foreign = reading.choices.rules.foreign_secrets
    made = admission_policies.wanted(admission_policies.SINCE, asked=None, foreign_secrets=foreign)
    names = sorted({each["metadata"]["name"] for each in made})
    lacking = [
        each for each in names if await find(reading.kube, POLICY_BINDINGS, "", each) is None
    ]
    if lacking:
        yield (
            "The API server takes AzureIdentities and bindings of no use to NMI: the admission "
            f"policies {', '.join(lacking)} are not there; podidentity enable brings them."
        )
    else:
        yield "The API server refuses AzureIdentities and bindings of no use to NMI."


async def _definitions(reading: Reading) -> Iterable[Finding]:
    return versions.definitions(crds(), await reading.definitions())


VERSIONS = Group(
    title="Versions",
    checks=(
        Check(
            holds="the programs of the cluster are of this command's version",
            look=_versions,
            right="versions: you need the right to list daemonsets in {nmi}, deployments and "
            "clusterrolebindings",
        ),
        Check(
            holds="the custom resources know each field",
            look=_definitions,
            right="the definitions: you need the right to get customresourcedefinitions",
        ),
        Check(
            holds="it is known what the API server refuses of the custom resources",
            look=_admission,
            right="the admission policies: you need the right to get "
            "validatingadmissionpolicybindings",
        ),
    ),
)


# ---- NMI


async def _rights_of_nmi(reading: Reading) -> Iterable[Finding]:
    daemon_set, choices = await reading.agent(), reading.choices
    cluster = await reading.cluster()
    manifests = nmi_manifests(
        namespace=choices.namespace,
        as_node=choices.tokens_as_node,
        startup_taint=choices.startup_taint,
        standard=choices.rules.standard,
        # A right that no identity needs may be missing on purpose: `enable --identity-type`.
        types={each.type for each in cluster.all_identities() if isinstance(each, AzureIdentity)},
    )
    account = ObjectRef(choices.namespace, choices.account)
    wanted = programs.rights_of(manifests, choices.namespace)
    has = await reading.reviewed(REVIEWS, partial(programs.review_for, account), wanted)
    return programs.lacking("DaemonSet", ref_of(daemon_set), account, has)


async def _rights_of_mic(reading: Reading) -> AsyncIterator[Finding]:
    for each in await reading.mics():
        where = ref_of(each)
        account = ObjectRef(
            where.namespace, each["spec"]["template"]["spec"].get("serviceAccountName", "default")
        )
        wanted = programs.rights_of(mic_manifests(namespace=where.namespace), where.namespace)
        has = await reading.reviewed(REVIEWS, partial(programs.review_for, account), wanted)
        for finding in programs.lacking("Deployment", where, account, has):
            yield finding


_REVIEWS = "the rights of programs: you need the right to create subjectaccessreviews"


async def _manifest(reading: Reading) -> Iterable[Finding]:
    choices = reading.choices
    return agents.weaknesses(await reading.agent(), choices.attestation, choices.trust)


async def _readiness(reading: Reading) -> AsyncIterator[Finding]:
    daemon_set = await reading.agent()
    if not (state := rollout(daemon_set)).done:
        name = daemon_set["metadata"]["name"]
        lines = await troubles(reading.kube, reading.choices.namespace, name=name)
        yield agents.not_ready(daemon_set, state, await reading.agents(), lines)


async def _warnings(reading: Reading) -> Iterable[Finding]:
    found = await reading.agents_there()
    told = [each for each in await reading.told() if each.get("reason") != AgentReason.TOKENS_FAIL]
    return agents.agent_warnings(found, told, reading.now)


async def _probe(reading: Reading) -> AsyncIterator[Finding]:
    namespace = reading.choices.namespace
    await reading.agent()
    probe = await find(reading.kube, DAEMON_SETS, namespace, PROBE_SET)
    if probe is None:
        raise NotMade("there is no probe pod")
    if not rollout(probe).done:
        lines = await troubles(reading.kube, namespace, PODS_OF_PROBE, PROBE_SET)
        yield agents.no_probe(probe, rollout(probe), lines)


async def _others(reading: Reading) -> Iterable[Finding]:
    await reading.agent()
    return agents.two_agents(reading.choices.namespace, await labelled(reading.kube))


async def _bounds(reading: Reading) -> AsyncIterator[Finding]:
    daemon_set = await reading.agent()
    if await minor_version(reading.kube) < NODE_TOKENS_SINCE:
        raise NotMade(f"Kubernetes bounds the tokens of nodes since 1.{NODE_TOKENS_SINCE}")
    role = await find(reading.kube, CLUSTER_ROLES, "", reading.choices.account)
    if role is not None and any(map(asks_for_any, role.get("rules") or ())):
        yield agents.tokens_of_any(daemon_set)


async def _agent(reading: Reading) -> AsyncIterator[Finding]:
    if await reading.nmi() is None:
        archived = await reading.archived_nmis()
        if any(rollout(each).ready for each in archived):
            names = ", ".join(str(ref_of(each)) for each in archived)
            raise NotMade(f"the NMI of AAD Pod Identity serves here (DaemonSet {names})")
        yield agents.no_agent(reading.choices.namespace, await reading.asking())


NMI = Group(
    title="NMI",
    checks=(
        Check(
            holds="NMI is in this cluster",
            look=_agent,
            right="whether NMI is in this cluster: you need the right to list daemonsets",
        ),
        Check(
            holds="NMI gives up nothing by how it is installed",
            look=_manifest,
            right=_STATE_OF_NMI,
        ),
        Check(
            holds="NMI is in one namespace alone",
            look=_others,
            right="that NMI is in one namespace alone: you need the right to list daemonsets",
        ),
        Check(holds="NMI is ready on each of its nodes", look=_readiness, right=_STATE_OF_NMI),
        Check(holds="the probe pod runs on each of them", look=_probe, right=_STATE_OF_NMI),
        Check(holds="NMI warns of nothing", look=_warnings, right=_STATE_OF_NMI),
        Check(holds="no tokens fail", look=_failing, right=_STATE_OF_NMI),
        Check(holds="NMI may do what it is there for", look=_rights_of_nmi, right=_REVIEWS),
        Check(
            holds="NMI may ask for no token but those of its node's pods",
            look=_bounds,
            right="what NMI may do: you need the right to get clusterroles {account}",
        ),
    ),
)


# ---- Nodes


async def _served(reading: Reading) -> Iterable[Finding]:
    daemon_set, found = await reading.agent(), await find_all(reading.kube, NODES)
    return nodes.nodes_without(daemon_set, await reading.agents(), found)


async def _routing(reading: Reading) -> Iterable[Finding]:
    await reading.agents_there()
    told = await reading.backends()
    return nodes.host_routed(await find_all(reading.kube, NODES), told)


async def _denial(reading: Reading) -> Iterable[Finding]:
    await reading.agent()
    if reading.choices.backend is not Backend.LRP:
        raise NotMade("NMI does not use Cilium's policies (--backend)")
    denied = await local_redirect.denial_is_there(reading.kube)
    return nodes.of_denial(await reading.backends(), denied=denied)


async def _backends(reading: Reading) -> Iterable[Line]:
    await reading.agents_there()
    told = await reading.backends()
    if not any(told.values()):
        raise NotMade("NMI has not said by what requests come to it")
    return local_redirect.lines(told)


async def look_for_takers(reading: Reading) -> Iterable[Finding]:
    daemon_sets = await find_all(reading.kube, DAEMON_SETS)
    return takers.takers(daemon_sets, reading.choices.redirect.metadata_ip)


async def _starts(reading: Reading) -> AsyncIterator[Finding | Line]:
    found = await reading.agents_there()
    told = nodes.closed_while_starting(found, await reading.told(), reading.now)
    for each in nodes.open_while_starting(told, reading.choices.startup_taint):
        yield each
    for line in boot_window.lines(reading.choices.startup_taint, told):
        yield line


_NODES_UNREAD = "that every node has NMI: you need the right to list nodes, and pods in {nmi}"
NODES_GROUP = Group(
    title="Nodes",
    checks=(
        Check(holds="every node has NMI", look=_served, right=_NODES_UNREAD),
        Check(holds="packets pass NMI's rules on every node", look=_routing, right=_NODES_UNREAD),
        Check(
            holds="Cilium's policies let requests come to NMI, and close IMDS",
            look=_denial,
            right="whether a policy denies IMDS: you need the right to get "
            f"ciliumclusterwidenetworkpolicies {local_redirect.DENIAL.name}",
        ),
        Check(
            holds="NMI tells by what requests come to it",
            look=_backends,
            right=_STATE_OF_NMI,
        ),
        Check(holds="nodes are closed while they start", look=_starts, right=_STATE_OF_NMI),
        Check(
            holds="nobody else takes requests to the metadata address",
            look=look_for_takers,
            right="who else takes requests: you need the right to list daemonsets",
        ),
    ),
)


# ---- MIC


async def _controller(reading: Reading) -> AsyncIterator[Finding]:
    ours = await deployments_of_mic(reading.kube)
    if not ours:
        standard = reading.choices.rules.standard
        if standard and not await controller.archived_mics(reading.kube):
            yield mic.no_controller(ObjectRef(reading.choices.namespace, controller.DEPLOYMENT))
        elif not standard:
            raise NotMade("MIC is not in this cluster, and NMI does not wait for it")
    for each in ours:
        where = ref_of(each)
        if not each.get("status", {}).get("readyReplicas"):
            yield mic.mic_not_ready(each, await controller.troubles(reading.kube, where.namespace))
        pauses = parse_pauses(await find(reading.kube, CONFIG_MAPS, where.namespace, PAUSES))
        if pauses.all or pauses.hosts:
            yield mic.mic_paused(where, pauses)


async def _signs_in(reading: Reading) -> AsyncIterator[Finding]:
    for each in await reading.mics():
        ready = each.get("status", {}).get("readyReplicas")
        if not ready and await controller.lacks_sign_in(reading.kube, each):
            yield mic.no_sign_in(each)


async def _works_in_azure(reading: Reading) -> AsyncIterator[Finding]:
    now = SystemClock().time()
    for each in await reading.mics():
        namespace = each["metadata"]["namespace"]
        pods_of_mic = await controller.pods(reading.kube, namespace)
        only = {"fieldSelector": mic.EVENTS_OF_MIC}
        told = await find_all(reading.kube, EVENTS, namespace, **only)
        for finding in mic.mic_warnings(pods_of_mic, told, now):
            yield finding


async def _attached(reading: Reading) -> AsyncIterator[Finding]:
    await reading.mics()
    for found in await find_all(reading.kube, AZURE_IDENTITIES):
        for each in mic.not_attached(found):
            yield each


MIC = Group(
    title="MIC",
    checks=(
        Check(
            holds="MIC runs where NMI waits for it",
            look=_controller,
            right="MIC: you need the right to list deployments and clusterrolebindings, and in its "
            f"namespace to get configmaps {PAUSES} and list pods and events",
        ),
        Check(
            holds="MIC has a credential for Azure",
            look=_signs_in,
            right=f"MIC's sign-in: you need the right to get secrets {ADMIN_SECRET} in its "
            "namespace",
            reads_secrets=True,
        ),
        Check(holds="MIC may do what it is there for", look=_rights_of_mic, right=_REVIEWS),
        Check(
            holds="Azure answers MIC, and lets it change each machine",
            look=_works_in_azure,
            right="what MIC says of Azure: you need the right to list pods and events in its "
            "namespace",
        ),
        Check(
            holds="Azure lets MIC attach each identity",
            look=_attached,
            right="what MIC attaches: you need the right to list azureidentities, deployments and "
            "clusterrolebindings",
        ),
    ),
)


async def _probes(reading: Reading) -> AsyncIterator[Finding | Line]:
    await reading.agent()
    nodes_there, agents_there = await find_all(reading.kube, NODES), await reading.agents()
    found = await probes.ask(reading.kube, nodes_there, agents_there, reading.choices.probe_port)
    for each in probes.unserved(found):
        yield each
    for line in probes.lines(found):
        yield line


PROBES = Group(
    title="What each NMI says",
    checks=(
        Check(
            holds="a request from the probe pod arrives at NMI on every node",
            look=_probes,
            right="what each NMI says: you need the right to get pods/proxy in {nmi}, and to list "
            "nodes",
        ),
    ),
)
"""Only where it is asked for: it needs a right that most people lack, and time on many nodes."""


# ---- Federation


async def _issuer(reading: Reading) -> AsyncIterator[Finding | Line]:
    usable = rules.usable_identities(await reading.cluster(), reading.choices.rules)
    if not any(map(federation.is_federated, usable)):
        raise NotMade("no bound identity is federated")
    issuer = str(json.loads(await reading.kube.get(DISCOVERY)).get("issuer", ""))
    yield f"Tokens of this cluster name {issuer} as their issuer."
    for each in federation.issuer_faults(issuer, await read_issuer(issuer, by_https())):
        yield each


FEDERATION = Group(
    title="Federation",
    checks=(
        Check(
            holds="Entra can read the issuer of the cluster's tokens",
            look=_issuer,
            right=f"the issuer: you need the right to get {DISCOVERY}",
        ),
    ),
)


# ---- Leftovers of others


async def _archived(reading: Reading) -> AsyncIterator[Finding]:
    daemon_sets = filter(is_archived_nmi, await find_all(reading.kube, DAEMON_SETS))
    workloads = [
        *({"kind": "DaemonSet", **each} for each in daemon_sets),
        *({"kind": "Deployment", **each} for each in await controller.archived_mics(reading.kube)),
    ]
    for each in leftovers.archived(workloads):
        yield each
    found = await find(reading.kube, ENDPOINTS, *leftovers.LOCK)
    if found and not any(each["kind"] == "Deployment" for each in workloads):
        for each in leftovers.lives_elsewhere(found, reading.now):
            yield each


async def _records(reading: Reading) -> Iterable[Finding]:
    if await deployments_of_mic(reading.kube) or await controller.archived_mics(reading.kube):
        return ()  # they are kept, and their finalizers taken off
    records = await find_all(reading.kube, AZURE_ASSIGNED_IDENTITIES)
    return (*leftovers.unkept(records), *leftovers.stuck(records))


async def _outlived(reading: Reading) -> Iterable[Finding]:
    bindings = await find_all(reading.kube, CLUSTER_ROLE_BINDINGS)
    names = {each["metadata"]["name"] for each in await find_all(reading.kube, NAMESPACES)}
    return (*leftovers.outlived(bindings, names), *leftovers.lost(bindings, names))


LEFTOVERS = Group(
    title="Leftovers of others",
    checks=(
        Check(
            holds="AAD Pod Identity has gone",
            look=_archived,
            right="what is left: you need the right to list daemonsets, deployments and "
            f"clusterrolebindings, and to get endpoints {leftovers.LOCK.name} in "
            f"{leftovers.LOCK.namespace}",
        ),
        Check(
            holds="no record of an attachment is left alone",
            look=_records,
            right="records: you need the right to list azureassignedidentities, deployments and "
            "clusterrolebindings",
        ),
        Check(
            holds="no grant and no release outlives its namespace",
            look=_outlived,
            right="grants: you need the right to list clusterrolebindings and namespaces",
        ),
    ),
)

GROUPS = (VERSIONS, IDENTITIES, PODS, FEDERATION, NMI, NODES_GROUP, MIC, LEFTOVERS)

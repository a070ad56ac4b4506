"""`podidentity explain`: why a pod gets a token, or why not.

It applies NMI's own rules to the same objects, and checks facts beyond them: whether the identity
can sign in or is attached to the node's machine, whether requests come to NMI and NMI is ready, and
what NMI answered the pod last. It ends with one of four verdicts.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from podidentity.adapters.kube import together
from podidentity.cli import azure_access
from podidentity.cli.agent_choices import Choices, choices_of_nmi
from podidentity.cli.chain import (
    CREDENTIAL_STEP,
    Explanation,
    Fact,
    LinkState,
    Node,
    Requests,
    Verdict,
    follow,
)
from podidentity.cli.connection import ClusterTarget, on_cluster, right_to
from podidentity.cli.network_policies import NETWORK_POLICIES, egress_of
from podidentity.cli.objects import find_all, unless_forbidden
from podidentity.cli.output import CommandError, data, printable, table, terminal_width
from podidentity.cli.path_check import path_of
from podidentity.cli.pod_facts import (
    PodObjects,
    attached_of,
    credentials_of,
    nmi_of_node,
    objects_of,
    permissions_of,
    secrets_changed,
)
from podidentity.cli.pod_requests import requests_of
from podidentity.cli.proofs import proof_of
from podidentity.core.authorities import Cloud
from podidentity.core.decision import Denied, Match, decide, match
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentityBinding,
    ObjectRef,
    Pod,
    TokenRequest,
)
from podidentity.kernel.rules import Redirect
from podidentity.wire.events import AgentReason
from podidentity.wire.kube import PODS, KubeError
from podidentity.wire.pods import parse_pod

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

_ANY = TokenRequest(resource="")
"""A request that names no identity."""


def explain(
    ctx: click.Context,
    /,
    *,
    target: ClusterTarget,
    ref: ObjectRef,
    ask: bool,
    agents: str | None,
    cloud: Cloud | None,
    output: str,
) -> None:
    """Print a pod's chain and the verdict, and exit by it; raise CommandError."""
    explanation = on_cluster(target, lambda kube: _explain(kube, ref, ask, cloud, agents))
    told = shown(explanation, terminal_width(), asked=ask) if output == "table" else None
    click.echo(told or data(as_data(explanation), output))
    ctx.exit(0 if explanation.verdict in {Verdict.SERVED, Verdict.CLEAR} else 1)


def as_data(explanation: Explanation) -> dict[str, object]:
    """Return `explanation` for programs; `reason` is "" if the rules refuse nothing."""
    refusal, obstacle = explanation.refusal, explanation.obstacle
    failure = explanation.requests.failure if explanation.requests else None
    message = refusal.message if refusal else obstacle.text if obstacle else ""
    step = refusal.next_step if refusal else ""
    if obstacle and not refusal:
        step = _OWN_STEPS.get(obstacle.name, "")
    if explanation.verdict is Verdict.FAILS and failure:
        message, step = failure.message, failure.next_step
    return {
        "pod": str(explanation.pod),
        "verdict": str(explanation.verdict),
        "entitled": explanation.entitled,
        "reason": str(refusal.reason) if refusal else "",
        "message": message,
        "nextStep": step,
        "identities": [
            {"name": each.identity.ref.name, "clientID": str(each.identity.client_id or "")}
            for each in explanation.entitlements
        ],
        "chain": [
            {"link": link.name, "state": str(link.state), "text": link.text}
            for link in explanation.links
        ],
    }


_OWN_STEPS = {"credential": CREDENTIAL_STEP}
"""What mends a broken link that does not say it itself, by the name of the link."""
_COLOURS = {LinkState.HOLDS: "green", LinkState.BROKEN: "red", LinkState.UNKNOWN: "yellow"}


def shown(explanation: Explanation, width: int = 0, *, asked: bool = False) -> str:
    """Return `explanation` for people, with lines of at most `width` columns; 0: of any length.

    `asked`: whether Azure was asked about the machine.
    """

    def painted(cell: str) -> str:
        known = cell in set(LinkState)
        return click.style(cell, fg=_COLOURS[LinkState(cell)], bold=True) if known else cell

    rows = [(link.name, link.state, link.text) for link in explanation.links]
    chain = table(("LINK", "", "WHAT"), rows, width=width, paint=painted)
    return f"{chain}\n\n{printable(_verdict(explanation, asked))}"


def _verdict(explanation: Explanation, asked: bool) -> str:
    refusal, obstacle = explanation.refusal, explanation.obstacle
    if refusal:
        return f"Refused ({refusal.reason}). {refusal.next_step}"
    if obstacle:
        why = f"the link {obstacle.name!r} is broken: {obstacle.text}"
        step = f". {_OWN_STEPS[obstacle.name]}" if obstacle.name in _OWN_STEPS else ""
        return f"Refused: the rules allow a token, but {why}{step}"
    names = ", ".join(each.identity.ref.name for each in explanation.entitlements)
    names = names or "the node's machine"
    requests = explanation.requests
    if requests and (failure := requests.failure):
        since = time.strftime("%H:%M:%S", time.gmtime(failure.since))
        ago = f", last {max(time.time() - failure.last, 0.0):.0f} s ago"
        if failure.reason == AgentReason.TOKENS_FAIL:
            ago = ""  # its event is renewed every five minutes
        what = f"{failure.message.rstrip('.')}. {failure.next_step}".rstrip()
        return f"Fails since {since} UTC{ago} ({failure.reason}): {what}"
    if requests and requests.served is not None:
        return f"Served {requests.served:.0f} s ago: the pod may use {names}."
    azure = "asked for the machine's identities alone" if asked else "not asked"
    return f"Nothing in the cluster stands against a token of {names}. Azure was {azure}."


async def _explain(
    kube: Kube, ref: ObjectRef, ask: bool, cloud: Cloud | None, agents: str | None
) -> Explanation:
    try:
        raw = await kube.get(PODS.path(*ref))
    except KubeError as error:
        if not error.not_found:
            raise
        raise CommandError(
            f"There is no pod {ref}", f"kubectl get pods -n {ref.namespace} lists them."
        ) from error
    found = parse_pod(raw)
    known = await objects_of(kube, found)
    choices = await choices_of_nmi(kube, agents)
    matched = match(found, known.cluster, choices.rules)
    permissions = await permissions_of(kube, matched, choices.authorization)
    decision = decide(matched, _ANY, lambda use: permissions[use].state is not LinkState.BROKEN)
    if isinstance(decision, Denied):
        decision = replace(decision, refusal=_with_what_was_meant(decision.refusal, found, known))
    azure = partial(azure_access.azure, cloud or choices.cloud) if ask else None
    bound = [each.identity for each in matched.entitlements]
    attached, credentials, (ways, requests) = await together(
        attached_of(kube, found, matched.entitlements, known.records, azure),
        credentials_of(kube, bound, choices.identities_namespace),
        _ways(kube, matched, raw, choices, live=not isinstance(decision, Denied)),
    )
    node = Node(attached=attached, ways=ways, requests=requests)
    return follow(matched, decision, permissions, node, credentials)


async def _ways(
    kube: Kube, matched: Match, raw: bytes, choices: Choices, *, live: bool
) -> tuple[dict[str, Fact], Requests | None]:
    """Return what lies between a pod and NMI, and, if `live`, how requests fare there."""
    pod = matched.pod
    if not (matched.entitlements or matched.exception):
        return {}, None
    facts = {
        "sidecar": _sidecar(raw),
        "proof": proof_of(pod, choices.attestation, choices.trust),
        "network policy": await _egress(kube, pod, choices.redirect),
    }
    facts["nmi"], agent = await nmi_of_node(kube, choices.namespace, pod.node)
    requests = None
    if live:
        facts["path"], requests = await together(
            path_of(kube, pod.ref, agent),
            requests_of(
                kube, pod, agent, choices.secure_port, await secrets_changed(kube, matched)
            ),
        )
    return {name: fact for name, fact in facts.items() if fact}, requests


def _sidecar(raw: bytes) -> Fact | None:
    """Return whether azure-workload-identity's proxy takes the pod's requests, by its container.

    https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html
    """
    names = {each.get("name") for each in json.loads(raw)["spec"].get("initContainers") or ()}
    if "azwi-proxy-init" not in names:
        return None
    return Fact(
        LinkState.BROKEN,
        "azure-workload-identity's proxy (container azwi-proxy-init) takes the pod's requests, and "
        "NMI sees none. To have NMI answer, take the annotation "
        "azure.workload.identity/inject-proxy-sidecar away",
    )


def _with_what_was_meant(refusal: Refusal, pod: Pod, known: PodObjects) -> Refusal:
    """Return a refusal for a label that leads nowhere, with the binding that was probably meant."""
    from podidentity.cli.checks import labels  # slow to import, and rarely needed
    from podidentity.cli.checks.findings import named

    if refusal.reason is Reason.NO_LABEL and (slip := labels.slip(pod)):
        step = f"The pod has {slip}: label it {BINDING_LABEL}=SELECTOR, exactly so."
        return replace(refusal, next_step=step)
    if refusal.reason is not Reason.NO_BINDING:
        return refusal
    there = {
        each.selector: each
        for each in known.cluster.all_bindings()
        if isinstance(each, AzureIdentityBinding) and each.ref.namespace == pod.ref.namespace
    }
    if meant := labels.nearest(pod.selector, there):
        return replace(refusal, next_step=labels.did_you_mean(meant))
    if not there:
        return refusal
    others = f"The namespace has bindings with the selectors {named(sorted(there), 'selectors')}."
    return replace(refusal, next_step=f"{refusal.next_step} {others}")


async def _egress(kube: Kube, found: Pod, redirect: Redirect) -> Fact | None:
    """Return whether NetworkPolicies let the pod's requests out; None if none is about it."""
    namespace = found.ref.namespace
    policies = await unless_forbidden(find_all(kube, NETWORK_POLICIES, namespace), None)
    if policies is None:
        right = right_to("list", "networkpolicies", namespace)
        return Fact(LinkState.UNKNOWN, f"not known: {right}")
    egress = egress_of(found.labels, policies, redirect)
    return egress.fact(redirect) if egress else None

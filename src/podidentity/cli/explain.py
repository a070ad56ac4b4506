"""`podidentity explain pod`: why a pod gets a token, or why not.

It applies NMI's own rules to the same objects, and checks facts beyond them: whether the identity
can sign in or is attached to the node's machine, and whether NMI is ready there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from podidentity.cli import azure_access
from podidentity.cli.agent_choices import choices_of_nmi
from podidentity.cli.chain import Explanation, Fact, LinkState, follow
from podidentity.cli.connection import ClusterTarget, on_cluster, right_to
from podidentity.cli.network_policies import egress_of, policies_of
from podidentity.cli.objects import find
from podidentity.cli.output import (
    CommandError,
    data,
    table,
    terminal_width,
)
from podidentity.cli.pod_facts import credentials_of, node_of, objects_of, permissions_of
from podidentity.cli.proofs import proof_of
from podidentity.core.authorities import Cloud
from podidentity.core.decision import decide, match
from podidentity.core.resources import ObjectRef, Pod, TokenRequest
from podidentity.kernel.rules import Redirect
from podidentity.wire.kube import PODS
from podidentity.wire.pods import parse_pod

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

_ANY = TokenRequest(resource="")
"""A request that names no identity."""


def pod(
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
    """Print a pod's chain, and exit with 1 where it is broken; raise CommandError."""
    explanation = on_cluster(target, lambda kube: _explain(kube, ref, ask, cloud, agents))
    told = shown(explanation, terminal_width()) if output == "table" else None
    click.echo(told or data(as_data(explanation), output))
    ctx.exit(0 if explanation.entitled else 1)


def as_data(explanation: Explanation) -> dict[str, object]:
    """Return `explanation` for programs; `reason` is "" if the rules refuse nothing."""
    refusal, obstacle = explanation.refusal, explanation.obstacle
    message = refusal.message if refusal else obstacle.text if obstacle else ""
    return {
        "pod": str(explanation.pod),
        "entitled": explanation.entitled,
        "reason": str(refusal.reason) if refusal else "",
        "message": message,
        "nextStep": refusal.next_step if refusal else "",
        "identities": [
            {"name": each.identity.ref.name, "clientID": str(each.identity.client_id or "")}
            for each in explanation.entitlements
        ],
        "chain": [
            {"link": link.name, "state": str(link.state), "text": link.text}
            for link in explanation.links
        ],
    }


_COLOURS = {LinkState.HOLDS: "green", LinkState.BROKEN: "red", LinkState.UNKNOWN: "yellow"}


def _painted(cell: str) -> str:
    colours = {str(state): colour for state, colour in _COLOURS.items()}
    return click.style(cell, fg=colours[cell], bold=True) if cell in colours else cell


def shown(explanation: Explanation, width: int = 0) -> str:
    """Return `explanation` for people, with lines of at most `width` columns; 0: of any length."""
    rows = [(link.name, link.state, link.text) for link in explanation.links]
    chain = table(("LINK", "", "WHAT"), rows, width=width, paint=_painted)
    refusal, obstacle = explanation.refusal, explanation.obstacle
    if refusal:
        return f"{chain}\n\nNo token ({refusal.reason}). {refusal.next_step}"
    if obstacle:
        return f"{chain}\n\nNo token: the rules allow it, but the link {obstacle.name!r} is broken."
    names = ", ".join(each.identity.ref.name for each in explanation.entitlements)
    if not names:
        return f"{chain}\n\nThe pod may use the identities of the node's machine."
    return f"{chain}\n\nThe pod may use: {names}."


async def _explain(
    kube: Kube, ref: ObjectRef, ask: bool, cloud: Cloud | None, agents: str | None
) -> Explanation:
    if await find(kube, PODS, *ref) is None:
        raise CommandError(
            f"There is no pod {ref}", f"kubectl get pods -n {ref.namespace} lists them."
        )
    found = parse_pod(await kube.get(PODS.path(*ref)))
    known = await objects_of(kube, found)
    choices = await choices_of_nmi(kube, agents)
    matched = match(found, known.cluster, choices.rules)
    permissions = await permissions_of(kube, matched, choices.authorization)
    decision = decide(matched, _ANY, lambda use: permissions[use].state is not LinkState.BROKEN)
    azure = partial(azure_access.azure, cloud or choices.cloud) if ask else None
    node = await node_of(
        kube, found, matched.entitlements, known.records, azure, agents=choices.namespace
    )
    egress = await _egress(kube, found, choices.redirect)
    node = replace(node, egress=egress, proof=proof_of(found, choices.attestation, choices.trust))
    bound = [each.identity for each in matched.entitlements]
    credentials = await credentials_of(kube, bound, choices.identities_namespace)
    return follow(matched, decision, permissions, node, credentials)


async def _egress(kube: Kube, found: Pod, redirect: Redirect) -> Fact | None:
    """Return whether NetworkPolicies let the pod's requests out; None if none is about it."""
    policies = await policies_of(kube, found.ref.namespace)
    if policies is None:
        return Fact(
            LinkState.UNKNOWN,
            f"not known: {right_to('list', 'networkpolicies', found.ref.namespace)}",
        )
    egress = egress_of(found.labels, policies, redirect)
    return egress.fact(redirect) if egress else None

"""`podidentity explain pod`: why a pod gets a token, or why not.

It asks the very rules that NMI applies, over the same objects, and what NMI cannot see: whether the
identity is on the node's machine, and whether NMI itself is ready there.
"""

from __future__ import annotations

import json

import click

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.kube import Kube, KubeError
from podidentity.cli import record
from podidentity.cli.chain import Explanation, follow
from podidentity.cli.connection import Target, cluster_options, on_cluster
from podidentity.cli.failures import Failed
from podidentity.cli.node_facts import node_of
from podidentity.cli.objects import find
from podidentity.cli.output import FORMATS, data, output_option, table
from podidentity.cli.parameters import PodRef
from podidentity.cli.wording import examples
from podidentity.core.ids import ObjectRef
from podidentity.core.matching import match
from podidentity.wire.kube import AZURE_IDENTITIES, AZURE_IDENTITY_BINDINGS, PODS, Page
from podidentity.wire.manifests import parse_binding, parse_identity
from podidentity.wire.pods import parse_pod


@click.group(epilog=examples("podidentity explain pod shop/orders-0"))
def explain() -> None:
    """Say why something gets a token, or why not."""


@explain.command(
    epilog=examples(
        "podidentity explain pod shop/orders-0",
        "podidentity explain pod shop/orders-0 --azure",
        "podidentity explain pod shop/orders-0 -o json | jq -r .reason",
    )
)
@click.argument("ref", metavar="NAMESPACE/NAME", type=PodRef())
@click.option("--azure", "ask", is_flag=True, help="Ask Azure what the node's machine has.")
@output_option(*FORMATS, default="table")
@cluster_options
@click.pass_context
def pod(ctx: click.Context, /, *, target: Target, ref: ObjectRef, ask: bool, output: str) -> None:
    """Follow the chain label → binding → identity → machine → NMI of a pod.

    Exit code 0: the pod can have a token; 1: it cannot, and the output says where the chain ends.
    """
    explanation = on_cluster(target, lambda kube: _explain(kube, ref, ask))
    click.echo(shown(explanation) if output == "table" else data(as_data(explanation), output))
    ctx.exit(0 if explanation.entitled else 1)


def as_data(explanation: Explanation) -> dict[str, object]:
    """Return `explanation` for programs; `reason` is "" where the rules refuse nothing."""
    refusal, obstacle = explanation.refusal, explanation.obstacle
    message = refusal.message if refusal else obstacle.text if obstacle else ""
    return {
        "pod": str(explanation.pod),
        "entitled": explanation.entitled,
        "reason": str(refusal.reason) if refusal else "",
        "message": message,
        "nextStep": refusal.next_step if refusal else "",
        "identities": [
            {"name": each.identity.ref.name, "clientID": str(each.identity.client_id)}
            for each in explanation.entitlements
        ],
        "chain": [
            {"link": link.name, "state": str(link.state), "text": link.text}
            for link in explanation.links
        ],
    }


def shown(explanation: Explanation) -> str:
    """Return `explanation` for people."""
    rows = [(link.name, link.state, link.text) for link in explanation.links]
    chain = table(("LINK", "", "WHAT"), rows)
    refusal, obstacle = explanation.refusal, explanation.obstacle
    if refusal:
        return f"{chain}\n\nNo token ({refusal.reason}). {refusal.next_step}"
    if obstacle:
        return f"{chain}\n\nNo token: the rules allow it, but see {obstacle.name!r} above."
    names = ", ".join(each.identity.ref.name for each in explanation.entitlements)
    return f"{chain}\n\nThe pod may use: {names}."


async def _explain(kube: Kube, ref: ObjectRef, ask: bool) -> Explanation:
    if await find(kube, PODS, *ref) is None:
        raise Failed(f"There is no pod {ref}", f"kubectl get pods -n {ref.namespace} lists them.")
    found = parse_pod(await kube.get(PODS.path(*ref)))
    identities = await kube.list_all(AZURE_IDENTITIES.path(ref.namespace))
    cluster = WatchedCluster.of(
        SystemClock(),
        pods=[found],
        identities=map(parse_identity, identities.items),
        bindings=map(parse_binding, (await _bindings(kube, ref.namespace)).items),
    )
    matched = match(found, cluster)
    records = {
        ObjectRef(ref.namespace, each["metadata"]["name"]): record.read(each)
        for each in (json.loads(bytes(item)) for item in identities.items)
    }
    return follow(matched, await node_of(kube, found, matched.entitlements, records, ask))


async def _bindings(kube: Kube, namespace: str) -> Page:
    """Return all bindings, since one of another namespace may be the reason; or what is allowed."""
    try:
        return await kube.list_all(AZURE_IDENTITY_BINDINGS.path())
    except KubeError as error:
        if not error.forbidden:
            raise
        return await kube.list_all(AZURE_IDENTITY_BINDINGS.path(namespace))

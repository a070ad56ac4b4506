"""What each NMI itself says of its node, asked through the API server (`check --probes`).

An agent's node is mostly not reached from a person's machine; the API server passes a question on
to NMI's pod. `podidentity nodes` asks the same from inside of the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from podidentity.adapters.kube import Kube, together
from podidentity.adapters.readiness import AgentReadiness
from podidentity.cli.checks.findings import CheckReason, Finding, named
from podidentity.cli.nodes import AT_ONCE, NodeState, states
from podidentity.cli.objects import Object
from podidentity.cli.rollout import ready
from podidentity.core.resources import ObjectRef
from podidentity.wire.kube import PODS, KubeError

SILENT = "NMI does not answer through the API server"


async def ask(
    kube: Kube, nodes: Sequence[Object], pods: Sequence[Object], port: int
) -> list[NodeState]:
    """Return what NMI says on each Linux node; raise KubeError where that is forbidden."""
    agents: dict[str, Object] = {}
    for pod in sorted(pods, key=ready):
        agents[pod["spec"].get("nodeName", "")] = pod
    places = asyncio.Semaphore(AT_ONCE)

    async def one(state: NodeState) -> NodeState:
        pod = agents.get(state.node)
        if pod is None:
            return state
        async with places:
            return replace(state, said=await _said(kube, pod, port))

    return list(await together(*map(one, states(nodes, pods))))


async def _said(kube: Kube, pod: Object, port: int) -> AgentReadiness:
    meta = pod["metadata"]
    try:
        path = PODS.path(meta["namespace"], meta["name"])
        return AgentReadiness.of(await kube.passed_on(f"{path}:{port}/proxy/readyz"))
    except KubeError as error:
        if error.forbidden:
            raise
        return AgentReadiness(ready=False, problems=(f"{SILENT}: {error.message}",))
    except ValueError as error:
        return AgentReadiness(ready=False, problems=(str(error),))


def lines(found: Sequence[NodeState]) -> Iterator[str]:
    """Yield a line for the nodes that say the same."""
    alike: dict[str, list[str]] = {}
    for each in found:
        said = each.said
        words = {
            "plane": said.plane,
            "backend": said.backend,
            "proof": said.proof,
            "probe": said.hop,
        }
        text = ", ".join(f"{name} {word or 'not known'}" for name, word in words.items())
        alike.setdefault(text, []).append(each.node)
    for text, names in sorted(alike.items()):
        yield f"{named(sorted(names))}: {text}"


def unserved(found: Sequence[NodeState]) -> Iterator[Finding]:
    """Yield the nodes whose NMI does not say that pods' requests arrive, by what it says."""
    alike: dict[str, list[str]] = {}
    for each in found:
        if not each.works:
            said = each.said
            why = (
                "; ".join(said.problems) or f"its probe ends at {said.hop or 'nobody knows where'}"
            )
            alike.setdefault(why, []).append(each.node)
    for why, names in sorted(alike.items()):
        names.sort()
        yield Finding(
            kind="Node",
            about=ObjectRef("", names[0]),
            reason=CheckReason.NODE_UNPROVED,
            what=f"{named(names)}: {why.rstrip('.')}.",
            mend="See docs/reference/nodes.md: the networks on which NMI works, and their needs.",
        )

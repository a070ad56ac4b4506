"""What each NMI itself says of its node, asked through the API server (`check --probes`).

An agent's node is mostly not reached from a person's machine; the API server passes a question on
to NMI's pod. `podidentity nodes` asks the same from inside of the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from podidentity.adapters.kube import Kube, together
from podidentity.adapters.readiness import SECONDS, AgentReadiness, TokensLately
from podidentity.cli.checks.agents import agent_warnings
from podidentity.cli.checks.findings import CheckReason, Finding, named, sentence
from podidentity.cli.nodes import AT_ONCE, NodeState, states
from podidentity.cli.objects import Object, ref_of
from podidentity.cli.rollout import lasts, ready
from podidentity.core.errors import NEXT_STEPS
from podidentity.core.resources import ObjectRef
from podidentity.wire.events import AgentReason
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


MOST_ASKED = 20
"""Agents that each `check` asks how requests end; `--probes` asks all."""


async def tokens_lately(kube: Kube, agents: Sequence[Object], port: int) -> dict[str, TokensLately]:
    """Return how requests ended in the last minute, by the uid of each NMI that says it.

    Raises KubeError where that is forbidden.
    """

    async def one(pod: Object) -> TokensLately | None:
        try:
            async with asyncio.timeout(SECONDS):
                return (await _said(kube, pod, port)).tokens
        except TimeoutError:
            return None

    told = await together(*map(one, agents))
    return {pod["metadata"]["uid"]: said for pod, said in zip(agents, told, strict=True) if said}


def failing(
    pods: Sequence[Object],
    events: Sequence[Object],
    counts: Mapping[str, TokensLately],
    now: float,
) -> Iterator[Finding]:
    """Yield on which nodes pods get no tokens, by the counts and events of NMI's `pods`.

    An event has the message, but is a minute behind: it is left out where the count of this minute
    is for another reason, or is of tokens alone. `now` in seconds since 1970.
    """
    lasting = [
        each
        for each in events
        if each.get("reason") == AgentReason.TOKENS_FAIL
        and lasts(each, now)
        and _agrees(each, counts.get(each["involvedObject"].get("uid", "")))
    ]
    yield from agent_warnings(pods, lasting, now)
    told = {each["involvedObject"].get("uid") for each in lasting}
    alike: dict[str, list[tuple[Object, TokensLately]]] = {}
    for pod in pods:
        said = counts.get(uid := pod["metadata"]["uid"])
        if said and said.failing and uid not in told:
            alike.setdefault(said.reason, []).append((pod, said))
    for reason, there in sorted(alike.items()):
        lost = sum(each.failing for _, each in there)
        asked = sum(each.asked for _, each in there)
        yield Finding(
            kind="Pod",
            about=min(ref_of(pod) for pod, _ in there),
            reason=AgentReason.TOKENS_FAIL,
            what=f"On {named(sorted(pod['spec']['nodeName'] for pod, _ in there))}: tokens "
            f"fail for {lost} of {asked} pods that asked in the last minute ({reason}), since "
            f"{max(each.since_seconds_ago for _, each in there):.0f} s.",
            mend=sentence(NEXT_STEPS.get(reason, "run podidentity explain for one of them")),
        )


def _agrees(event: Object, count: TokensLately | None) -> bool:
    if count is None or not count.asked:
        return True
    return bool(count.failing) and f"({count.reason})" in event.get("message", "")

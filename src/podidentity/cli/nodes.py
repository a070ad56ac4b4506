"""`podidentity nodes`: what each NMI says of its node, asked from inside the cluster.

It is what `helm test` runs. It asks each NMI at its node's address, which pods reach and people's
machines mostly do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from podidentity.adapters.clock import SystemClock
from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.objects import Object, find_all
from podidentity.cli.output import CommandError, data, printable, table, terminal_width
from podidentity.cli.rollout import namespace_of_nmi, pods_of_nmi, ready
from podidentity.core.data_path import Hop
from podidentity.wire.kube import NODES

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube
    from podidentity.adapters.readiness import AgentPages, AgentReadiness

AT_ONCE = 32
"""Nodes that are asked at the same time."""
PAUSE = 1.0
"""Seconds between two rounds of questions to the nodes that are not ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What is known of one node."""

    node: str
    address: str = ""
    """Its own, at which NMI is asked; "" where there is no NMI."""
    said: AgentReadiness

    @property
    def works(self) -> bool:
        return self.said.ready and self.said.hop == Hop.PROVED


NOBODY = "no NMI: pods of this node reach the identities of its machine"


def states(nodes: Iterable[Object], pods: Iterable[Object]) -> list[NodeState]:
    """Return the Linux nodes, by name, before anybody is asked; virtual ones are left out.

    A node that NMI is not on is one whose NMI says so.
    """
    from podidentity.adapters.readiness import AgentReadiness

    agents: dict[str, Object] = {}
    for pod in sorted(pods, key=ready):
        agents[pod["spec"].get("nodeName", "")] = pod
    found = []
    for each in nodes:
        labels = each["metadata"].get("labels") or {}
        if labels.get("kubernetes.io/os") == "linux" and labels.get("type") != "virtual-kubelet":
            name = each["metadata"]["name"]
            address = (agents.get(name, {}).get("status") or {}).get("hostIP", "")
            said = AgentReadiness(ready=False, problems=() if address else (NOBODY,))
            found.append(NodeState(node=name, address=address, said=said))
    return sorted(found, key=lambda state: state.node)


def nodes(
    *,
    target: ClusterTarget,
    agents: str | None,
    probe_port: int,
    resource: str | None,
    timeout: float,
    output: str,
) -> None:
    from podidentity.adapters.readiness import AgentPages  # help must not wait for an HTTP client

    async def look(kube: Kube) -> list[NodeState]:
        asking = AgentPages()
        try:
            found = await _all(kube, agents, asking, probe_port, timeout)
            if output == "table":
                head = ("NODE", "NMI", "PLANE", "BACKEND", "PROOF", "PROBE")
                click.echo(table(head, map(_row, found), width=terminal_width()))
            else:
                click.echo(data(list(map(_plain, found)), output))
            if resource is not None:
                answer = await asking.token(resource)
                if answer.status != 200:
                    raise CommandError(
                        f"No token for {resource}: {answer.status or 'no answer'}, {answer.text}",
                        "podidentity explain says where a chain ends.",
                    )
                life = f"for {answer.expires_in} s (not shown)"
                click.echo(f"A token of {answer.client} for {resource}, {life}")
            return found
        finally:
            await asking.close()

    found = on_cluster(target, look)
    failed = [state for state in found if not state.works]
    for state in failed:
        for problem in state.said.problems or ("not ready, and does not say why",):
            click.echo(printable(f"  {state.node}: {problem}"), err=True)
    if failed or not found:
        raise CommandError(
            f"Pods are served on {len(found) - len(failed)} of {len(found)} nodes",
            "docs/reference/nodes.md has the networks on which NMI works, and what each needs.",
        )


async def _all(
    kube: Kube, agents: str | None, asking: AgentPages, port: int, seconds: float
) -> list[NodeState]:
    namespace = await namespace_of_nmi(kube, agents)
    clock = SystemClock()
    end = clock.monotonic() + seconds
    while True:
        found = states(await find_all(kube, NODES), await pods_of_nmi(kube, namespace))
        found = await _round(found, asking, port)
        if all(state.works for state in found) or clock.monotonic() + PAUSE > end:
            return found
        await asyncio.sleep(PAUSE)


async def _round(found: Sequence[NodeState], asking: AgentPages, port: int) -> list[NodeState]:
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(state: NodeState) -> NodeState:
        if not state.address:
            return state
        async with places:
            return replace(state, said=await asking.readiness(state.address, port))

    return list(await asyncio.gather(*map(ask, found)))


def _row(state: NodeState) -> tuple[str, ...]:
    said = state.said
    words = (said.plane, said.backend, said.proof, said.hop)
    return (state.node, "ready" if said.ready else "no", *(word or "-" for word in words))


def _plain(state: NodeState) -> dict[str, Any]:
    said = state.said
    return {
        "node": state.node,
        "ready": said.ready,
        "plane": said.plane,
        "backend": said.backend,
        "proof": said.proof,
        "probe": said.hop,
        "problems": list(said.problems),
    }

"""Has NMI send a request from a pod's network, for `podidentity check --pod`.

The question is an annotation on NMI's pod of that node, and the answer an event about it
(`nmi.probe_requests`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING

from podidentity.cli.objects import Object, find, ref_of
from podidentity.cli.output import CommandError
from podidentity.cli.rollout import namespace_of_nmi, pods_of_nmi, ready, until
from podidentity.core.resources import PROBE_ANNOTATION, ObjectRef
from podidentity.wire.events import ProbeReason, probe_answer_name
from podidentity.wire.kube import EVENTS, PODS

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

SECONDS = 15.0
"""Longest wait for the answer; a probe takes 5 s at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPath:
    """Where a request from a pod's network ended."""

    pod: ObjectRef
    node: str
    reason: str
    text: str
    """What happened, as a clause."""
    next_step: str = ""

    @property
    def arrived(self) -> bool:
        """Whether it came to NMI, and its answer back."""
        return self.reason == ProbeReason.ARRIVED


async def path_of(kube: Kube, pod: ObjectRef, agents: str | None) -> PodPath:
    """Return where a request from a pod's network ends; `agents` is NMI's namespace, if known.

    Raises CommandError where nobody can say, and KubeError.
    """
    found = await find(kube, PODS, pod.namespace, pod.name)
    if found is None:
        raise CommandError(f"pod {pod} does not exist")
    node = found["spec"].get("nodeName", "")
    if not node:
        raise CommandError(f"pod {pod} is on no node yet")
    agent = await _agent(kube, await namespace_of_nmi(kube, agents), node)
    number = token_hex(8)
    annotated = {"metadata": {"annotations": {PROBE_ANNOTATION: f"{number} {pod}"}}}
    await kube.merge(PODS.path(*agent), annotated)
    answer = await _answer(kube, agent, number)
    text, _, step = str(answer.get("message", "")).partition("; ")
    return PodPath(
        pod=pod, node=node, reason=str(answer.get("reason", "")), text=text, next_step=step
    )


async def _agent(kube: Kube, namespace: str, node: str) -> ObjectRef:
    """Return NMI's pod on a node: one that is ready, if there are two."""
    pods = await pods_of_nmi(kube, namespace, fieldSelector=f"spec.nodeName={node}")
    if not pods:
        raise CommandError(f"there is no NMI on node {node}", "Run podidentity enable.")
    return ref_of(max(pods, key=ready))


async def _answer(kube: Kube, agent: ObjectRef, number: str) -> Object:
    name = probe_answer_name(number)
    answer: list[Object] = []

    def look(events: Mapping[str, Object]) -> bool:
        answer.extend(events.values())
        return bool(answer)

    try:
        async with asyncio.timeout(SECONDS):
            only = {"fieldSelector": f"metadata.name={name}"}
            await until(kube, EVENTS.path(agent.namespace), only, look)
    except TimeoutError as error:
        raise CommandError(
            f"pod {agent} did not answer within {SECONDS:g} s",
            f"See kubectl logs -n {agent.namespace} {agent.name} -c serve; under a manifest of "
            "podidentity 0.1 it cannot be asked.",
        ) from error
    return answer[0]

"""Has NMI send a request from a pod's network, for `podidentity explain`.

The question is an annotation on NMI's pod of that node, and the answer an event about it
(`nmi.probe_requests`). It shows a path and no caller: nothing about identities is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from secrets import token_hex
from typing import TYPE_CHECKING

from podidentity.cli.chain import Fact, LinkState
from podidentity.cli.connection import right_to
from podidentity.cli.objects import Object, ref_of
from podidentity.cli.rollout import until
from podidentity.core.resources import PROBE_ANNOTATION, ObjectRef
from podidentity.wire.events import ProbeReason, probe_answer_name
from podidentity.wire.kube import EVENTS, PODS, KubeError

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

SECONDS = 15.0
"""Longest wait for the answer; a probe takes 5 s at most."""
_STATES = {ProbeReason.ARRIVED: LinkState.HOLDS, ProbeReason.LOST: LinkState.BROKEN}


async def path_of(kube: Kube, pod: ObjectRef, agent: Object | None) -> Fact:
    """Return where a request from a pod's network ends; `agent` is NMI's pod on its node.

    Unknown without it, where the person may not ask, or NMI does not answer. Raises KubeError.
    """
    if agent is None:
        return Fact(LinkState.UNKNOWN, "not probed: NMI is not known to be ready there")
    where, number = ref_of(agent), token_hex(8)
    annotated = {"metadata": {"annotations": {PROBE_ANNOTATION: f"{number} {pod}"}}}
    lacks = right_to("patch", "pods", where.namespace)
    try:
        await kube.merge(PODS.path(*where), annotated)
        lacks = right_to("list and watch", "events", where.namespace)
        answer = await _answer(kube, where, number)
    except KubeError as error:
        if not error.forbidden:
            raise
        return Fact(LinkState.UNKNOWN, f"not probed: {lacks}")
    except TimeoutError:
        told = f"pod {where} did not answer within {SECONDS:g} s"
        see = f"see kubectl logs -n {where.namespace} {where.name} -c serve"
        return Fact(LinkState.UNKNOWN, f"not probed: {told}; {see}")
    state = _STATES.get(answer.get("reason", ""), LinkState.UNKNOWN)
    return Fact(state, str(answer.get("message", "")))


async def _answer(kube: Kube, agent: ObjectRef, number: str) -> Object:
    answer: list[Object] = []

    def look(events: Mapping[str, Object]) -> bool:
        answer.extend(events.values())
        return bool(answer)

    async with asyncio.timeout(SECONDS):
        only = {"fieldSelector": f"metadata.name={probe_answer_name(number)}"}
        await until(kube, EVENTS.path(agent.namespace), only, look)
    return answer[0]

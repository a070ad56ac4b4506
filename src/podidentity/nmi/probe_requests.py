"""Answers `podidentity explain`: whether one pod's requests arrive here.

The question is an annotation on NMI's own pod, and the answer an event about it: no port is opened,
and only those can ask who may change pods in NMI's namespace, which no tenant may. The probe is
sent as that from the probe pod, from the pod's own network, and by `net` itself. It shows a path
and no caller: no token comes of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from podidentity.core.data_path import Hop, ProbeResult
from podidentity.core.ports import Clock, Cluster
from podidentity.core.resources import ObjectRef, Pod
from podidentity.nmi.path_watch import Prober, ipv4
from podidentity.wire.events import Happening, ProbeReason, render_probe_answer
from podidentity.wire.kube import EVENTS, KubeApi, KubeError

_QUESTION = re.compile(r"([0-9a-f]{16}) ([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})", re.ASCII)

_log = logging.getLogger("podidentity.path")


class ProbeRequests:
    """Answers each question once; `run` it as a task."""

    def __init__(
        self,
        prober: Prober,
        cluster: Cluster,
        server: KubeApi,
        clock: Clock,
        *,
        own: Callable[[], Pod | None],
        node: str,
    ) -> None:
        """`own` returns the agent's pod; None while it is not known."""
        self._prober = prober
        self._cluster = cluster
        self._server = server
        self._clock = clock
        self._own = own
        self._node = node
        self._answered = ""

    async def run(self) -> None:
        while True:
            own = self._own()
            if own is None or own.probe in {"", self._answered}:
                await self._cluster.changed()
                continue
            self._answered = own.probe
            if question := _QUESTION.fullmatch(own.probe):
                number, namespace, name = question.groups()
                await self._answer(own, number, ObjectRef(namespace, name))

    async def _answer(self, own: Pod, number: str, ref: ObjectRef) -> None:
        reason, note = told(await self._probe(ref))
        now = self._clock.time()
        happening = Happening(
            about=own,
            reason=reason,
            type="Normal" if reason is ProbeReason.ARRIVED else "Warning",
            note=note,
            first=now,
            last=now,
            count=1,
        )
        event = render_probe_answer(number, happening, self._node)
        try:
            await self._server.create(EVENTS.path(own.ref.namespace), event)
        except KubeError as error:
            # Where there is one already, an agent before this one has answered.
            if not error.conflict:
                _log.warning("the path from pod %s cannot be told: %s", ref, error)

    async def _probe(self, ref: ObjectRef) -> ProbeResult:
        pod = self._cluster.pod(ref)
        why = ""
        if pod is None:
            why = f"pod {ref} is not on node {self._node}"
        elif pod.host_network:
            why = "the pod is in the node's network, which is not intercepted"
        elif pod.ended or not pod.addresses:
            why = f"the pod is {pod.phase}, and has no network"
        if pod is None or why:
            return ProbeResult(hop=Hop.NOT_SENT, detail=why)
        return await self._prober.probe(ipv4(pod))


def told(result: ProbeResult) -> tuple[ProbeReason, str]:
    """Return how a result is told: the reason of the event, and its message."""
    if result.hop is Hop.PROVED:
        plane = f" ({result.plane})" if result.plane else ""
        return ProbeReason.ARRIVED, f"{result}{plane}"
    if result.hop is Hop.NOT_SENT:
        # What the text says besides is about the probe pod.
        return ProbeReason.NOT_SENT, f"no request can be sent from the pod: {result.detail}"
    return ProbeReason.LOST, str(result)

"""Watches the way from pods to NMI: has `net` probe it from the probe pod, and judges by the rules.

At the start, after each change of the node's rules or links, and every few seconds: nothing else
notices a program that sends pods' packets past the rules (`core.data_path`).

Where the manifest has a probe pod (`--path-probe`) the agent is not ready before the path is proved
once, nor when it has not been proved for a minute, whatever the reason. A probe pod that is evicted
or cannot be scheduled leaves a path of which nobody knows, and a start-up taint waits for the
proof. Until then a missing pod is a warning. Under a manifest without one there is only a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from math import inf
from typing import Any, Protocol

from podidentity.core.data_path import Backend, DataPath, Hop, ProbeResult
from podidentity.core.ports import Clock
from podidentity.core.resources import Phase, Pod
from podidentity.waiting import first_of

EVERY = 4.0
"""Seconds between two probes of a path that is whole; a bypass must be noticed within 10."""
AGAIN = 0.5
"""Seconds between two probes of one that is not, and at least between any two."""
TOLD_AGAIN = 300.0
"""Seconds between two events about a path that is broken."""
LABELS = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "probe"}
"""Of the probe pod, in NMI's own namespace: no tenant can make one there."""

_NOT_ASKED = (
    "nothing proves that pods' requests arrive at NMI: --path-probe is not given; run podidentity "
    "enable, whose manifest has a probe pod"
)

_log = logging.getLogger("podidentity.path")


class Prober(Protocol):
    """Sends probes; implemented by `adapters.net.NetClient`."""

    @property
    def accepting(self) -> bool:
        """Whether this agent accepts pods' connections, so that a probe can arrive."""

    @property
    def changes(self) -> int:
        """A number that changes with the rules and the links of the node."""

    async def changed(self) -> None:
        """Return when one of both may have changed."""

    async def probe(self, address: str, pod: str = "") -> ProbeResult:
        """Return how far a request comes from the address of the pod with this uid."""


def probe_pod(pods: Iterable[Pod], namespace: str) -> Pod | str:
    """Return the probe pod among a node's pods, or why there is none that can be used.

    Of several the newest: an update starts the new one beside the old one.
    """
    ours = [
        pod
        for pod in pods
        if pod.ref.namespace == namespace and LABELS.items() <= pod.labels.items()
    ]
    running = [pod for pod in ours if pod.phase is Phase.RUNNING and pod.addresses]
    if running:
        return max(running, key=lambda pod: pod.started)
    if not ours:
        return f"no probe pod of namespace {namespace} is on this node"
    newest = max(ours, key=lambda pod: pod.started)
    state = "without an address" if newest.phase is Phase.RUNNING else newest.phase.value
    return f"the probe pod {newest.ref} is {state}"


class PathWatch:
    """Has the path probed; `run` it as a task."""

    def __init__(
        self,
        prober: Prober,
        clock: Clock,
        *,
        pod: Callable[[], Pod | str],
        pods_changed: Callable[[], Coroutine[Any, Any, None]],
        required: bool,
    ) -> None:
        """`pod` returns the probe pod, or why there is none; `required`: there must be one.

        `pods_changed` returns when `pod` may return something else.
        """
        self._prober = prober
        self._clock = clock
        self._pod = pod
        self._pods_changed = pods_changed
        self._required = required
        self._known = DataPath()
        self._told = Hop.NOT_SENT
        self._told_at = -inf
        self.broke: Callable[[str], None] = lambda _: None
        """Is told why the path does not count as whole any more, and again while that lasts."""
        self.mended: Callable[[str], None] = lambda _: None
        """Is told that it does again."""

    @property
    def hop(self) -> Hop:
        """How far probes come, as it counts now."""
        return self._known.hop(self._clock.monotonic())

    @property
    def plane(self) -> str:
        """How the probe pod is connected; "" if that is not known."""
        return self._known.plane

    @property
    def backend(self) -> Backend | None:
        """What leads requests to NMI, by the last one that arrived; None if the path is broken."""
        return self._known.backend if self.hop is Hop.PROVED else None

    @property
    def was_proved(self) -> bool:
        """Whether a request has ever arrived."""
        return self._known.backend is not None

    def problems(self) -> tuple[str, ...]:
        """Return why the path is not whole or not proved; () if it is, or need not be.

        An agent that does not accept yet cannot prove it: then there must be a probe pod.
        """
        if not self._required:
            return (str(self._known.failed),) if self._known.failed else ()
        if not self._prober.accepting:
            pod = self._pod()
            return (pod,) if isinstance(pod, str) else ()
        problem = self._known.problem(self._clock.monotonic())
        return (problem,) if problem else ()

    def warnings(self) -> tuple[str, ...]:
        """Return what an operator should know of a path that counts as whole."""
        if not self._required:
            return (_NOT_ASKED,)
        warning = self._known.warning(self._clock.monotonic())
        return (warning,) if warning else ()

    async def run(self) -> None:
        while True:
            begun, changes = self._clock.monotonic(), self._prober.changes
            if self._required and self._prober.accepting:
                await self._look()
            await self._pause(begun, changes)

    async def _look(self) -> None:
        pod = self._pod()
        if isinstance(pod, str):
            result = ProbeResult(hop=Hop.NOT_SENT, detail=pod)
        else:
            result = await self._prober.probe(ipv4(pod), pod.uid)
        if self._prober.accepting:
            self._known = self._known.after(result, self._clock.monotonic())
            self._tell()

    async def _pause(self, begun: float, changes: int) -> None:
        accepting = self._prober.accepting
        due = begun + (EVERY if self._known.settled or not accepting else AGAIN)
        while (left := due - self._clock.monotonic()) > 0:
            if isinstance(self._pod(), str):
                await first_of(self._pods_changed(), self._clock.sleep(left))
                if isinstance(self._pod(), Pod):
                    return
                continue
            await first_of(self._prober.changed(), self._clock.sleep(left))
            if (self._prober.changes, self._prober.accepting) != (changes, accepting):
                due = min(due, begun + AGAIN)
            if self._prober.accepting and not accepting:
                return

    def _tell(self) -> None:
        """Tell a change of what counts, and a path that is broken every few minutes."""
        now, before = self._clock.monotonic(), self._told
        self._told = self.hop
        failed = str(self._known.failed or "")
        if failed and (self._told is not before or now - self._told_at >= TOLD_AGAIN):
            self._told_at = now
            _log.error("the data path is broken: %s", failed)
            self.broke(failed)
        elif self._told is Hop.PROVED and before is not Hop.PROVED:
            _log.info(
                "the data path is proved (%s, by %s)",
                self.plane or "unknown network",
                self.backend,
            )
            if before is not Hop.NOT_SENT:
                self.mended("a request from the probe pod has arrived at NMI again")


def ipv4(pod: Pod) -> str:
    """Return the pod's IPv4 address: IMDS has no other."""
    return next((each for each in pod.addresses if ":" not in each), pod.addresses[0])

"""How long a request is held for what may still come, and the waiting itself.

A client such as az asks once: if it is refused while a binding, an identity or a controller is a
moment late, it takes that for final. So a refusal that may pass is held back for a while, counted
from the change that made it likely to pass; one that cannot pass is given at once. Further changes
do not prolong that: az has no answer as long as it is held, and other clients leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from podidentity.core.decision import Match, assignment
from podidentity.core.ports import Clock, Cluster
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import Assignment, ObjectRef, Pod
from podidentity.waiting import first_of

_MAY_COME = frozenset(
    {
        Reason.NO_BINDING,
        Reason.OTHER_NAMESPACE,
        Reason.NO_IDENTITY,
        Reason.MALFORMED_BINDING,
        Reason.MALFORMED_IDENTITY,
    }
)
_T = TypeVar("_T")

MOST_OF_NAMESPACE = 256
"""Held requests of one namespace: each is decided again whenever an object of it changes."""
SPREAD = 30.0
"""Seconds after a controller has attached an identity: IMDS keeps what it knows of a machine for a
while, https://github.com/Azure/aad-pod-identity/issues/606."""
AT_ONCE = 4
"""Decisions of a held request that follow a change at once; an identity comes in as many."""
PAUSE = 0.25
"""Seconds between two later ones."""
GRANT_COMES = 2.0
"""Seconds behind a binding in which its grant comes: `podidentity add` makes it last, some requests
to the API server later, so that nobody may use what is half there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldTimes:
    """Seconds; those for a controller are computed from the archived project's flags."""

    change: float = 8.0
    """After a change of the pod's label, a binding or an identity: az never retries, other
    clients give up at 10 s."""
    unseen: float = 80.0
    """For a controller, in standard mode, while no record says that it has begun."""
    begun: float = 100.0
    """For a controller that has: a scale set takes 40 to 60 s."""
    spread: float = SPREAD


class Hold:
    """Computes how long a request may still be held."""

    def __init__(self, cluster: Cluster, clock: Clock, times: HoldTimes) -> None:
        self._cluster = cluster
        self._clock = clock
        self._times = times
        self.held: dict[str, int] = {}
        """Held requests by namespace; none of those that have none."""

    async def wait(self, pod: Pod, left: float, *, revision: int, waits: int) -> bool:
        """Hold a request of `pod` until a change or for `left` seconds; False: there is no place.

        `revision` is the cluster's at the last decision, and `waits` how often it was held before.
        """
        namespace = pod.ref.namespace
        held = self.held.get(namespace, 0)
        if held >= MOST_OF_NAMESPACE:
            return False
        self.held[namespace] = held + 1
        try:
            if waits >= AT_ONCE:
                pause = min(PAUSE, left)
                await self._clock.sleep(pause)
                left -= pause
            if left > 0 and self._cluster.revision == revision:
                await wait_for_change(self._cluster, self._clock, left)
        finally:
            self.held[namespace] -= 1
            if not self.held[namespace]:
                del self.held[namespace]
        return True

    def left(self, matched: Match, refusal: Refusal, begun: float) -> float:
        """Return the seconds for which the cause of `refusal` may still go away; <= 0: it stays.

        `begun` is when the request came, in `Clock.monotonic` seconds.
        """
        if refusal.reason is Reason.NOT_ASSIGNED and refusal.about is not None:
            limit = self._for_controller(matched.pod, refusal.about)
            return begun + limit - self._clock.monotonic()
        return self.after_change(matched.pod, begun) if _may_come(matched, refusal) else 0.0

    def after_change(self, pod: Pod, begun: float) -> float:
        """Return the seconds that are left after the last change that concerns `pod`.

        A wait that began at `begun` is as long as after one change, however many follow: objects of
        its namespace may change all the time, and the client would leave without its answer.
        """
        since = min(self._cluster.changed_at(pod), begun)
        return since + self._times.change - self._clock.monotonic()

    def until_granted(self, pod: Pod, begun: float) -> float:
        """Return the seconds for which the grant of what was just bound may still come.

        As by `after_change`, further changes after `begun` do not prolong it.
        """
        since = min(self._cluster.bound_at(pod), begun)
        return since + min(GRANT_COMES, self._times.change) - self._clock.monotonic()

    def until_known(self, pod: Pod, since: float) -> float:
        """Return the seconds for which Azure may not know yet what was attached or federated.

        `since` is when it first did not.
        """
        attached = min(self._cluster.assigned_at(pod), since)
        spreads = attached + self._times.spread - self._clock.monotonic()
        return max(self.after_change(pod, since), spreads)

    def _for_controller(self, pod: Pod, identity: ObjectRef) -> float:
        record = assignment(tuple(self._cluster.assigned(pod.ref)), pod, identity)
        begun = record is not None and record.state is Assignment.CREATED
        return self._times.begun if begun else self._times.unseen


def _may_come(matched: Match, refusal: Refusal) -> bool:
    if refusal.reason is Reason.NOT_AMONG:
        # The id may be that of the one identity of the pod that is not there yet.
        return any(each.reason in _MAY_COME for each in matched.refusals)
    return refusal.reason in _MAY_COME


async def wait_for_change(cluster: Cluster, clock: Clock, seconds: float) -> None:
    """Return at the next change of the cluster, or after so many seconds."""
    await first_of(cluster.changed(), clock.sleep(seconds))


async def wait_until_found(
    find: Callable[[], _T | None], cluster: Cluster, clock: Clock, seconds: float
) -> _T | None:
    """Return the result of `find`, now or after a change; None after so many seconds without."""
    deadline = clock.monotonic() + seconds
    while not (found := find()):
        left = deadline - clock.monotonic()
        if left <= 0:
            return None
        await wait_for_change(cluster, clock, left)
    return found

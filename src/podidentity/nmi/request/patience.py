"""How long a request waits for what may still come, instead of being refused.

A client such as az asks once: what it is told while a binding, an identity or a controller is a
moment late, it takes for the truth. So a refusal that may pass is kept back for a while, counted
from the change that made it likely to pass, and what cannot pass is said at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from podidentity.core.entitlements import Match
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock, Cluster
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import Assignment, Pod
from podidentity.core.usability import assignment

_MAY_COME = frozenset(
    {
        Reason.NO_BINDING,
        Reason.OTHER_NAMESPACE,
        Reason.NO_IDENTITY,
        Reason.MALFORMED_BINDING,
        Reason.MALFORMED_IDENTITY,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds; those for a controller are made of the archived project's flags."""

    hold: float = 8.0
    """After a change of the pod's label, a binding or an identity: az never retries, other
    clients give up at 10 s."""
    unseen: float = 80.0
    """For a controller, in standard mode, while no record says that it has begun."""
    begun: float = 100.0
    """For a controller that has: a scale set takes 40 to 60 s."""


class Waits:
    """Says how long a request may still wait."""

    def __init__(self, cluster: Cluster, clock: Clock, patience: Patience) -> None:
        self._cluster = cluster
        self._clock = clock
        self._patience = patience

    def left(self, matched: Match, refusal: Refusal, begun: float) -> float:
        """Return for how many seconds what `refusal` misses may still come; 0 or less: no more.

        `begun` is when the request came, in `Clock.monotonic` seconds.
        """
        if refusal.reason is Reason.NOT_ASSIGNED and refusal.about is not None:
            limit = self._for_controller(matched.pod, refusal.about)
            return begun + limit - self._clock.monotonic()
        return self.hold_left(matched.pod) if _may_come(matched, refusal) else 0.0

    def hold_left(self, pod: Pod) -> float:
        """Return how much is left of the hold after the last change that concerns `pod`."""
        return self._cluster.changed_at(pod) + self._patience.hold - self._clock.monotonic()

    def _for_controller(self, pod: Pod, identity: ObjectRef) -> float:
        record = assignment(tuple(self._cluster.assigned(pod.ref)), pod, identity)
        begun = record is not None and record.state is Assignment.CREATED
        return self._patience.begun if begun else self._patience.unseen


def _may_come(matched: Match, refusal: Refusal) -> bool:
    if refusal.reason is Reason.NOT_AMONG:
        # What was asked for may be the one of the pod's identities that is not there yet.
        return any(each.reason in _MAY_COME for each in matched.refusals)
    return refusal.reason in _MAY_COME

"""How far a Deployment's sets are scaled in the next step of a rollout: pure.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#strategy
The arithmetic is that of pkg/controller/deployment/rolling.go and util/deployment_util.go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SetState:
    """A ReplicaSet: how many pods it is to have, has, and has available."""

    wanted: int
    pods: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many pods there may be more, and fewer, than the Deployment wants."""

    surge: int
    unavailable: int


def bounds(wanted: int, max_surge: int | str, max_unavailable: int | str) -> Bounds:
    """Resolve both limits; where both come to nothing, one pod may be away."""
    surge = _resolved(max_surge, wanted, up=True)
    unavailable = _resolved(max_unavailable, wanted, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return Bounds(surge=surge, unavailable=min(unavailable, wanted))


def _resolved(limit: int | str, wanted: int, *, up: bool) -> int:
    if isinstance(limit, int):
        return limit
    share = wanted * int(limit.removesuffix("%")) / 100
    return math.ceil(share) if up else math.floor(share)


def new_size(wanted: int, limits: Bounds, new: SetState, old: Sequence[SetState]) -> int:
    """Return what the new set is to be scaled to now."""
    if new.wanted > wanted:
        return wanted
    room = wanted + limits.surge - new.wanted - sum(each.wanted for each in old)
    return new.wanted + max(0, min(room, wanted - new.wanted))


def old_sizes(wanted: int, limits: Bounds, new: SetState, old: Sequence[SetState]) -> list[int]:
    """Return what the old sets are to be scaled to now, in their order, oldest first.

    First go pods that are not available anyway, then as many as the Deployment can spare.
    """
    least = wanted - limits.unavailable
    everything = new.wanted + sum(each.wanted for each in old)
    spare = everything - least - (new.wanted - new.available)
    sizes = [each.wanted for each in old]
    if spare <= 0:
        return sizes
    for index, each in enumerate(old):
        sick = max(0, each.wanted - each.available)
        gone = max(0, min(sick, spare))
        sizes[index] -= gone
        spare -= gone
    free = new.available + sum(each.available for each in old) - least
    for index, size in enumerate(sizes):
        gone = max(0, min(size, free))
        sizes[index] -= gone
        free -= gone
    return sizes

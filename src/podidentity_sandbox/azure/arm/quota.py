"""The quota of a subscription: how many requests ARM takes from one caller, and how it says so.

A bucket of tokens for each subscription, caller and kind of request; a request takes one, and they
come back at a steady rate: https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling.
The names of the headers are from there, too; the words of the refusal are from memory. What Compute
counts is written as it was seen in
https://gist.github.com/lastcoolnameleft/4cf6ceb49fdb4fb990ed163f628fa910, with the limit of updates
of virtual machines in a subscription, https://learn.microsoft.com/azure/virtual-machines/compute-throttling-limits.
The limits of a single machine are not counted here, nor the whole subscription's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from podidentity_sandbox.azure.arm.call import ArmError


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket's size, and the tokens that it gets a second."""

    size: int
    rate: float


LIMITS = {"reads": Limit(250, 25.0), "writes": Limit(200, 10.0), "deletes": Limit(200, 10.0)}
"""By the kind of request, as the headers name it."""
COMPUTE = Limit(1500, 500 / 60)
"""Changes of machines in a subscription."""


def kind_of(method: str) -> str:
    """Return the kind of a request, as the headers name it."""
    return {"GET": "reads", "HEAD": "reads", "DELETE": "deletes"}.get(method, "writes")


class Quota:
    """All buckets."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, ...], tuple[float, float]] = {}
        """The tokens of each, and when it had them, in seconds since 1970."""

    def take(self, method: str, path: str, caller: str, now: float) -> dict[str, str]:
        """Return the headers of the answer; raise ArmError 429 where the quota is used up.

        `caller` is an object id, `now` seconds since 1970.
        """
        steps = path.lower().split("/")
        subscription = steps[2] if steps[1:2] == ["subscriptions"] and len(steps) > 2 else ""
        kind = kind_of(method)
        scope = "subscription" if subscription else "tenant"
        header = f"x-ms-ratelimit-remaining-{scope}-{kind}"
        left, pause = self._take((scope, subscription, caller, kind), LIMITS[kind], now)
        headers = {header: str(left)}
        if pause:
            raise _throttled(kind, subscription, caller, pause, headers)
        if kind == "writes" and "/providers/microsoft.compute/" in path.lower():
            left, pause = self._take(("compute", subscription), COMPUTE, now)
            headers["x-ms-ratelimit-remaining-resource"] = (
                f"Microsoft.Compute/UpdateVMSubscriptionMaximum;{left}"
            )
            if pause:
                raise _throttled(kind, subscription, caller, pause, headers)
        return headers

    def _take(self, key: tuple[str, ...], limit: Limit, now: float) -> tuple[int, float]:
        """Take a token; return how many are left, and the seconds until there is one."""
        left, at = self._buckets.get(key, (limit.size, now))
        left = min(limit.size, left + max(0.0, now - at) * limit.rate)
        pause = (1 - left) / limit.rate if left < 1 else 0.0
        left -= 0 if pause else 1
        self._buckets[key] = left, now
        return int(left), pause


def _throttled(
    kind: str, subscription: str, caller: str, pause: float, headers: dict[str, str]
) -> ArmError:
    seconds = max(1, math.ceil(pause))
    return ArmError(
        429,
        "SubscriptionRequestsThrottled" if subscription else "TenantRequestsThrottled",
        f"Number of '{kind.removesuffix('s')}' requests for"
        f" {f'subscription {subscription!r}' if subscription else 'the tenant'} actor '{caller}'"
        f" exceeded. Please try again after '{seconds}' seconds after additional tokens are"
        " available. Refer to https://aka.ms/arm-throttling for additional information.",
        headers={**headers, "Retry-After": str(seconds)},
    )

"""How long a token is given, when it is renewed, and how long a failure is cached.

All times are seconds of the token's age, counted from its arrival: a change of the clock afterwards
has no effect on them.

    0 ────────── renew ─────────── stale ──────────────── last, before it expires
      given        │  given, and a  │  given only if no new  │  never given
                   │  new one is    │  one can be fetched    │
                   │  fetched       │                        │
"""

from __future__ import annotations

from dataclasses import dataclass

from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenThrottled,
    TokenUnavailable,
)

MARGIN = 300.0
"""Seconds. Clients discard a token with less life, and would ask again with every request.
https://github.com/Azure/azure-sdk-for-python/blob/main/sdk/identity/azure-identity/azure/identity/_internal/get_token_mixin.py
"""
LONG = 7200.0
"""Seconds. A token with at least this life is renewed at half of it, as in the same client."""
JITTER = 0.1
"""Largest part of its age by which a renewal comes early, so that renewals spread."""
RENEWAL_INTERVAL = 30.0
"""Seconds between two attempts of a renewal, as in that client."""
LEAST_LIFE = 30.0
"""Seconds. A token with less life could expire on the way from the pod to the service."""

_SLOWEST_RETRY = 3600.0
"""Seconds. Longest Retry-After that counts: MSAL's limit.
https://github.com/AzureAD/microsoft-authentication-library-for-python/blob/dev/msal/throttled_http_client.py
"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Ages of a token at which its treatment changes, in ascending order."""

    renew: float
    stale: float
    last: float


def schedule(life: float, *, jitter: float = 0.0) -> Schedule:
    """Return the schedule of a token with `life` seconds left; `jitter` is from 0 to 1."""
    # A token with less than ten minutes is fresh for half of its life.
    stale = life - min(MARGIN, life / 2)
    renew = life / 2 if life >= LONG else stale - min(MARGIN, stale / 4)
    return Schedule(
        renew=renew * (1 - JITTER * jitter),
        stale=stale,
        last=max(stale, life - LEAST_LIFE),
    )


def negative_ttl(error: TokenUnavailable, before: int) -> float:
    """Return for how many seconds `error` is repeated without a request to the issuer.

    `before`: number of failures in a row before this one.
    """
    if isinstance(error, TokenThrottled):
        return min(float(error.retry_after), _SLOWEST_RETRY)
    if isinstance(error, NotYetKnown):
        # A new attachment or credential spreads within seconds, and requests are held meanwhile.
        return _growing(0.5, before, most=2.0)
    if isinstance(error, TokenRefused):
        # A 400 concerns the request itself: MSAL caches it for a minute. An operator corrects the
        # causes of the others in Azure, and watches the pod meanwhile.
        return 60.0 if error.status == 400 else 10.0
    # An outage: try each second at first, then every ten seconds.
    return _growing(1.0, before, most=10.0)


def _growing(first: float, before: int, *, most: float) -> float:
    return min(most, first * 2.0 ** min(before, 16))

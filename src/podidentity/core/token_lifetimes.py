"""How long a token answers, when it is fetched again, and how long a failure is believed.

Everything is in seconds of age, counted from when the token came: a clock that is set afterwards
changes nothing about what is left of it.

    0 ────────── renew ─────────── stale ──────────────── last, before it expires
      as it is     │  as it is, and │  a new one is fetched  │  never
                   │  a new one is  │  first; as it is where │
                   │  fetched       │  none can be fetched   │
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
"""Clients take a token with less life for none, and would ask again with every request.
https://github.com/Azure/azure-sdk-for-python/blob/main/sdk/identity/azure-identity/azure/identity/_internal/get_token_mixin.py
"""
LONG = 7200.0
"""From this life on a token is renewed at half of it, as the same client does."""
JITTER = 0.1
"""Part of its age by which a renewal may come early: tokens fetched at once part ways."""
RENEWAL_INTERVAL = 30.0
"""Seconds between two attempts to renew ahead; that client's own."""
LEAST_LIFE = 30.0
"""Seconds. A token with less life could expire on the way from the pod to the service."""

_SLOWEST_RETRY = 3600.0
"""No Retry-After is believed beyond it: MSAL's limit.
https://github.com/AzureAD/microsoft-authentication-library-for-python/blob/dev/msal/throttled_http_client.py
"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Ages of a token at which something changes; each at least the one before."""

    renew: float
    stale: float
    last: float


def schedule(life: float, *, jitter: float = 0.0) -> Schedule:
    """Return what becomes of a token with `life` seconds left; `jitter` is from 0 to 1."""
    # One that was never good for ten minutes is kept for half of what it has.
    stale = life - min(MARGIN, life / 2)
    renew = life / 2 if life >= LONG else stale - min(MARGIN, stale / 4)
    return Schedule(
        renew=renew * (1 - JITTER * jitter),
        stale=stale,
        last=max(stale, life - LEAST_LIFE),
    )


def negative_ttl(error: TokenUnavailable, before: int) -> float:
    """Return for how many seconds `error` is repeated without asking the issuer again.

    `before`: how often in a row it was met already.
    """
    if isinstance(error, TokenThrottled):
        return min(float(error.retry_after), _SLOWEST_RETRY)
    if isinstance(error, NotYetKnown):
        # A new attachment or credential spreads within seconds, and pods are held for it.
        return _growing(0.5, before, most=2.0)
    if isinstance(error, TokenRefused):
        # A 400 is about the request: MSAL repeats it for a minute. The others are about what an
        # operator corrects in Azure, who watches the pod meanwhile.
        return 60.0 if error.status == 400 else 10.0
    # Down: one attempt a second finds out soon, one in ten is enough of a longer outage.
    return _growing(1.0, before, most=10.0)


def _growing(first: float, before: int, *, most: float) -> float:
    return min(most, first * 2.0 ** min(before, 16))

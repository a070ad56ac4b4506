"""Token requests, grants and access tokens, and how long a token is given.

Anyone with the text of a token can use it, so no `repr` shows it, and only the answer contains it.

A token is renewed before it is of no use to clients, and a failure is cached for a while. All times
are seconds of the token's age, counted from its arrival: a change of the clock afterwards has no
effect on them.

    0 ────────── renew ─────────── stale ──────────────── last, before it expires
      given        │  given, and a  │  given only if no new  │  never given
                   │  new one is    │  one can be fetched    │
                   │  fetched       │                        │
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from podidentity.core.errors import (
    InvalidRequest,
    NotYetKnown,
    TokenRefused,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.resources import AzureIdentity, ClientId, ObjectId, Pod, ResourceId, Tenant

LONGEST_RESOURCE = 512
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

_VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A pod's request, parsed; at most one of the three ids is given."""

    resource: str
    """The audience exactly as requested, with or without a slash at its end: it is echoed."""
    client_id: ClientId | None = None
    object_id: ObjectId | None = None
    resource_id: ResourceId | None = None
    bypass_cache: bool = False
    tenant: Tenant | None = None
    """One of the identity's auxiliary tenants, named by IMDS's parameter `authority`."""

    @property
    def asked(self) -> ClientId | ObjectId | ResourceId | None:
        """The requested id, if any."""
        return self.client_id or self.object_id or self.resource_id


def parse_resource(value: str) -> str:
    """Return the requested audience, unchanged; raise InvalidRequest."""
    if not value:
        raise InvalidRequest("parameter resource is missing")
    if len(value) > LONGEST_RESOURCE:
        raise InvalidRequest(f"resource is longer than {LONGEST_RESOURCE} characters")
    if not _VISIBLE.fullmatch(value):
        raise InvalidRequest("resource has white space or control characters")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The result of the rules: a token of `identity` may be fetched for `pod`."""

    identity: AzureIdentity
    pod: Pod
    """The pod that requests the token; the subject of a federated identity's assertion."""
    tenant: Tenant | None = None
    """An auxiliary tenant; None: the identity's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A token and its lifetime. Times are whole seconds since 1970."""

    value: str = field(repr=False)
    client_id: ClientId | None
    expires_on: int
    not_before: int
    resource: str
    ext_expires_in: int = 0
    """Seconds that it may be used beyond `expires_on` in an outage; 0 if the issuer names none."""
    token_type: str = "Bearer"  # noqa: S105 - a type of token, not a token

    def life(self, now: float) -> int:
        """Return the whole seconds left at `now`, never negative."""
        return max(0, self.expires_on - int(now))


class Origin(StrEnum):
    """The origin of a token, for the log."""

    CACHE = "cache"
    IMDS = "imds"
    ENTRA = "entra"
    SHARED = "shared"
    """The fetch of another request, already under way."""


class CachedToken(Protocol):
    """A token, and the time until which it may be given without a look-up."""

    @property
    def token(self) -> AccessToken:
        """The token."""

    @property
    def fresh_until(self) -> float:
        """In monotonic seconds; in the past after the entry was dropped or replaced."""

    @property
    def fresh_until_time(self) -> float:
        """The same in seconds since 1970; the earlier one counts."""


class Fetched(NamedTuple):
    """A token from its source."""

    entry: CachedToken
    origin: Origin

    @property
    def token(self) -> AccessToken:
        """The token itself."""
        return self.entry.token


# How long a token is given.


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

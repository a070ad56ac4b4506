"""The token cache: one fetch at a time for each token, shared by all requests for it.

A node's pods request few different tokens, often, and all at once after a restart; IMDS allows 20
requests a second. Requests share a fetch that is under way, and it goes on if one of their clients
disconnects. A token in use is renewed in the background; an unused one costs nothing. The numbers,
with their reasons, are in `core.tokens`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from math import ceil, inf

from podidentity.adapters.tokencache.entries import (
    CAPACITY,
    CAPACITY_OF_POD,
    CacheEntries,
    CacheEntry,
    Key,
    Moment,
    NegativeCache,
)
from podidentity.core.errors import (
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.ports import Clock, TokenIssuer
from podidentity.core.rate_limits import RateLimiter
from podidentity.core.resources import IdentityType, ObjectRef
from podidentity.core.tokens import Fetched, Grant, Origin, schedule

FORCED = 1.0
"""Seconds during which a token fetched with `bypass_cache` answers other such requests."""
MISSES_PER_SECOND = 2.0
MISSES_AT_ONCE = 10.0
"""Cache misses of one pod: at its start it requests a few audiences of a few identities at once."""

CurrentGrants = Callable[[Grant], Iterable[Grant]]
"""Yields a grant with the current objects; nothing if its identity is gone."""


class TokenCache:
    """A core.ports.TokenSource in front of a TokenIssuer. Close it when done."""

    def __init__(
        self,
        issuer: TokenIssuer,
        clock: Clock,
        *,
        current: CurrentGrants = lambda grant: (grant,),
        capacity: int = CAPACITY,
        capacity_of_pod: int = CAPACITY_OF_POD,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._issuer = issuer
        self._current = current
        self._jitter = jitter
        self._entries = CacheEntries(capacity=capacity, capacity_of_pod=capacity_of_pod)
        self._failures = NegativeCache()
        self._misses = RateLimiter(MISSES_PER_SECOND, MISSES_AT_ONCE)
        self._flights: dict[tuple[Key, bool], asyncio.Task[CacheEntry]] = {}
        # Bound once: the hot path calls them for each request.
        self._credential = issuer.credential
        self._time, self._monotonic = clock.time, clock.monotonic

    def __len__(self) -> int:
        return len(self._entries)

    def cached(self, grant: Grant, resource: str) -> CacheEntry | None:
        """Return a fresh entry without waiting, or None; then call `fetch`."""
        entry = self._entries.get((self._credential(grant), resource))
        if entry is None:
            return None
        now = self._monotonic()
        if now >= entry.fresh_until or self._time() >= entry.fresh_until_time:
            return None
        entry.used = now
        return entry

    async def fetch(self, grant: Grant, resource: str, *, bypass_cache: bool = False) -> Fetched:
        """Return a token of `grant` for `resource`; raise a TokenUnavailable."""
        if not bypass_cache and (found := self.cached(grant, resource)):
            return Fetched(found, Origin.CACHE)
        now = self._now()
        credential, paid = self._credential(grant), False
        if credential is None:
            self._count_miss(grant, now)
            credential, paid = await self._issuer.ready(grant), True
        key = (credential, resource)
        entry = self._entries.get(key)
        if entry and not bypass_cache and not entry.stale(now):
            entry.used = now.monotonic
            self._renew(entry, grant, now)
            return Fetched(entry, Origin.CACHE)
        try:
            return await self._share(key, grant, bypass=bypass_cache, paid=paid)
        except (TokenSourceDown, TokenThrottled):
            if entry is None or bypass_cache or entry.expired(self._now()):
                raise
            return Fetched(entry, Origin.CACHE)

    async def prepare(self, grant: Grant, resource: str) -> None:
        """Fetch a token before its first request, unless it is cached; raise TokenUnavailable."""
        credential = self._credential(grant) or await self._issuer.ready(grant)
        key, now = (credential, resource), self._now()
        entry = self._entries.get(key)
        if entry and not entry.stale(now):
            return
        if self._failures.get(key, grant.pod.uid, now.monotonic) is None:
            await asyncio.shield(self._flight(key, grant, asked=False))

    def audiences(self, ref: ObjectRef) -> Sequence[str]:
        """Return the audiences for which pods have requested tokens of this identity."""
        return sorted({each.key[1] for each in self._entries.of_object(ref) if each.used > -inf})

    def entries(self) -> Sequence[CacheEntry]:
        """Return all entries, for `/debug`."""
        return self._entries.all()

    def changed(self, ref: ObjectRef) -> None:
        """Drop entries that the change of an identity, service account or secret has ended."""
        for entry in self._entries.of_object(ref):
            if not self._stands(entry.key, entry.grant):
                self._entries.drop(entry)

    async def settled(self) -> None:
        """Return when no fetch is under way."""
        while self._flights:
            await asyncio.wait(self._flights.values())

    async def close(self) -> None:
        """Cancel the fetches under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _share(self, key: Key, grant: Grant, *, bypass: bool, paid: bool) -> Fetched:
        """Return the token of `key` from a new fetch, or from one that is under way."""
        while (flight := self._flights.get((key, bypass))) is not None:
            try:
                return Fetched(await asyncio.shield(flight), Origin.SHARED)
            except TokenUnavailable as error:
                if not error.of_caller:
                    raise
                # The fetch failed only for the pod that began it; this pod may have the token.
        now = self._now()
        entry = self._entries.get(key)
        if bypass and entry and entry.forced and entry.age(now) < FORCED:
            return Fetched(entry, Origin.SHARED)
        failure = self._failures.get(key, grant.pod.uid, now.monotonic)
        # A request that bypasses the cache asks again after a refusal.
        if failure and not (bypass and isinstance(failure, TokenRefused)):
            raise failure
        if not paid:
            self._count_miss(grant, now)
        return Fetched(
            await asyncio.shield(self._flight(key, grant, bypass=bypass)), _origin(grant)
        )

    def _count_miss(self, grant: Grant, now: Moment) -> None:
        """Raise TokenThrottled if the pod has used up its budget of cache misses."""
        wait = self._misses.take(grant.pod.uid, now.monotonic)
        if wait > 0:
            raise TokenThrottled(
                "The pod requests new tokens too often; tokens in the cache are still given.",
                retry_after=ceil(wait),
                of_caller=True,
            )

    def _renew(self, entry: CacheEntry, grant: Grant, now: Moment) -> None:
        entry.renewing(now)
        if self._failures.get(entry.key, grant.pod.uid, now.monotonic) is None:
            self._flight(entry.key, grant)

    def _flight(
        self, key: Key, grant: Grant, *, bypass: bool = False, asked: bool = True
    ) -> asyncio.Task[CacheEntry]:
        """Return the fetch of `key` that is under way, or begin one."""
        flight = self._flights.get((key, bypass))
        if flight is None:
            flight = asyncio.create_task(self._fetch(key, grant, bypass=bypass, asked=asked))
            self._flights[key, bypass] = flight
            flight.add_done_callback(lambda done: self._landed(key, bypass, done))
        return flight

    async def _fetch(self, key: Key, grant: Grant, *, bypass: bool, asked: bool) -> CacheEntry:
        uid = grant.pod.uid
        try:
            token = await self._issuer.issue(grant, key[1], bypass_cache=bypass)
        except TokenUnavailable as error:
            self._failures.put(key, uid, error, self._monotonic())
            raise
        self._failures.drop(key, uid)
        now = self._now()
        before = self._entries.get(key)
        entry = CacheEntry(
            key=key,
            token=token,
            grant=grant,
            owner=uid,
            since=now,
            schedule=schedule(token.life(now.time), jitter=self._jitter()),
            forced=bypass,
            used=now.monotonic if asked else before.used if before else -inf,
        )
        if self._stands(key, grant):
            self._entries.put(entry)
        else:
            entry.end()
        return entry

    def _stands(self, key: Key, grant: Grant) -> bool:
        return any(self._credential(each) == key[0] for each in self._current(grant))

    def _now(self) -> Moment:
        return Moment(self._time(), self._monotonic())

    def _landed(self, key: Key, bypass: bool, flight: asyncio.Task[CacheEntry]) -> None:
        del self._flights[key, bypass]
        if not flight.cancelled():
            # All clients may have disconnected; then nothing else retrieves the exception.
            flight.exception()


def _origin(grant: Grant) -> Origin:
    managed = grant.identity.type is IdentityType.USER_ASSIGNED
    return Origin.IMDS if managed else Origin.ENTRA

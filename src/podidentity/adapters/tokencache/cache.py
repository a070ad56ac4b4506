"""Tokens kept while they are good, and one fetch at a time for each.

A node's pods ask for few different tokens, often, and all at once after a restart; IMDS allows 20
requests a second. A fetch belongs to no request: whoever asks meanwhile shares it, and a client
that leaves takes nothing from the others. What is used is renewed behind those who use it; what is
not used costs nothing. The numbers, with their reasons, are in `core.caching`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from math import inf

from podidentity.adapters.tokencache.budgets import Budgets
from podidentity.adapters.tokencache.failures import Failures
from podidentity.adapters.tokencache.kept import Kept, Key, Moment
from podidentity.adapters.tokencache.store import CAPACITY, SHARE, Store
from podidentity.core.caching import schedule
from podidentity.core.errors import (
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock, Origin, TokenIssuer
from podidentity.core.resources import IdentityType
from podidentity.core.tokens import AccessToken, Grant

SHARED = 1.0
"""Seconds for which a token fetched past all caches answers others who want the same."""

Standing = Callable[[Grant], Iterable[Grant]]
"""Gives a grant as it stands now; nothing where its reason is gone."""


class TokenCache:
    """A core.ports.TokenSource in front of whoever issues tokens. Close it when done."""

    def __init__(
        self,
        issuer: TokenIssuer,
        clock: Clock,
        *,
        standing: Standing = lambda grant: (grant,),
        capacity: int = CAPACITY,
        share: int = SHARE,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._issuer = issuer
        self._standing = standing
        self._jitter = jitter
        self._store = Store(capacity=capacity, share=share)
        self._failures = Failures()
        self._budgets = Budgets()
        self._flights: dict[tuple[Key, bool], asyncio.Task[AccessToken]] = {}
        # Bound once: the hot path calls them for each request.
        self._credential = issuer.credential
        self._time, self._monotonic = clock.time, clock.monotonic

    def __len__(self) -> int:
        return len(self._store)

    def cached(self, grant: Grant, resource: str) -> Kept | None:
        """Return a token that needs nothing done, without waiting; `fetch` does the rest."""
        kept = self._store.get((self._credential(grant), resource))
        if kept is None:
            return None
        now = self._monotonic()
        if now >= kept.fresh_until or self._time() >= kept.fresh_until_time:
            return None
        kept.used = now
        return kept

    async def fetch(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> tuple[AccessToken, Origin]:
        """Return a token of `grant` for `resource`; raise a TokenUnavailable."""
        if not bypass_cache and (found := self.cached(grant, resource)):
            return found.token, Origin.CACHE
        now = self._now()
        credential, paid = self._credential(grant), False
        if credential is None:
            self._budgets.take(grant.pod.uid, now.monotonic)
            credential, paid = await self._issuer.ready(grant), True
        key = (credential, resource)
        kept = self._store.get(key)
        if kept and not bypass_cache and not kept.stale(now):
            kept.used = now.monotonic
            self._renew(kept, grant, now)
            return kept.token, Origin.CACHE
        try:
            return await self._share(key, grant, bypass=bypass_cache, paid=paid)
        except (TokenSourceDown, TokenThrottled):
            rest = kept.in_an_outage(self._now()) if kept and not bypass_cache else None
            if rest is None:
                raise
            return rest, Origin.CACHE

    async def prepare(self, grant: Grant, resource: str) -> None:
        """Fetch a token before anybody asks for it, where there is none; raise TokenUnavailable."""
        credential = self._credential(grant) or await self._issuer.ready(grant)
        key, now = (credential, resource), self._now()
        kept = self._store.get(key)
        if (kept and not kept.stale(now)) or self._failures.recall(key, now.monotonic):
            return
        await asyncio.shield(self._flight(key, grant, asked=False))

    def audiences(self, ref: ObjectRef) -> Sequence[str]:
        """Return what tokens of the identity of that name are used for on this node."""
        return sorted({each.key[1] for each in self._store.about(ref) if each.used > -inf})

    def entries(self) -> Sequence[Kept]:
        """Return all that is kept, for who looks on."""
        return self._store.all()

    def changed(self, ref: ObjectRef) -> None:
        """Drop what an object's change has ended: an identity, a service account, a secret."""
        for kept in self._store.about(ref):
            if not self._stands(kept.key, kept.grant):
                self._store.drop(kept)

    async def settled(self) -> None:
        """Return when no fetch is under way."""
        while self._flights:
            await asyncio.wait(self._flights.values())

    async def close(self) -> None:
        """End the fetches under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _share(
        self, key: Key, grant: Grant, *, bypass: bool, paid: bool
    ) -> tuple[AccessToken, Origin]:
        """Return what is fetched for `key`, by this request or by one before it."""
        now = self._now()
        if (key, bypass) in self._flights:
            return await asyncio.shield(self._flights[key, bypass]), Origin.SHARED
        kept = self._store.get(key)
        if bypass and kept and kept.forced and kept.age(now) < SHARED:
            return kept.token, Origin.SHARED
        failure = self._failures.recall(key, now.monotonic)
        # Who bypasses a cache wants to know whether a refusal still stands.
        if failure and not (bypass and isinstance(failure, TokenRefused)):
            raise failure
        if not paid:
            self._budgets.take(grant.pod.uid, now.monotonic)
        token = await asyncio.shield(self._flight(key, grant, bypass=bypass))
        return token, _origin(grant)

    def _renew(self, kept: Kept, grant: Grant, now: Moment) -> None:
        kept.renewing(now)
        if self._failures.recall(kept.key, now.monotonic) is None:
            self._flight(kept.key, grant)

    def _flight(
        self, key: Key, grant: Grant, *, bypass: bool = False, asked: bool = True
    ) -> asyncio.Task[AccessToken]:
        """Return the fetch of `key` that is under way, or begin one."""
        flight = self._flights.get((key, bypass))
        if flight is None:
            flight = asyncio.create_task(self._fetch(key, grant, bypass=bypass, asked=asked))
            self._flights[key, bypass] = flight
            flight.add_done_callback(lambda done: self._landed(key, bypass, done))
        return flight

    async def _fetch(self, key: Key, grant: Grant, *, bypass: bool, asked: bool) -> AccessToken:
        try:
            token = await self._issuer.issue(grant, key[1], bypass_cache=bypass)
        except TokenUnavailable as error:
            self._failures.remember(key, error, self._monotonic())
            raise
        self._failures.forget(key)
        if self._stands(key, grant):
            self._store.put(self._kept(key, grant, token, forced=bypass, asked=asked))
        return token

    def _kept(
        self, key: Key, grant: Grant, token: AccessToken, *, forced: bool, asked: bool
    ) -> Kept:
        now = self._now()
        before = self._store.get(key)
        used = now.monotonic if asked else before.used if before else -inf
        return Kept(
            key=key,
            token=token,
            grant=grant,
            owner=grant.pod.uid,
            since=now,
            schedule=schedule(
                token.life(now.time), extended=token.ext_expires_in, jitter=self._jitter()
            ),
            forced=forced,
            used=used,
        )

    def _stands(self, key: Key, grant: Grant) -> bool:
        return any(self._credential(each) == key[0] for each in self._standing(grant))

    def _now(self) -> Moment:
        return Moment(self._time(), self._monotonic())

    def _landed(self, key: Key, bypass: bool, flight: asyncio.Task[AccessToken]) -> None:
        del self._flights[key, bypass]
        if not flight.cancelled():
            # Perhaps everybody has left; a failure without a listener is none to complain about.
            flight.exception()


def _origin(grant: Grant) -> Origin:
    managed = grant.identity.type is IdentityType.USER_ASSIGNED
    return Origin.IMDS if managed else Origin.ENTRA

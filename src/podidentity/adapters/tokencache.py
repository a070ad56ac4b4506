"""Tokens kept while they are good, and one fetch at a time for each.

A node's pods ask for few different tokens, often, and all at once after a restart; IMDS allows 20
requests a second. A fetch belongs to no request: whoever asks meanwhile shares it, and a client
that leaves takes nothing from the others. Failures are not kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from podidentity.core.errors import TokenSourceDown, TokenThrottled
from podidentity.core.ports import Clock, Origin, TokenIssuer
from podidentity.core.tokens import AccessToken, Grant

MARGIN = 300.0
"""Seconds of life that a token must have left: clients take less for none."""
LAST = 30.0
"""Seconds of life with which a token is still given while its source is down."""

# All that decides which token it is: credential and audience. Who may have it is decided before
# anybody looks here.
_Key = tuple[Hashable, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    token: AccessToken
    stale: float
    """When it is fetched anew, in seconds since 1970."""


class TokenCache:
    """A core.ports.TokenSource in front of whoever issues tokens. Close it when done."""

    def __init__(self, issuer: TokenIssuer, clock: Clock, *, capacity: int = 1000) -> None:
        self._issuer = issuer
        self._clock = clock
        self._capacity = capacity
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._flights: dict[tuple[_Key, bool], asyncio.Task[AccessToken]] = {}

    async def fetch(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> tuple[AccessToken, Origin]:
        """Return a token of `grant` for `resource`; raise a TokenUnavailable."""
        key = (self._issuer.credential(grant) or await self._issuer.ready(grant), resource)
        entry = self._entries.get(key)
        if entry and not bypass_cache and self._clock.time() < entry.stale:
            self._entries.move_to_end(key)
            return entry.token, Origin.CACHE
        try:
            return await self._share(key, grant, resource, bypass_cache)
        except (TokenSourceDown, TokenThrottled):
            if entry and not bypass_cache and entry.token.life(self._clock.time()) > LAST:
                return entry.token, Origin.CACHE
            raise

    async def close(self) -> None:
        """End the fetches under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _share(
        self, key: _Key, grant: Grant, resource: str, bypass: bool
    ) -> tuple[AccessToken, Origin]:
        flight = self._flights.get((key, bypass))
        origin = Origin.SHARED
        if flight is None:
            origin = Origin.IMDS
            flight = asyncio.create_task(self._fetch(key, grant, resource, bypass))
            self._flights[key, bypass] = flight
            flight.add_done_callback(lambda done: self._landed(key, bypass, done))
        return await asyncio.shield(flight), origin

    async def _fetch(self, key: _Key, grant: Grant, resource: str, bypass: bool) -> AccessToken:
        token = await self._issuer.issue(grant, resource, bypass_cache=bypass)
        now = self._clock.time()
        # A token that was never good for ten minutes is kept for half of what it has.
        margin = min(MARGIN, token.life(now) / 2)
        self._entries[key] = _Entry(token, token.expires_on - margin)
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return token

    def _landed(self, key: _Key, bypass: bool, flight: asyncio.Task[AccessToken]) -> None:
        del self._flights[key, bypass]
        if not flight.cancelled():
            # Perhaps everybody has left; a failure without a listener is none to complain about.
            flight.exception()

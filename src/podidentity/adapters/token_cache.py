"""The token cache: one fetch at a time for each token, shared by all requests for it.

A node's pods request few different tokens, often, and all at once after a restart; IMDS allows 20
requests a second. Requests share a fetch that is under way, and it goes on if one of their clients
disconnects. A token in use is renewed in the background; an unused one costs nothing.

A token is renewed before it is of no use to clients, and a failure is cached for a while. All times
are seconds of the token's age, counted from its arrival: a change of the clock afterwards has no
effect on them.

    0 ────────── renew ─────────── stale ──────────────── last, before it expires
      given        │  given, and a  │  given only if no new  │  never given
                   │  new one is    │  one can be fetched    │
                   │  fetched       │                        │

An entry itself knows until when it is fresh (`fresh_until`, `fresh_until_time`), so the memo of
answers can use it without a look-up. An entry that is evicted, dropped or replaced is not fresh.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any, TypeVar

from podidentity.backoff import backoff
from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.ports import Clock, TokenIssuer
from podidentity.core.rate_limits import FairCache, RateLimiter, kib
from podidentity.core.resources import (
    AccessToken,
    AzureIdentity,
    Fetched,
    Grant,
    IdentityType,
    ObjectRef,
    Origin,
)
from podidentity.waiting import end_all

CAPACITY = 5000
"""KiB, as `kib` counts; a full node's pods need some hundred tokens of two or three."""
CAPACITY_OF_POD = 64
"""A pod that asks for a thousand audiences evicts its own tokens only."""
NEGATIVE_CAPACITY = 1000
"""KiB."""
FORGOTTEN = 60.0
"""Seconds after the end of a failure; a later failure starts the back-off anew."""
FORCED = 1.0
"""Seconds during which a token fetched with `bypass_cache` answers other such requests."""
MISSES_PER_SECOND = 2.0
MISSES_AT_ONCE = 10.0
"""Cache misses of one pod: at its start it requests a few audiences of a few identities at once."""

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

Key = tuple[Hashable, str]
"""Credential and audience. The rules have decided before whether the pod may have the token."""
Told = Callable[[AzureIdentity, str, float], None]
"""Takes note of a request to an issuer: `ok` or the kind of error, and its seconds."""
CurrentGrants = Callable[[Grant], Iterable[Grant]]
"""Yields a grant with the current objects; nothing if its identity is gone."""

_Name = TypeVar("_Name", bound=Hashable)
_T = TypeVar("_T")


class TokenCache:
    """A core.ports.TokenSource in front of the TokenIssuers. Close it when done."""

    def __init__(
        self,
        issuers: Mapping[IdentityType, TokenIssuer],
        clock: Clock,
        *,
        told: Told = lambda *_: None,
        current: CurrentGrants = lambda grant: (grant,),
        capacity: int = CAPACITY,
        capacity_of_pod: int = CAPACITY_OF_POD,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._issuers = issuers
        self._told = told
        self._current = current
        self._jitter = jitter
        self._entries = CacheEntries(capacity=capacity, capacity_of_pod=capacity_of_pod)
        self._failures = NegativeCache()
        self._misses = RateLimiter(MISSES_PER_SECOND, MISSES_AT_ONCE)
        self._flights: dict[tuple[Key, bool], asyncio.Task[CacheEntry]] = {}
        # Bound once: the hot path calls them for each request.
        self._time, self._monotonic = clock.time, clock.monotonic
        self._sleep = clock.sleep

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

    async def fetch(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False, until: float = inf
    ) -> Fetched:
        """Return a token of `grant` for `resource`; raise a TokenUnavailable.

        At `until`, in monotonic seconds, it returns an old token that is still good or raises
        TokenSourceDown; the fetch goes on.
        """
        if not bypass_cache and (found := self.cached(grant, resource)):
            return Fetched(found, Origin.CACHE)
        now = self._now()
        credential, paid = self._credential(grant), False
        if credential is None:
            self._count_miss(grant, now)
            ready = asyncio.ensure_future(self._ready(grant))
            try:
                credential, paid = await self._by(until, ready, grant), True
            finally:
                ready.cancel()
        key = (credential, resource)
        entry = self._entries.get(key)
        if entry and not bypass_cache and not entry.stale(now):
            entry.used = now.monotonic
            self._renew(entry, grant, now)
            return Fetched(entry, Origin.CACHE)
        try:
            return await self._share(key, grant, bypass=bypass_cache, paid=paid, until=until)
        except (TokenSourceDown, TokenThrottled):
            if entry is None or bypass_cache or entry.expired(self._now()):
                raise
            return Fetched(entry, Origin.CACHE)

    async def prepare(self, grant: Grant, resource: str) -> None:
        """Fetch a token before its first request, unless it is cached; raise TokenUnavailable."""
        credential = self._credential(grant) or await self._ready(grant)
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
        return [entry for _, entry in self._entries.items()]

    def changed(self, ref: ObjectRef) -> None:
        """Drop entries that the change of an identity, service account or secret has ended."""
        for entry in self._entries.of_object(ref):
            if not self._stands(entry.key, entry.grant):
                self._entries.drop(entry.key)

    async def settled(self) -> None:
        while self._flights:
            await asyncio.wait(self._flights.values())

    async def close(self) -> None:
        await end_all(self._flights.values())

    async def _share(
        self, key: Key, grant: Grant, *, bypass: bool, paid: bool, until: float
    ) -> Fetched:
        """Return the token of `key` from a new fetch, or from one that is under way."""
        while (flight := self._flights.get((key, bypass))) is not None:
            try:
                shared = await self._by(until, flight, grant)
                return Fetched(shared, Origin.SHARED)
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
        made = await self._by(until, self._flight(key, grant, bypass=bypass), grant)
        return Fetched(made, _origin(grant))

    async def _by(self, until: float, waited_for: asyncio.Future[_T], grant: Grant) -> _T:
        """Return the result of a future, and cancel it never; raise TokenSourceDown at `until`."""
        waits: set[asyncio.Future[Any]] = {waited_for}
        timer = None
        if until < inf:
            timer = asyncio.ensure_future(self._sleep(max(0.0, until - self._monotonic())))
            waits.add(timer)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if timer is not None:
                timer.cancel()
        if not waited_for.done():
            raise TokenSourceDown(f"{_ISSUERS[_origin(grant)]} did not answer in time")
        return waited_for.result()

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
        owner = ObjectRef(grant.pod.ref.namespace, grant.pod.uid)
        identity, begun = grant.identity, self._monotonic()
        try:
            token = await self._issuers[identity.type].issue(grant, key[1], bypass_cache=bypass)
        except TokenUnavailable as error:
            ended = self._monotonic()
            self._told(identity, type(error).__name__, ended - begun)
            self._failures.put(key, owner, error, ended)
            raise
        self._failures.drop(key, owner.name)
        now = self._now()
        self._told(identity, "ok", now.monotonic - begun)
        before = self._entries.get(key)
        entry = CacheEntry(
            key=key,
            token=token,
            grant=grant,
            owner=owner,
            since=now,
            schedule=schedule(token.life(now.time), jitter=self._jitter()),
            forced=bypass,
            used=now.monotonic if asked else before.used if before else -inf,
        )
        if self._stands(key, grant):
            self._entries.add(entry)
        else:
            entry.end()
        return entry

    def _credential(self, grant: Grant) -> Hashable | None:
        return self._issuers[grant.identity.type].credential(grant)

    async def _ready(self, grant: Grant) -> Hashable:
        return await self._issuers[grant.identity.type].ready(grant)

    def _stands(self, key: Key, grant: Grant) -> bool:
        return any(self._credential(each) == key[0] for each in self._current(grant))

    def _now(self) -> Moment:
        return Moment(self._time(), self._monotonic())

    def _landed(self, key: Key, bypass: bool, flight: asyncio.Task[CacheEntry]) -> None:
        del self._flights[key, bypass]
        if not flight.cancelled():
            # All clients may have disconnected; then nothing else retrieves the exception.
            flight.exception()


_ISSUERS = {Origin.IMDS: "IMDS", Origin.ENTRA: "Entra"}


def _origin(grant: Grant) -> Origin:
    managed = grant.identity.type is IdentityType.USER_ASSIGNED
    return Origin.IMDS if managed else Origin.ENTRA


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
        return backoff(0.5, before + 1, 2.0)
    if isinstance(error, TokenRefused):
        # A 400 concerns the request itself: MSAL caches it for a minute. An operator corrects the
        # causes of the others in Azure, and watches the pod meanwhile.
        return 60.0 if error.status == 400 else 10.0
    # An outage: try each second at first, then every ten seconds.
    return backoff(1.0, before + 1, 10.0)


# Entries.


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on both clocks: wall clock and monotonic clock."""

    time: float
    monotonic: float


@dataclass(slots=True, eq=False, kw_only=True)
class CacheEntry:
    """A token with its schedule; `AccessToken` and `Grant` show no secret in their `repr`."""

    key: Key
    token: AccessToken
    grant: Grant
    """The grant of the request that fetched it; pods share the tokens of an identity."""
    owner: ObjectRef
    """Namespace and uid of the pod whose capacity it uses."""
    since: Moment
    schedule: Schedule
    forced: bool = False
    """Whether the issuer was told to bypass its own cache."""
    used: float = -inf
    """Time of its last request, in monotonic seconds."""
    fresh_until: float = field(init=False)
    """In monotonic seconds: until then it answers requests without a renewal."""
    fresh_until_time: float = field(init=False)
    """The same in seconds since 1970; the earlier one counts."""

    def __post_init__(self) -> None:
        self.fresh_until = self.since.monotonic + self.schedule.renew
        self.fresh_until_time = self.since.time + self.schedule.renew

    @property
    def refs(self) -> frozenset[ObjectRef]:
        """The objects whose change may end it: identity and secret."""
        entra = self.grant.identity.entra
        secret = entra.secret if entra else None
        return frozenset({self.grant.identity.ref, secret or self.grant.identity.ref})

    def age(self, now: Moment) -> float:
        """Return the larger age of both clocks, so that a clock set back prolongs nothing."""
        return max(now.time - self.since.time, now.monotonic - self.since.monotonic)

    def stale(self, now: Moment) -> bool:
        """Return whether a new token must be fetched before this one is given."""
        return self.age(now) >= self.schedule.stale

    def expired(self, now: Moment) -> bool:
        """Return whether it may not be given even while no token can be fetched."""
        return self.age(now) >= self.schedule.last

    def renewing(self, now: Moment) -> None:
        """Stay fresh while a renewal is under way, for RENEWAL_INTERVAL at most."""
        seconds = min(RENEWAL_INTERVAL, self.schedule.stale - self.age(now))
        self.fresh_until = now.monotonic + seconds
        self.fresh_until_time = now.time + seconds

    def end(self) -> None:
        """Note that it is dropped or replaced, and answers no more requests."""
        self.fresh_until = self.fresh_until_time = -inf


class CacheEntries(FairCache[Key, CacheEntry]):
    """CacheEntries by key, pod and object; each pod has a share beside that of its namespace.

    A hit only writes `used`, by which the least recently used entry goes.
    """

    def __init__(self, *, capacity: int = CAPACITY, capacity_of_pod: int = CAPACITY_OF_POD) -> None:
        super().__init__(capacity)
        self._capacity_of_pod = capacity_of_pod
        self._by_pod: dict[ObjectRef, dict[Key, CacheEntry]] = {}
        self._by_object: dict[ObjectRef, dict[Key, CacheEntry]] = {}

    def of_object(self, ref: ObjectRef) -> Sequence[CacheEntry]:
        return tuple(self._by_object.get(ref, {}).values())

    def add(self, entry: CacheEntry) -> None:
        """Add or replace an entry; evict others beyond the capacities."""
        key, before = entry.key, self.get(entry.key)
        if before is not None:
            # After a renewal by another pod it still counts for the first one.
            entry.owner = before.owner
            self.drop(key)
        of_pod = self._by_pod.get(entry.owner, {})
        if len(of_pod) >= self._capacity_of_pod:
            self.drop(self._dispensable(of_pod, key))
        self._by_pod.setdefault(entry.owner, {})[key] = entry
        for ref in entry.refs:
            self._by_object.setdefault(ref, {})[key] = entry
        self.put(key, entry, entry.owner.namespace, kib(entry.token.value, key[1]))

    def drop(self, key: Key) -> None:
        entry = self.get(key)
        if entry is None:
            return
        entry.end()
        super().drop(key)
        _remove(self._by_pod, entry.owner, key)
        for ref in entry.refs:
            _remove(self._by_object, ref, key)

    def _dispensable(self, others: Iterable[Key], new: Key) -> Key:
        return min(others, key=lambda key: self._all[key].used, default=new)


def _remove(groups: dict[_Name, dict[Key, CacheEntry]], name: _Name, key: Key) -> None:
    group = groups[name]
    del group[key]
    if not group:
        del groups[name]


@dataclass(frozen=True, slots=True)
class _Failure:
    error: TokenUnavailable
    until: float
    times: int


class NegativeCache:
    """The last failure of each key; times are `Clock.monotonic` seconds.

    A failure that is one pod's alone (`of_caller`) is remembered for that pod.
    """

    def __init__(self, *, capacity: int = NEGATIVE_CAPACITY) -> None:
        self._all: FairCache[tuple[Key, str], _Failure] = FairCache(capacity)

    def __len__(self) -> int:
        return len(self._all)

    def put(self, key: Key, owner: ObjectRef, error: TokenUnavailable, now: float) -> None:
        """Remember `error` for the time that its kind has; `owner` as in CacheEntry."""
        place = (key, owner.name if error.of_caller else "")
        last = self._all.get(place)
        times = last.times if last and now < last.until + FORGOTTEN else 0
        # Only its message is needed. Its causes hold frames, and those hold answers.
        error.__cause__ = error.__context__ = error.__traceback__ = None
        failure = _Failure(error, now + negative_ttl(error, times), times + 1)
        self._all.put(place, failure, owner.namespace, kib(key[1], str(error)))

    def get(self, key: Key, uid: str, now: float) -> TokenUnavailable | None:
        """Return the failure that still counts for the pod with that uid, to raise it."""
        for place in ((key, ""), (key, uid)):
            failure = self._all.get(place)
            if failure is not None and now < failure.until:
                return _repeated(failure, now)
        return None

    def drop(self, key: Key, uid: str) -> None:
        """Forget the failures of `key`: the pod with that uid got a token."""
        self._all.drop((key, ""))
        self._all.drop((key, uid))


def _repeated(failure: _Failure, now: float) -> TokenUnavailable:
    if isinstance(failure.error, TokenThrottled):
        return TokenThrottled(
            str(failure.error),
            retry_after=ceil(failure.until - now),
            of_caller=failure.error.of_caller,
        )
    # Each raise would add a traceback to the cached exception.
    return failure.error.with_traceback(None)

"""What the token cache holds: tokens under their keys, and the failures to get one.

An entry says itself until when it answers (`fresh_until`, `fresh_until_time`), so that a holder
need not ask the cache again: an entry that is evicted, dropped or replaced is fresh no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import TypeVar

from podidentity.core.errors import TokenThrottled, TokenUnavailable
from podidentity.core.ids import ObjectRef
from podidentity.core.token_lifetimes import RENEWAL_INTERVAL, Schedule, negative_ttl
from podidentity.core.tokens import AccessToken, Grant

CAPACITY = 2000
"""Five megabytes of tokens; a full node's pods need some hundred."""
CAPACITY_OF_POD = 64
"""A pod that asks for a thousand audiences evicts its own tokens only."""
NEGATIVE_CAPACITY = 1000
FORGOTTEN = 60.0
"""Seconds after the end of a failure from which on the next one is the first of its row."""

Key = tuple[Hashable, str]
"""All that decides which token it is: credential and audience. Whether a pod may have it is
decided before the cache is asked."""

_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Moment:
    """The same instant on both clocks: the one that people set, the one that never goes back."""

    time: float
    monotonic: float


@dataclass(slots=True, eq=False, kw_only=True)
class CacheEntry:
    """A token with its ages; `AccessToken` and `Grant` show no secret in their `repr`."""

    key: Key
    token: AccessToken
    grant: Grant
    """Of the request for which it was fetched; the token is the identity's, not the pod's."""
    owner: str
    """Uid of the pod whose capacity it counts for."""
    since: Moment
    schedule: Schedule
    forced: bool = False
    """Whether the issuer was told to bypass its own cache."""
    used: float = -inf
    """When it was last asked for, in monotonic seconds."""
    queued: float = -inf
    """`used` when it last went to the end of the queue for eviction."""
    fresh_until: float = field(init=False)
    """Monotonic seconds until which it answers as it is."""
    fresh_until_time: float = field(init=False)
    """The same in seconds since 1970: whichever comes first counts."""

    def __post_init__(self) -> None:
        self.fresh_until = self.since.monotonic + self.schedule.renew
        self.fresh_until_time = self.since.time + self.schedule.renew

    @property
    def refs(self) -> frozenset[ObjectRef]:
        """The objects whose change may end it; identity and secret may have the same name."""
        entra = self.grant.identity.entra
        secret = entra.secret if entra else None
        return frozenset({self.grant.identity.ref, secret or self.grant.identity.ref})

    def age(self, now: Moment) -> float:
        """Return its age by the clock that makes it older: a clock set back keeps nothing."""
        return max(now.time - self.since.time, now.monotonic - self.since.monotonic)

    def stale(self, now: Moment) -> bool:
        """Return whether a new token must be fetched before this one is given."""
        return self.age(now) >= self.schedule.stale

    def expired(self, now: Moment) -> bool:
        """Return whether it may not be given even while no token can be fetched."""
        return self.age(now) >= self.schedule.last

    def renewing(self, now: Moment) -> None:
        """A new token is being fetched: until it comes, or for a while, this one is fresh."""
        seconds = min(RENEWAL_INTERVAL, self.schedule.stale - self.age(now))
        self.fresh_until = now.monotonic + seconds
        self.fresh_until_time = now.time + seconds

    def end(self) -> None:
        """It is dropped or replaced: it may answer no request any more."""
        self.fresh_until = self.fresh_until_time = -inf


class CacheEntries:
    """CacheEntries by key, by pod and by object; bounded as a whole and for each pod.

    Eviction is by second chance (CLOCK), so that a hit writes one number and moves nothing.
    """

    def __init__(self, *, capacity: int = CAPACITY, capacity_of_pod: int = CAPACITY_OF_POD) -> None:
        self._capacity = capacity
        self._capacity_of_pod = capacity_of_pod
        self._all: OrderedDict[Key, CacheEntry] = OrderedDict()
        self._by_pod: dict[str, dict[Key, CacheEntry]] = {}
        self._by_object: dict[ObjectRef, dict[Key, CacheEntry]] = {}
        # The hot path's look-up, without a call in between.
        self.get = self._all.get

    def __len__(self) -> int:
        return len(self._all)

    def all(self) -> Sequence[CacheEntry]:
        """Return all entries."""
        return tuple(self._all.values())

    def of_object(self, ref: ObjectRef) -> Sequence[CacheEntry]:
        """Return the entries that a change of this object may end."""
        return tuple(self._by_object.get(ref, {}).values())

    def put(self, entry: CacheEntry) -> None:
        """Add or replace an entry, and evict what is too many."""
        before = self._all.get(entry.key)
        if before is not None:
            # Renewed by another pod, it still counts for the one that fetched it first.
            entry.owner = before.owner
            self.drop(before)
        entry.queued = entry.used
        self._all[entry.key] = entry
        of_pod = self._by_pod.setdefault(entry.owner, {})
        of_pod[entry.key] = entry
        for ref in entry.refs:
            self._by_object.setdefault(ref, {})[entry.key] = entry
        if len(of_pod) > self._capacity_of_pod:
            others = (each for each in of_pod.values() if each is not entry)
            self.drop(min(others, key=lambda each: each.used, default=entry))
        if len(self._all) > self._capacity:
            self._evict()

    def drop(self, entry: CacheEntry) -> None:
        """Remove an entry that is there."""
        entry.end()
        del self._all[entry.key]
        _remove(self._by_pod, entry.owner, entry.key)
        for ref in entry.refs:
            _remove(self._by_object, ref, entry.key)

    def _evict(self) -> None:
        """Drop the first entry of the queue that was not used since it was queued."""
        while True:
            entry = next(iter(self._all.values()))
            if entry.used <= entry.queued:
                self.drop(entry)
                return
            entry.queued = entry.used
            self._all.move_to_end(entry.key)


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
        self._capacity = capacity
        self._all: OrderedDict[tuple[Key, str], _Failure] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def put(self, key: Key, uid: str, error: TokenUnavailable, now: float) -> None:
        """Let `error`, met by the pod with that uid, be repeated for as long as its kind says."""
        place = (key, uid if error.of_caller else "")
        last = self._all.pop(place, None)
        times = last.times if last and now < last.until + FORGOTTEN else 0
        # Its words say all. What it was raised from holds frames, and these hold answers.
        error.__cause__ = error.__context__ = error.__traceback__ = None
        self._all[place] = _Failure(error, now + negative_ttl(error, times), times + 1)
        if len(self._all) > self._capacity:
            self._all.popitem(last=False)

    def get(self, key: Key, uid: str, now: float) -> TokenUnavailable | None:
        """Return the failure that still counts for the pod with that uid, to be raised."""
        for place in ((key, ""), (key, uid)):
            failure = self._all.get(place)
            if failure is not None and now < failure.until:
                return _repeated(failure, now)
        return None

    def drop(self, key: Key, uid: str) -> None:
        """Forget the failures of `key`: the pod with that uid got a token."""
        self._all.pop((key, ""), None)
        self._all.pop((key, uid), None)


def _repeated(failure: _Failure, now: float) -> TokenUnavailable:
    if isinstance(failure.error, TokenThrottled):
        return TokenThrottled(
            str(failure.error),
            retry_after=ceil(failure.until - now),
            of_caller=failure.error.of_caller,
        )
    # Each raise would add to the one that is remembered.
    return failure.error.with_traceback(None)

"""The entries of the token cache: tokens by key, and failures by key (the negative cache).

An entry itself knows until when it is fresh (`fresh_until`, `fresh_until_time`), so the memo of
answers can use it without a look-up. An entry that is evicted, dropped or replaced is not fresh.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import TypeVar

from podidentity.core.errors import TokenThrottled, TokenUnavailable
from podidentity.core.resources import ObjectRef
from podidentity.core.tokens import RENEWAL_INTERVAL, AccessToken, Grant, Schedule, negative_ttl

CAPACITY = 2000
"""Five megabytes of tokens; a full node's pods need some hundred."""
CAPACITY_OF_POD = 64
"""A pod that asks for a thousand audiences evicts its own tokens only."""
NEGATIVE_CAPACITY = 1000
FORGOTTEN = 60.0
"""Seconds after the end of a failure; a later failure starts the back-off anew."""

Key = tuple[Hashable, str]
"""Credential and audience. The rules have decided before whether the pod may have the token."""

_Name = TypeVar("_Name", bound=Hashable)


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
    owner: str
    """Uid of the pod whose capacity it uses."""
    since: Moment
    schedule: Schedule
    forced: bool = False
    """Whether the issuer was told to bypass its own cache."""
    used: float = -inf
    """Time of its last request, in monotonic seconds."""
    queued: float = -inf
    """`used` when it last went to the end of the queue for eviction."""
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
        """Return the entries that depend on this object."""
        return tuple(self._by_object.get(ref, {}).values())

    def put(self, entry: CacheEntry) -> None:
        """Add or replace an entry; evict others beyond the capacities."""
        before = self._all.get(entry.key)
        if before is not None:
            # After a renewal by another pod it still counts for the first one.
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
        """Remember `error` of the pod with that uid, for the time that its kind has."""
        place = (key, uid if error.of_caller else "")
        last = self._all.pop(place, None)
        times = last.times if last and now < last.until + FORGOTTEN else 0
        # Only its message is needed. Its causes hold frames, and those hold answers.
        error.__cause__ = error.__context__ = error.__traceback__ = None
        self._all[place] = _Failure(error, now + negative_ttl(error, times), times + 1)
        if len(self._all) > self._capacity:
            self._all.popitem(last=False)

    def get(self, key: Key, uid: str, now: float) -> TokenUnavailable | None:
        """Return the failure that still counts for the pod with that uid, to raise it."""
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
    # Each raise would add a traceback to the cached exception.
    return failure.error.with_traceback(None)

"""Rate limiters, a fair queue, a fair set and a fair cache: values that never wait themselves.

Times are `Clock.monotonic` seconds: a change of the wall clock must not affect a limit.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, ItemsView, Iterable, Mapping
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Generic, NamedTuple, TypeVar

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)

_SWEEP_AT = 256
"""Number of buckets at which a limiter first drops the full ones."""


class SlidingWindow:
    """At most `most` events in any interval of `seconds`, as a metered service counts them.

    A token bucket would allow almost twice as many in some intervals.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._events: deque[float] = deque()
        self._paused = -inf

    @property
    def rate(self) -> float:
        """Events a second in the long run."""
        return self._most / self._seconds

    def wait(self, now: float, *, leaving: int = 0) -> float:
        """Return the seconds until one more event is allowed that leaves room for `leaving`."""
        while self._events and self._events[0] + self._seconds <= now:
            self._events.popleft()
        too_many = len(self._events) + 1 + leaving - self._most
        until = self._events[too_many - 1] + self._seconds if too_many > 0 else now
        return max(0.0, until - now, self._paused - now)

    def take(self, now: float) -> None:
        """Count an event; the caller has checked that `wait` returns 0."""
        self._events.append(now)

    def pause(self, until: float) -> None:
        """Allow no event before `until`: the service has asked for it."""
        self._paused = max(self._paused, until)


class TokenBucket:
    """At most `burst` events at once, and `rate` a second in the long run."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, now: float) -> float:
        """Take one and return 0; or return the seconds until there is one, taking none."""
        self._refill(now)
        if self._level < 1:
            return (1 - self._level) / self._rate
        self._level -= 1
        return 0.0

    def full(self, now: float) -> bool:
        self._refill(now)
        return self._level >= self._burst

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now


class RateLimiter:
    """A token bucket for each key, such as a pod's uid."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}
        self._sweep_at = _SWEEP_AT

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> float:
        """Take one and return 0; or return the seconds until there is one, taking none."""
        bucket = self._buckets.get(key)
        if bucket is None:
            self._sweep(now)
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, now)
        return bucket.take(now)

    def _sweep(self, now: float) -> None:
        """Drop full buckets whenever their number has doubled since the last sweep."""
        if len(self._buckets) >= self._sweep_at:
            left = {key: each for key, each in self._buckets.items() if not each.full(now)}
            self._buckets = left
            self._sweep_at = max(_SWEEP_AT, 2 * len(left))


class Flow(NamedTuple):
    """The namespace and pod of a request, between which a fair queue distinguishes."""

    namespace: str
    pod: str
    """The pod's uid, or an unproved address."""


class FairQueue(Generic[_T]):
    """A queue that serves namespaces round robin, and within a namespace its pods.

    A namespace with a hundred pods has the same share as one with a single pod. A namespace that
    waits alone has every turn.
    """

    def __init__(self, *, most_of_pod: int, most_of_namespace: int) -> None:
        self._most_of_pod = most_of_pod
        self._most_of_namespace = most_of_namespace
        # The first namespace, and in it the first pod, is next; after its turn it is the last.
        self._namespaces: OrderedDict[str, OrderedDict[str, deque[_T]]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(self._sizes.values())

    def ahead(self, flow: Flow) -> int:
        """Return the largest number of turns before that of an item added now.

        Items that are added later are not counted.
        """
        pods = self._pods(flow)
        mine = len(pods.get(flow.pod, ()))
        before = mine + sum(
            min(len(each), mine + 1) for pod, each in pods.items() if pod != flow.pod
        )
        others = (size for name, size in self._sizes.items() if name != flow.namespace)
        return before + sum(min(size, before + 1) for size in others)

    def put(self, flow: Flow, item: _T) -> bool:
        """Add an item; return False, and add nothing, if the pod or the namespace has too many."""
        if len(self._pods(flow).get(flow.pod, ())) >= self._most_of_pod:
            return False
        size = self._sizes.get(flow.namespace, 0)
        if size >= self._most_of_namespace:
            return False
        pods = self._namespaces.setdefault(flow.namespace, OrderedDict())
        pods.setdefault(flow.pod, deque()).append(item)
        self._sizes[flow.namespace] = size + 1
        return True

    def pop(self) -> _T:
        """Remove and return the item whose turn it is; raise IndexError if the queue is empty."""
        if not self._namespaces:
            raise IndexError("nothing waits")
        namespace, pods = next(iter(self._namespaces.items()))
        pod, items = next(iter(pods.items()))
        item = items.popleft()
        pods.move_to_end(pod)
        self._namespaces.move_to_end(namespace)
        self._shrink(Flow(namespace, pod))
        return item

    def remove(self, flow: Flow, item: _T) -> None:
        """Remove an item if it still waits; the others keep their turns."""
        items = self._pods(flow).get(flow.pod)
        if items is not None and item in items:
            items.remove(item)
            self._shrink(flow)

    def _pods(self, flow: Flow) -> Mapping[str, deque[_T]]:
        return self._namespaces.get(flow.namespace) or {}

    def _shrink(self, flow: Flow) -> None:
        """Count a removed item, and drop its pod and namespace if they have no more items."""
        namespace, pod = flow
        self._sizes[namespace] -= 1
        if not self._namespaces[namespace][pod]:
            del self._namespaces[namespace][pod]
        if not self._sizes[namespace]:
            del self._namespaces[namespace], self._sizes[namespace]


class FairSet(Generic[_T]):
    """What waits, each once; namespaces take turns, and each has the lowest `rank` first.

    Items of one rank have the order in which they came.
    """

    def __init__(
        self, namespace: Callable[[_T], str], rank: Callable[[_T], float] = lambda _: 0.0
    ) -> None:
        """`namespace` returns whose one is; `rank` is asked for when an item is added."""
        self._namespace = namespace
        self._rank = rank
        self._added = count()
        self._all: set[_T] = set()
        # The first namespace is next; after its turn it is the last. Each has a heap.
        self._waiting: OrderedDict[str, list[tuple[float, int, _T]]] = OrderedDict()
        self.size = 0
        """How many wait; the same as `len`, for those who ask all day long."""

    def __len__(self) -> int:
        return self.size

    def add(self, one: _T) -> None:
        """Have one wait; it keeps its place if it does already."""
        if one in self._all:
            return
        self._all.add(one)
        self.size += 1
        own = self._waiting.setdefault(self._namespace(one), [])
        heappush(own, (self._rank(one), next(self._added), one))

    def update(self, several: Iterable[_T]) -> None:
        for one in several:
            self.add(one)

    def take(self) -> _T:
        """Remove and return the next one; raise KeyError if none waits."""
        namespace, own = self._waiting.popitem(last=False)
        _, _, one = heappop(own)
        self._all.remove(one)
        self.size -= 1
        if own:
            self._waiting[namespace] = own
        return one

    def clear(self) -> None:
        self._waiting.clear()
        self._all.clear()
        self.size = 0


def kib(*texts: str | bytes) -> int:
    """Return what an entry with these texts takes in KiB, with one for the entry itself."""
    return 1 + sum(map(len, texts)) // 1024


class FairCache(Generic[_K, _T]):
    """Values by key that no namespace takes from the others, whatever keys its tenants choose.

    Each counts for a namespace with its size. A full cache keeps the newcomer and evicts the oldest
    entry of the namespace that has most; a newcomer that alone is more than that stays out.
    """

    def __init__(self, most: int) -> None:
        """`most`: the sum of all sizes, in their unit."""
        self._most = most
        self._all: dict[_K, _T] = {}
        self._namespace: dict[_K, str] = {}
        self._sizes: dict[str, dict[_K, int]] = {}
        """By namespace; the oldest entry comes first."""
        self._sums: Counter[str] = Counter()
        # The hot path's look-up, without a call in between.
        self.get = self._all.get

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, key: _K) -> bool:
        return key in self._all

    def items(self) -> ItemsView[_K, _T]:
        """Return the entries, the oldest first."""
        return self._all.items()

    def put(self, key: _K, value: _T, namespace: str, size: int = 1) -> None:
        """Add or replace an entry, as the newest; what is there stays with its namespace."""
        namespace = self._namespace.get(key, namespace)
        self.drop(key)
        self._all[key], self._namespace[key] = value, namespace
        self._sizes.setdefault(namespace, {})[key] = size
        self._sums[namespace] += size
        while self._sums.total() > self._most:
            most = max(self._sums, key=self._sums.__getitem__)
            others = (each for each in self._sizes[most] if each != key)
            self.drop(self._dispensable(others, key))

    def use(self, key: _K) -> None:
        sizes = self._sizes[self._namespace[key]]
        sizes[key] = sizes.pop(key)

    def drop(self, key: _K) -> None:
        if key not in self._all:
            return
        del self._all[key]
        namespace = self._namespace.pop(key)
        self._sums[namespace] -= self._sizes[namespace].pop(key)
        if not self._sizes[namespace]:
            del self._sizes[namespace], self._sums[namespace]

    def clear(self) -> None:
        for each in (self._all, self._namespace, self._sizes, self._sums):
            each.clear()

    def _dispensable(self, others: Iterable[_K], new: _K) -> _K:
        """Return which of the entries of the namespace with most goes: the oldest."""
        return next(iter(others), new)

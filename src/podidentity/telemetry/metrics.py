"""Metrics: counters and histograms, and gauges whose callback is called at scrape time.

Plain numbers, changed by one thread without locks: a request costs three additions. The names,
labels and buckets of the archived project are kept to the letter, which no client library of
today does: they add `_total` and `_created`.

Labels are bounded. Where one can be anything that a pod sends, at most `room` series are made;
what comes later is counted under `other`.

A scrape is Prometheus' text, version 0.0.4:
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"


class Counter:
    """One number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def empty(self) -> Counter:
        return Counter()

    def add(self, other: Counter | Histogram) -> None:
        if isinstance(other, Counter):
            self.value += other.value


class Histogram:
    """How often a value was at most each of some bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bucket, each for itself; the last one is beyond all bounds."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def empty(self) -> Histogram:
        return Histogram(self.bounds)

    def add(self, other: Counter | Histogram) -> None:
        if isinstance(other, Histogram):
            self.counts = [
                mine + more for mine, more in zip(self.counts, other.counts, strict=True)
            ]
            self.sum += other.sum


_S = TypeVar("_S", Counter, Histogram)


class Head(NamedTuple):
    """What is said of a metric before its numbers."""

    name: str
    kind: Kind
    text: str
    labels: Labels = ()
    private: Labels = ()
    """Labels whose values name a tenant: only a caller with the permission reads them."""


class Family(Generic[_S]):
    """A metric: one series for each combination of its labels' values."""

    def __init__(
        self,
        head: Head,
        make: Callable[[], _S],
        *,
        open_labels: Iterable[str] = (),
        room: int = 500,
    ) -> None:
        self.head = head
        self._make: Callable[[], _S] = make
        self._open = frozenset(open_labels)
        self._room = room
        self._series: dict[Labels, _S] = {}
        if not head.labels:
            self.of()

    def of(self, *values: str) -> _S:
        """Return the series with these values of the labels, in their order."""
        found = self._series.get(values)
        return found if found is not None else self._new(values)

    def samples(self) -> Iterator[tuple[Labels, _S]]:
        for values in sorted(self._series):
            yield values, self._series[values]

    def _new(self, values: Labels) -> _S:
        if self._open and len(self._series) >= self._room:
            names = self.head.labels
            values = tuple(
                OTHER if name in self._open else value
                for name, value in zip(names, values, strict=True)
            )
        return self._series.setdefault(values, self._make())


Samples = Iterable[tuple[Labels, float]]
"""Values of the labels, and the number."""


class CallbackMetric:
    """A metric whose numbers another component keeps; its callback returns them."""

    def __init__(self, head: Head, callback: Callable[[], Samples]) -> None:
        self.head = head
        self._callback = callback

    def samples(self) -> Iterator[tuple[Labels, float]]:
        yield from sorted(self._callback())


class Scraped(Protocol):
    """A metric, as a scrape sees it."""

    @property
    def head(self) -> Head:
        """What is said of it."""

    def samples(self) -> Iterator[tuple[Labels, Counter | Histogram | float]]:
        """Yield its numbers, sorted."""


_M = TypeVar("_M", bound=Scraped)


class Registry:
    """All metrics of a process, in the order in which they were made."""

    def __init__(self) -> None:
        self._all: dict[str, Scraped] = {}

    def __iter__(self) -> Iterator[Scraped]:
        return iter(self._all.values())

    def counter(
        self,
        name: str,
        text: str,
        labels: Labels = (),
        *,
        open_labels: Labels = (),
        room: int = 500,
    ) -> Family[Counter]:
        """Make a counter; the values of `open_labels` come from outside."""
        head = Head(name, "counter", text, labels)
        return self._add(Family(head, Counter, open_labels=open_labels, room=room))

    def histogram(
        self,
        name: str,
        text: str,
        labels: Labels = (),
        *,
        bounds: Sequence[float],
        open_labels: Labels = (),
        private_labels: Labels = (),
    ) -> Family[Histogram]:
        """Make a histogram with these upper bounds, ascending.

        The values of `open_labels` come from outside; those of `private_labels` name a tenant.
        """
        head = Head(name, "histogram", text, labels, private_labels)
        make = partial(Histogram, tuple(bounds))
        return self._add(Family(head, make, open_labels=open_labels))

    def gauge(
        self, name: str, text: str, callback: Callable[[], Samples], labels: Labels = ()
    ) -> None:
        """Make a gauge; `callback` is called at each scrape."""
        self._add(CallbackMetric(Head(name, "gauge", text, labels), callback))

    def counter_callback(
        self, name: str, text: str, callback: Callable[[], Samples], labels: Labels = ()
    ) -> None:
        """Make a counter that another component keeps; `callback` is called at each scrape."""
        self._add(CallbackMetric(Head(name, "counter", text, labels), callback))

    def _add(self, metric: _M) -> _M:
        if metric.head.name in self._all:
            raise ValueError(f"two metrics are named {metric.head.name}")
        self._all[metric.head.name] = metric
        return metric


# As text.


def render(metrics: Iterable[Scraped], *, public: bool = False) -> str:
    return "".join(parts(metrics, public=public))


def parts(metrics: Iterable[Scraped], *, public: bool = False) -> Iterator[str]:
    """Yield the text in parts that each take some 50 us, so that others can work between them.

    `public`: private labels are there, but empty, and series that then are alike are added up. So
    a query that sums over them gives what it gave.
    """
    for metric in metrics:
        head = metric.head
        yield f"# HELP {head.name} {_escaped(head.text)}\n# TYPE {head.name} {head.kind}\n"
        if public and head.private:
            yield from _added_up(metric)
        else:
            for values, found in metric.samples():
                yield _series(head, values, found)


def _added_up(metric: Scraped) -> Iterator[str]:
    head = metric.head
    sums: dict[Labels, Counter | Histogram] = {}
    for values, found in metric.samples():
        if not isinstance(found, Counter | Histogram):
            raise TypeError(f"{head.name} has private labels and cannot be added up")
        shown = tuple(
            "" if name in head.private else value
            for name, value in zip(head.labels, values, strict=True)
        )
        total = sums.get(shown)
        if total is None:
            total = sums[shown] = found.empty()
        total.add(found)
        yield ""
    for values in sorted(sums):
        yield _series(head, values, sums[values])


def _series(head: Head, values: Labels, found: Counter | Histogram | float) -> str:
    if isinstance(found, Histogram):
        return "".join(f"{line}\n" for line in _buckets(head, values, found))
    value = found.value if isinstance(found, Counter) else found
    return f"{head.name}{_labels(head.labels, values)} {number(value)}\n"


def _buckets(head: Head, values: Labels, found: Histogram) -> Iterator[str]:
    counts = list(accumulate(found.counts))
    names = (*head.labels, "le")
    bounds = [*map(number, found.bounds), "+Inf"]
    for bound, count in zip(bounds, counts, strict=True):
        yield f"{head.name}_bucket{_labels(names, (*values, bound))} {count}"
    labels = _labels(head.labels, values)
    yield f"{head.name}_sum{labels} {number(found.sum)}"
    yield f"{head.name}_count{labels} {counts[-1]}"


def _labels(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_quoted(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{','.join(pairs)}}}"


def number(value: float) -> str:
    """Return a number as Go writes it: 1, not 1.0."""
    whole = int(value)
    return str(whole) if whole == value and abs(value) < 1e15 else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")

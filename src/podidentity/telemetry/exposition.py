"""Metrics as Prometheus' text, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from podidentity.telemetry.metrics import Counter, Head, Histogram, Labels, Scraped

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(metrics: Iterable[Scraped], *, public: bool = False) -> str:
    """Return the text of all metrics; `public`: without what names a tenant."""
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

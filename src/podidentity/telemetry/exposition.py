"""Metrics as Prometheus' text, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from podidentity.telemetry.metrics import Counter, Head, Histogram, Labels, Scraped

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(metrics: Iterable[Scraped]) -> str:
    """Return the text of all metrics."""
    return "".join(f"{line}\n" for metric in metrics for line in _lines(metric))


def _lines(metric: Scraped) -> Iterator[str]:
    head = metric.head
    yield f"# HELP {head.name} {_escaped(head.text)}"
    yield f"# TYPE {head.name} {head.kind}"
    for values, found in metric.samples():
        if isinstance(found, Histogram):
            yield from _buckets(head, values, found)
        else:
            value = found.value if isinstance(found, Counter) else found
            yield f"{head.name}{_labels(head.labels, values)} {number(value)}"


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

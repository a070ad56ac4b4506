"""Rules taken away and replaced under a constant stream of new connections: what leaks to IMDS.

Another process takes the rules away 300 times (half `nft flush ruleset`, half `nft delete table`)
and the agent puts them back; 30 times more without a copy that nobody else can change, as on
kernels before 5.12; then the agent replaces them itself. All in namespaces of its own.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator

from bench.bars import Bar, show, wants_json
from tests.kernel.topology import run

_TIMES = 300
_BETWEEN = 50
"""New connections that are answered between two changes."""


def say(line: str) -> None:
    """Tell the person who waits what goes on."""
    print(line, file=sys.stderr)


def measure() -> Iterator[Bar]:
    """Run the scenarios, as root or in a user namespace; yield what they show."""
    rootless = os.geteuid() != 0
    leaks = run("unguarded", rootless=rootless, connections=200)
    say(f"with no guard {leaks} of 200 connections reached the real IMDS: leaks are seen")
    if not leaks:
        sys.exit("no leak is seen where there must be some: this measures nothing")

    seen = run("drift", rootless=rootless, seconds=600, removals=_TIMES, between=_BETWEEN)
    total, rate = seen["connections"], seen["connections"] / seen["seconds"]
    say(f"{_TIMES} removals by another process: {total} connections, {rate:.0f} a second")
    say(f"  answered by {seen['answered']}, leaked {seen['leaked']}")
    yield Bar("removals that were not repaired", _TIMES - seen["repairs"], 1)
    yield Bar("leaked to IMDS meanwhile, of each new connection", seen["leaked"] / total, 0.001)

    interrupted = total - seen["answered"].get("agent", 0)
    yield Bar("requests interrupted meanwhile", interrupted, 1)

    few = _TIMES // 10
    seen = run("drift", rootless=rootless, seconds=600, removals=few, between=20, copy=False)
    say(f"{few} removals on a kernel without tables that have an owner: {seen['answered']}")
    yield Bar("leaked to IMDS there", seen["leaked"], 1)

    seen = run("replaces", rootless=rootless, seconds=600, times=_TIMES, between=_BETWEEN)
    say(f"{_TIMES} replaces by the agent: answered by {seen['answered']}")
    yield Bar("leaked to IMDS while the agent replaces its rules", seen["leaked"], 1)

    took = run("cost", rootless=rootless, connections=2000)
    say("proofs of new connections, with 110 pods on the node")
    yield Bar("one proof by the kernel, p50, ms", statistics.median(took) / 1000, 0.2)
    yield Bar("one proof by the kernel, p99, ms", statistics.quantiles(took, n=100)[-1] / 1000, 1)


if __name__ == "__main__":
    raise SystemExit(show(measure(), as_json=wants_json()))

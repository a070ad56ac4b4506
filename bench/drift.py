"""Rules taken away and replaced under a constant stream of new connections: what leaks to IMDS.

Another process takes the rules away (half `nft flush ruleset`, half `nft delete table`), the agent
puts them back; then the agent replaces them itself. In namespaces of its own, as root or without.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass

from tests.kernel.topology import run

_MOST_LEAKS = 0.001
_UNGUARDED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What was measured, what was to be reached, and whether it was."""

    name: str
    value: float
    bar: str
    met: bool


def measure(times: int, between: int) -> list[Bar]:
    """Run the scenarios; `between` connections are answered between two changes."""
    rootless = os.geteuid() != 0
    leaks = run("unguarded", rootless=rootless, connections=_UNGUARDED)
    theirs = run("drift", rootless=rootless, seconds=600, removals=times, between=between)
    ours = run("replaces", rootless=rootless, seconds=600, times=times, between=between)
    ratio = theirs["leaked"] / theirs["connections"]
    kept = theirs["answered"].get("agent", 0) / theirs["connections"]
    rate = theirs["connections"] / theirs["seconds"]
    return [
        _bar(
            f"leaks of {_UNGUARDED} connections with no guard: they are seen",
            leaks,
            "> 0",
            leaks > 0,
        ),
        _bar("removals by another process", times, "", True),
        _bar("  repaired", theirs["repairs"], f"= {times}", theirs["repairs"] == times),
        _bar("  new connections", theirs["connections"], "", True),
        _bar("  new connections a second", round(rate), "", True),
        _bar("  leaked", theirs["leaked"], "", True),
        _bar("  leaked, of each", ratio, f"< {_MOST_LEAKS}", ratio < _MOST_LEAKS),
        _bar("  answered by the agent, of each", round(kept, 5), "", True),
        _bar("replaces by the agent", times, "", True),
        _bar("  new connections", sum(ours["answered"].values()), "", True),
        _bar("  leaked", ours["leaked"], "= 0", ours["leaked"] == 0),
    ]


def _bar(name: str, value: float, bar: str, met: bool) -> Bar:
    return Bar(name=name.strip(), value=value, bar=bar, met=met)


def main() -> int:
    """Print the table; return 1 where a bar is missed."""
    options = argparse.ArgumentParser(prog="scripts/bench drift", description=__doc__)
    options.add_argument("--times", type=int, default=300)
    options.add_argument("--between", type=int, default=50)
    options.add_argument("--json", action="store_true", help="one JSON object a bar")
    chosen = options.parse_args()
    bars = measure(chosen.times, chosen.between)
    for bar in bars:
        if chosen.json:
            print(json.dumps(asdict(bar)))
        else:
            verdict = "" if not bar.bar else ("met" if bar.met else "MISSED")
            print(f"{bar.name:<62} {bar.value:>10g}  {bar.bar:<8} {verdict}")
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    raise SystemExit(main())

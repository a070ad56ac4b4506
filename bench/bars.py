"""Prints what a benchmark measured, each figure beside its bar: as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """One measured figure beside what it must reach."""

    name: str
    value: float
    bar: float
    """An upper bound, or with `least` a lower one, in the unit that `name` ends with."""
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of its bar."""
        return self.value >= self.bar if self.least else self.value < self.bar


def show(bars: Iterable[Bar], *, as_json: bool) -> int:
    """Print the bars; return the exit status: 1 where one is not met."""
    bars = list(bars)
    for bar in bars:
        if as_json:
            print(json.dumps({**asdict(bar), "met": bar.met}))
        else:
            mark = "met" if bar.met else "NOT MET"
            bound = "at least" if bar.least else "under"
            print(f"{bar.name:<66} {bar.value:>10.3f}   {bound:>8} {bar.bar:>6g}   {mark}")
    return 0 if all(bar.met for bar in bars) else 1


def wants_json() -> bool:
    """Return whether `--json` was asked for; end with the usage at any other argument."""
    extra = [argument for argument in sys.argv[1:] if argument != "--json"]
    if extra:
        sys.exit(f"usage: scripts/bench NAME [--json]; not known: {' '.join(extra)}")
    return "--json" in sys.argv[1:]

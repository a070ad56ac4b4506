"""Two courses worth reading: a leader that dies in the middle of a change, one that stands still.

`./scripts/simulate --story NAME` tells one; docs/reference/mic.md has the lines that matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.mic.simulator import Scenario, Step, journal

_ONE_POD = Scenario(
    steps=(
        Step(0.0, "node", ("n0", 0)),
        Step(0.0, "identity", ("blue", "orders", 0)),
        Step(0.0, "binding", ("blue", "orders", "orders", "orders")),
        Step(1.0, "pod", ("blue", "pod", "orders", "n0")),
    ),
    faults={},
    hosts=1,
    mics=2,
    operation=40.0,
)
STORIES = {
    "killed": replace(_ONE_POD, changes={0: "crash_after"}),
    "woke": replace(_ONE_POD, changes={0: "pause"}),
}
"""The first change of a host arrives, and its leader dies; or it is sent long after its lease."""


def told(name: str) -> Iterator[str]:
    """Yield the lines of a story, each with its seconds."""
    for line in journal(STORIES[name]):
        if line.endswith("faults stop"):
            return
        yield line

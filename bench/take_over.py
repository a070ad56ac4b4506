"""The archived chart's release taken over by ours and brought back, while pods ask."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.bars import Bar, show, wants_json
from tests.acceptance import test_chart_take_over as chart
from tests.acceptance.archived_nmi import ARCHIVED
from tests.acceptance.asking import OURS, Load

UPDATES = 3


def measure() -> Iterator[Bar]:
    """Take over in both ways and go back, and update in between; by Helm itself, on two nodes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        chart.archived_release("bench-over", Path(folder)) as (releases, loop),
    ):
        steps = [
            ("pool by pool beside the archived release", "coming", chart.come_beside),
            ("helm rollback of that, and ours goes", "going", chart.go_from_beside),
            ("as its next revision", "next", chart.come_as_next),
            (f"{UPDATES} rolling updates", "updates", update),
            ("helm rollback to the archived revision", "back", chart.roll_back),
        ]
        for what, nonce, step in steps:
            asked = loop.run(step(releases))
            leaks = loop.run(releases.leaks(nonce))
            say(what, asked, leaks)
            others = [by for by, _ in asked.lost if by != ARCHIVED]
            failed = len(asked.wrong) + len(others)
            yield Bar(f"{what}: failed, not in the archived NMI's hands", failed, 1)
            yield Bar("the same, leaked to IMDS", leaks, 1)


async def update(releases: chart.Releases) -> Load:
    """Update ours on all nodes, again and again; return what pods got."""
    async with releases.found.load("updates") as asked:
        for number in range(UPDATES):
            await releases.put("upgrade", nmi={"extraArgs": [f"--hold={number + 1}"]})
    return asked


def say(what: str, asked: Load, leaks: int) -> None:
    """Tell the person who waits what was counted."""
    answers = f"{asked.answers[OURS]} by ours, {asked.answers[ARCHIVED]} by the archived NMI"
    line = (
        f"{what}: {answers}; {len(asked.lost)} lost, {len(asked.wrong)} wrong, {leaks} leaked, "
        f"slowest {asked.slowest:.1f} s"
    )
    print(line, file=sys.stderr)
    for each in asked.failures[:5]:
        print(f"  {each}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(show(measure(), as_json=wants_json()))

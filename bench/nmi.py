"""NMI's speed: warm tokens of 110 and 1,000 pods, kept and new connections; memory; start."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from bench.bars import Bar, show, wants_json
from bench.stage.ground import enter
from bench.stage.load import PODS, Load, load, require_wrk
from bench.stage.scene import Scene, say, scene

NODE_PODS, MANY_PODS = 110, 1000
IDENTITIES, CROWD = 20, 2000
SECONDS = 10
WINDOWS = 6
"""Loads in a row, each of SECONDS: a minute."""
_SETTLED = 30.0
"""Seconds in which the discovery of hundreds of new interfaces floods the bridge: that is the
kernel's doing, and whoever measures before it ends measures it."""


async def measure() -> list[Bar]:
    """Lay out a node of 110 pods, then fill it up."""
    async with scene(crowd=CROWD) as stage:
        await stage.bind(IDENTITIES)
        await stage.add_pods(range(NODE_PODS))
        return [*await _usual(stage), *await _many(stage)]


async def _usual(stage: Scene) -> list[Bar]:
    async with stage.agent() as agent:
        asking = stage.pods[:PODS]
        say(f"ready after {agent.start_seconds:.2f} s; {agent.pss():.0f} MB before it is asked")
        warm = load(agent, stage.cgroups, asking, connections=64, seconds=2)
        windows, silent = [], 0
        await stage.written()
        for number in range(WINDOWS):
            windows.append(load(agent, stage.cgroups, asking, connections=64, seconds=SECONDS))
            say(f"warm, 64 connections, part {number + 1} of {WINDOWS}: {windows[-1]}")
            silent += max(0, windows[-1].requests - await stage.written())
        warm = _usual_one(windows)
        single = load(agent, stage.cgroups, asking[:1], connections=1, seconds=5)
        say(f"warm, one connection: {single}")
        apart = load(agent, stage.cgroups, asking[:1], connections=1, seconds=5, keep=False)
        say(f"a new connection each, one after the other: {apart}")
        new = load(agent, stage.cgroups, asking, connections=16, seconds=SECONDS, keep=False)
        say(f"a new connection each, 16 at once: {new}")
        memory = agent.pss()
    return [
        Bar("warm token, 64 connections, requests a second", warm.rate, 30_000, least=True),
        Bar("the same, p99, ms", warm.percentile(99), 4),
        Bar(
            "the same for a minute, last tenth of it of the first, %",
            windows[-1].rate / windows[0].rate * 100,
            80,
            least=True,
        ),
        Bar("the same, requests without a line in log and audit", silent, 1),
        Bar("warm token, one kept connection, p50, ms", single.percentile(50), 1),
        Bar("the same, p99, ms", single.percentile(99), 3),
        Bar("a new attested connection each, one by one, p50, ms", apart.percentile(50), 2),
        Bar("a new attested connection each, 16 at once, a second", new.rate, 4000, least=True),
        Bar("the same, p99, ms", new.percentile(99), 10),
        Bar(f"memory, {NODE_PODS} pods, {CROWD} identities, PSS, MB", memory, 80),
        Bar("start to ready, imports included, s", agent.start_seconds, 1),
    ]


async def _many(stage: Scene) -> list[Bar]:
    """Compare 110 pods with 1,000 in turns, so that the machine's moods hit both."""
    loads: dict[int, list[Load]] = {NODE_PODS: [], MANY_PODS: []}
    for count in loads:
        if len(stage.pods) < count:
            say(f"filling the node to {count} pods")
            await stage.add_pods(range(len(stage.pods), count))
            await asyncio.sleep(_SETTLED)
        async with stage.agent() as agent:
            asking = stage.pods[:PODS]
            load(agent, stage.cgroups, asking, connections=64, seconds=2)
            for _ in range(3):
                found = load(agent, stage.cgroups, asking, connections=64, seconds=5)
                say(f"{count} pods: {found}")
                loads[count].append(found)
    share = _usual_one(loads[MANY_PODS]).rate / _usual_one(loads[NODE_PODS]).rate * 100
    name = f"warm token, {MANY_PODS} pods on the node, of the rate at {NODE_PODS}, %"
    return [Bar(name, share, 90, least=True)]


def _usual_one(loads: Sequence[Load]) -> Load:
    """Return the load of the median rate: neither the best nor the worst of the machine's moods."""
    return sorted(loads, key=lambda each: each.rate)[len(loads) // 2]


def main() -> int:
    """Measure in namespaces of our own, and print the table."""
    as_json = wants_json()
    require_wrk()
    enter("bench.nmi")
    return show(asyncio.run(measure()), as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())

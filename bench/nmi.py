"""NMI's speed beside nginx and an earlier NMI: warm tokens, new connections; memory; start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.bars import Bar
from bench.stage.agent import EARLIER, earlier_source, nginx
from bench.stage.load import PODS, Load, load, require_programs
from bench.stage.scene import Scene, say, scene, show_in_namespaces

NODE_PODS, MANY_PODS = 110, 1000
IDENTITIES, CROWD = 20, 2000
ROUNDS, SECONDS = 5, 6
"""Each round asks every server in turn, so that the machine's moods hit all of them."""
WINDOWS = 6
"""Loads in a row on one agent, 10 seconds each: a minute."""
_SETTLED = 30.0
"""Seconds in which the discovery of hundreds of new interfaces floods the bridge: that is the
kernel's doing, and whoever measures before it ends measures it."""


@dataclass(slots=True)
class Rounds:
    """The loads of one server, one of each kind a round."""

    warm: list[Load] = field(default_factory=list)
    new: list[Load] = field(default_factory=list)


async def measure() -> list[Bar]:
    """Lay out a node of 110 pods, then fill it up."""
    async with scene(crowd=CROWD) as stage:
        await stage.bind(IDENTITIES)
        await stage.add_pods(range(NODE_PODS))
        return [*await _beside(stage), *await _alone(stage), *await _many(stage)]


async def _beside(stage: Scene) -> list[Bar]:
    """Compare this agent with nginx and with the earlier agent, in the same rounds."""
    earlier = earlier_source(stage.folder)
    control, before, now = Rounds(), Rounds(), Rounds()
    for number in range(1, ROUNDS + 1):
        with nginx(stage.folder, stage.cgroups) as server:
            control.warm.append(
                load(server, stage.cgroups, stage.pods[:PODS], connections=64, seconds=SECONDS)
            )
        say(f"round {number} of {ROUNDS}, nginx: {control.warm[-1]}")
        await _ask_agent(stage, before, earlier)
        say(f"  {EARLIER}, warm: {before.warm[-1]}; new connections: {before.new[-1]}")
        await _ask_agent(stage, now, None)
        say(f"  this agent, warm: {now.warm[-1]}; new connections: {now.new[-1]}")
    cpu = _ratio([each.cpu for each in now.warm], [each.cpu for each in control.warm])
    tail = _ratio(
        [each.percentile(99) for each in now.warm], [each.percentile(99) for each in before.warm]
    )
    rate = _ratio([each.rate for each in now.new], [each.rate for each in before.new])
    return [
        Bar("CPU of a warm token, 64 connections, beside nginx's", cpu, 1.6),
        Bar(f"its p99 beside that of {EARLIER}", tail, 1.2),
        Bar(f"a new connection each, 16 at once, beside {EARLIER}'s rate", rate, 0.9, least=True),
    ]


async def _ask_agent(stage: Scene, rounds: Rounds, source: Path | None) -> None:
    asking = stage.pods[:PODS]
    async with stage.agent("--on-exit=remove", source=source) as agent:
        load(agent, stage.cgroups, asking, connections=64, seconds=1)
        rounds.warm.append(load(agent, stage.cgroups, asking, connections=64, seconds=SECONDS))
        rounds.new.append(
            load(agent, stage.cgroups, asking, connections=16, seconds=SECONDS, keep=False)
        )
        await stage.written()


async def _alone(stage: Scene) -> list[Bar]:
    """Ask one agent for a minute, and look at what it takes."""
    async with stage.agent() as agent:
        asking = stage.pods[:PODS]
        say(f"ready after {agent.start_seconds:.2f} s; {agent.pss():.0f} MB before it is asked")
        load(agent, stage.cgroups, asking, connections=64, seconds=2)
        windows, silent = [], 0
        await stage.written()
        for number in range(1, WINDOWS + 1):
            windows.append(load(agent, stage.cgroups, asking, connections=64, seconds=10))
            say(f"warm, 64 connections, part {number} of {WINDOWS}: {windows[-1]}")
            silent += max(0, windows[-1].requests - await stage.written())
        single = load(agent, stage.cgroups, asking[:1], connections=1, seconds=5)
        say(f"warm, one connection: {single}")
        memory = agent.pss()
    return [
        Bar(
            "warm tokens for a minute, last tenth of it of the first, %",
            windows[-1].rate / windows[0].rate * 100,
            80,
            least=True,
        ),
        Bar("the same, requests without a line in log and audit", silent, 1),
        Bar("warm token, one kept connection, p50, ms", single.percentile(50), 1),
        Bar(f"memory, {NODE_PODS} pods, {CROWD} identities, all processes, PSS, MB", memory, 80),
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
    many, usual = (median(each.rate for each in loads[count]) for count in (MANY_PODS, NODE_PODS))
    name = f"warm token, {MANY_PODS} pods on the node, of the rate at {NODE_PODS}, %"
    return [Bar(name, many / usual * 100, 90, least=True)]


def _ratio(measured: Sequence[float], control: Sequence[float]) -> float:
    """Return the median of the ratios, round by round."""
    return median(one / other for one, other in zip(measured, control, strict=True))


if __name__ == "__main__":
    require_programs()
    show_in_namespaces("bench.nmi", measure)

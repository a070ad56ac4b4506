"""NMI's memory: each process of one agent after the other, before it is asked and after loads."""

from __future__ import annotations

from pathlib import Path

from bench.bars import Bar
from bench.nmi import CROWD, IDENTITIES, NODE_PODS
from bench.stage.agent import Agent
from bench.stage.load import PODS, load, require_programs
from bench.stage.scene import Scene, say, scene, show_in_namespaces

AGENTS = 3
SECONDS = 10


async def measure() -> list[Bar]:
    """Lay out a node of 110 pods, and start agents one after the other."""
    async with scene(crowd=CROWD) as stage:
        await stage.bind(IDENTITIES)
        await stage.add_pods(range(NODE_PODS))
        most = max([await _ask(stage) for _ in range(AGENTS)])
    return [Bar(f"memory, {NODE_PODS} pods, {CROWD} identities, all processes, PSS, MB", most, 80)]


async def _ask(stage: Scene) -> float:
    """Return the most that an agent was seen to take."""
    async with stage.agent() as agent:
        asking = stage.pods[:PODS]
        found = [_told(f"ready after {agent.start_seconds:.2f} s", agent)]
        load(agent, stage.cgroups, asking, connections=64, seconds=SECONDS)
        found.append(_told("asked on 64 connections", agent))
        load(agent, stage.cgroups, asking, connections=16, seconds=3, keep=False)
        found.append(_told("asked on new connections", agent))
        await stage.written()
    return max(found)


def _told(when: str, agent: Agent) -> float:
    """Say what each process takes, and return what all of them take."""
    every = ", ".join(f"{name} {_shown(pid)}" for name, pid in agent.roles().items())
    taken = agent.pss()
    say(f"{when}: {taken:.1f} MB; {every}")
    return taken


def _shown(pid: int) -> str:
    """Return the memory of a process: all of it, and what it shares with no other, in MB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = (line.split() for line in rollup.splitlines()[1:])
    taken = {name: int(size) / 1024 for name, size, _ in lines}
    own = taken["Private_Clean:"] + taken["Private_Dirty:"]
    return f"{taken['Pss:']:.1f} ({own:.1f} its own)"


if __name__ == "__main__":
    require_programs()
    show_in_namespaces("bench.nmi_memory", measure)

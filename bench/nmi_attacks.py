"""Neighbours' latency and the agent's memory while pods attack it, beside the same CPU burned."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter

from bench.bars import Bar
from bench.stage.agent import ROOT, Agent
from bench.stage.asking import Asker, connect_all, must_be_token
from bench.stage.ground import BenchPod, in_pod
from bench.stage.load import require_programs
from bench.stage.scene import Scene, say, scene, show_in_namespaces

NODE_PODS, IDENTITIES, CROWD = 110, 20, 2000
ROUNDS, SECONDS = 3, 8
NEIGHBOURS, PACE = 8, 0.02
"""Pods that ask on a kept connection, and seconds between two requests of each: 400 a second."""
_HOLD_SELECTOR = "nothing-yet"
"""Label of pods whose requests are held: no binding has it."""
_HEADERLESS = "http://169.254.169.254/metadata/identity/oauth2/token?resource=x"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """Programs that attack at the same time, and their name in the table."""

    name: str
    commands: Sequence[Sequence[str]]


async def measure() -> list[Bar]:
    """Run every attack in turn on one node."""
    async with scene(crowd=CROWD) as stage:
        await stage.bind(IDENTITIES)
        await stage.add_pods(range(NODE_PODS - 4))
        held = await stage.add_pods(range(NODE_PODS - 4, NODE_PODS), selector=_HOLD_SELECTOR)
        async with stage.agent("--on-exit=remove") as agent:
            return [bar async for bar in _under_attack(stage, agent, held)]


async def _under_attack(stage: Scene, agent: Agent, held: Sequence[BenchPod]) -> AsyncIterator[Bar]:
    peak = agent.pss()
    say(f"{peak:.0f} MB before any attack")
    for attack in _attacks(stage, held):
        ratios = []
        for number in range(1, ROUNDS + 1):
            burning = await _p99(stage, agent, [_program("burn")] * len(attack.commands))
            attacked = await _p99(stage, agent, attack.commands)
            peak = max(peak, attacked.memory)
            ratios.append(attacked.p99 / burning.p99)
            say(
                f"{attack.name}, round {number}: p99 {attacked.p99:.2f} ms, beside "
                f"{burning.p99:.2f} ms; {attacked.memory:.0f} MB"
            )
        name = f"neighbours' p99 while {attack.name}, beside burned CPU"
        if attack.name != _MEMORY:
            yield Bar(name, median(ratios), 2)
    yield Bar("the most memory that any attack reaches, all processes, PSS, MB", peak, 140)


_MEMORY = "four pods pipeline behind held requests"


def _attacks(stage: Scene, held: Sequence[BenchPod]) -> list[Attack]:
    attacker, victim = stage.pods[NEIGHBOURS], stage.pods[NEIGHBOURS + 1]
    wrk = ["wrk", "-t1", "-c8", f"-d{SECONDS}s", _HEADERLESS]

    def by(pod: BenchPod, command: Sequence[str]) -> list[str]:
        return in_pod(stage.cgroups, pod, command)

    return [
        Attack(name="one pod sends cheap refusals on 8 connections", commands=[by(attacker, wrk)]),
        Attack(
            name="one pod holds 10,000 connections",
            commands=[by(attacker, _program("connections"))],
        ),
        Attack(
            name="one pod floods forged connections",
            commands=[by(attacker, _program("forged", victim.address))],
        ),
        Attack(name=_MEMORY, commands=[by(pod, _program("pipelines")) for pod in held]),
    ]


def _program(kind: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "bench.stage.attackers", kind, str(SECONDS), *more]


@dataclass(frozen=True, slots=True)
class Seen:
    """Latency of the neighbours and memory of the agent."""

    p99: float
    """Of the neighbours' requests, in milliseconds."""
    memory: float
    """The most that the agent's processes had, in MB."""


async def _p99(stage: Scene, agent: Agent, commands: Sequence[Sequence[str]]) -> Seen:
    running = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        await asyncio.sleep(1)
        end = perf_counter() + SECONDS - 2
        watching = asyncio.create_task(_peak(agent, end))
        neighbours = await connect_all(stage.cgroups, stage.pods[:NEIGHBOURS])
        found = await asyncio.gather(*(_ask(asker, end) for asker in neighbours))
        latencies = [each * 1000 for asked in found for each in asked]
        seen = Seen(quantiles(latencies, n=100)[-1], await watching)
    finally:
        codes = [await process.wait() for process in running]
    if any(codes):
        sys.exit(f"an attack did not take place: exit codes {codes} of {commands}")
    return seen


async def _ask(asker: Asker, end: float) -> list[float]:
    """Ask again and again at a fixed pace; return the seconds that each answer took."""
    took, due = [], perf_counter()
    while perf_counter() < end:
        answer = await asker.ask()
        must_be_token(answer)
        took.append(answer.seconds)
        due = max(due + PACE, perf_counter())
        await asyncio.sleep(due - perf_counter())
    asker.close()
    return took


async def _peak(agent: Agent, end: float) -> float:
    most = 0.0
    while perf_counter() < end:
        most = max(most, agent.pss())
        await asyncio.sleep(0.5)
    return most


if __name__ == "__main__":
    require_programs()
    show_in_namespaces("bench.nmi_attacks", measure)

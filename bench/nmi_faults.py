"""Requests that fail while the agent's worker is killed, and while the agent is updated."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from bench.bars import Bar
from bench.stage.agent import READY, Agent
from bench.stage.hands import Hands, seize, send
from bench.stage.scene import Scene, say, scene, show_in_namespaces
from bench.stage.traffic import Traffic, steady
from podidentity_sandbox.azure.client import AzureOperator

PODS, IDENTITIES = 110, 20
RATE, SECONDS = 500, 60
BETWEEN_KILLS, BETWEEN_UPDATES = 5.0, 1.0
_SERVES = "this agent serves"


async def measure() -> list[Bar]:
    """Kill the worker for a minute, then update the agent for a minute."""
    async with scene() as stage:
        await stage.bind(IDENTITIES)
        await stage.add_pods(range(PODS))
        return [*await _killed(stage), *await _updated(stage)]


async def _killed(stage: Scene) -> list[Bar]:
    killed: list[Hands] = []
    async with AzureOperator(stage.plan) as azure, stage.agent() as agent:
        await azure.clear_imds_requests()
        killing = asyncio.create_task(_kill_workers(agent, killed))
        traffic = await steady(stage.cgroups, stage.pods, rate=RATE, seconds=SECONDS)
        killing.cancel()
        leaked = await _leaked(azure)
    others = [each for each in traffic.failures if not each.was_in(killed)]
    _say(f"worker killed {len(killed)} times", traffic, leaked)
    for failure in others[:5]:
        say(f"  {failure.why}")
    return [
        Bar("worker killed every 5 s: failed, not in its hands", len(others), 1),
        Bar("the same, leaked to IMDS", leaked, 1),
    ]


async def _kill_workers(agent: Agent, killed: list[Hands]) -> None:
    while True:
        await asyncio.sleep(BETWEEN_KILLS)
        worker = agent.worker()
        killed.append(await seize([worker]))
        send(worker, signal.SIGKILL)


async def _updated(stage: Scene) -> list[Bar]:
    """Start the next agent beside the one that serves, again and again."""
    folder = stage.folder / "handover"
    folder.mkdir(mode=0o700)
    serving = await _start(stage, folder, 0)
    async with AzureOperator(stage.plan) as azure:
        await azure.clear_imds_requests()
        asking = asyncio.create_task(steady(stage.cgroups, stage.pods, rate=RATE, seconds=SECONDS))
        updates, ending = 0, []
        while not asking.done():
            # As a DaemonSet with surge: the old pod is told to end when the new one is ready.
            following = await _start(stage, folder, updates + 1)
            ending.append(asyncio.create_task(asyncio.to_thread(serving.stop)))
            serving, updates = following, updates + 1
            await asyncio.sleep(BETWEEN_UPDATES)
        traffic = await asking
        leaked = await _leaked(azure)
    await asyncio.gather(*ending, asyncio.to_thread(serving.stop))
    _say(f"agent updated {updates} times", traffic, leaked)
    for failure in traffic.failures[:5]:
        say(f"  {failure.why}")
    return [
        Bar("one update after the other: failed", len(traffic.failures), 1),
        Bar("the same, leaked to IMDS", leaked, 1),
    ]


async def _start(stage: Scene, folder: Path, number: int) -> Agent:
    agent = await stage.start_agent(f"--handover-dir={folder}", log=f"nmi-{number}.log")
    while not agent.has_logged(_SERVES if number else READY):  # noqa: ASYNC110 - its log tells
        await asyncio.sleep(0.01)
    return agent


async def _leaked(azure: AzureOperator) -> int:
    """Return how many requests of pods IMDS itself has seen."""
    return sum(each["source"].startswith("10.244.") for each in await azure.imds_requests())


def _say(what: str, traffic: Traffic, leaked: int) -> None:
    say(
        f"{what}: {traffic.requests} requests, {len(traffic.failures)} failed, {leaked} leaked, "
        f"slowest {traffic.slowest * 1000:.0f} ms"
    )


if __name__ == "__main__":
    show_in_namespaces("bench.nmi_faults", measure)

"""NMI and those it asks: calls to IMDS, its quota, assignment by the controller, tokens ahead."""

from __future__ import annotations

import asyncio
import statistics
import sys
from time import perf_counter

from bench.bars import Bar, show, wants_json
from bench.stage.asking import AUDIENCE, Asker, ask_once, connect_all, must_be_token
from bench.stage.ground import enter
from bench.stage.scene import Scene, say, scene
from podidentity_sandbox.azure.client import AzureOperator

PODS, IDENTITIES = 110, 20
REQUESTS = 10_000
ASSIGNMENTS = 100
NEW_PODS = 20
"""As many as an app may have federated credentials."""
_IMDS_SECOND = 1.1
_ON_ITS_WAY = 0.02
"""Seconds in which a request reaches NMI, and is held there."""

_STARTS = 0.2
"""Seconds from a pod's link to its first request: a container takes longer to start.

For some 30 ms the port of a new link is closed, and a client sends its SYN again after a second.
"""


async def measure() -> list[Bar]:
    """Run all on one node, one agent after the other."""
    async with scene() as stage:
        await stage.bind(IDENTITIES)
        await stage.add_pods(range(PODS))
        return [
            *await _calls(stage),
            *await _at_once(stage),
            *await _assigned(stage),
            *await _ahead(stage),
        ]


async def _calls(stage: Scene) -> list[Bar]:
    """Ask 10,000 times, from all pods."""
    async with AzureOperator(stage.plan) as azure, stage.agent("--prefetch=off"):
        await azure.clear_imds_requests()
        numbers = iter(range(REQUESTS))

        async def ask(asker: Asker) -> None:
            for _ in numbers:
                must_be_token(await asker.ask())
            asker.close()

        askers = await connect_all(stage.cgroups, stage.pods)
        await asyncio.gather(*map(ask, askers))
        calls = len(await azure.imds_requests())
    return [Bar(f"calls to IMDS for {REQUESTS} requests, {IDENTITIES} identities", calls, 21)]


async def _at_once(stage: Scene) -> list[Bar]:
    """Let all pods of a node ask in the same moment, when nothing is known yet."""
    async with AzureOperator(stage.plan) as azure, stage.agent("--prefetch=off"):
        askers = await connect_all(stage.cgroups, stage.pods)
        # What the agent before has asked for counts for a second: IMDS does not know that it ended.
        await asyncio.sleep(_IMDS_SECOND)
        await azure.clear_imds_requests()
        answers = await asyncio.gather(*(asker.ask() for asker in askers))
        seen = await azure.imds_requests()
        for asker in askers:
            asker.close()
    refused = sum(answer.status != 200 for answer in answers)
    throttled = sum(each["status"] == 429 for each in seen)
    slowest = max(answer.seconds for answer in answers)
    say(f"{PODS} pods at once: {len(seen)} calls to IMDS, {throttled} of them throttled")
    return [
        Bar(f"{PODS} pods at once, pods without a token", refused, 1),
        Bar("the same, calls that IMDS throttled", throttled, 1),
        Bar("the same, the last answer, s", slowest, 8),
    ]


async def _assigned(stage: Scene) -> list[Bar]:
    """Hold a request until the controller's record says Assigned, again and again."""
    pod, identity = stage.pods[0], stage.identities[0].name
    taken = []
    async with stage.agent(mode="standard"):
        [asker] = await connect_all(stage.cgroups, [pod])
        # The first one pays IMDS.
        for number in range(ASSIGNMENTS + 1):
            path = await stage.cluster.record(pod, identity)
            asking = asyncio.ensure_future(asker.ask())
            await asyncio.sleep(_ON_ITS_WAY)
            if asking.done():
                sys.exit(f"NMI answers what is not assigned: {asking.result()}")
            began = perf_counter()
            patching = stage.cluster.patch(path, {"status": {"status": "Assigned"}})
            answer, _ = await asyncio.gather(asking, patching)
            if number:
                taken.append((perf_counter() - began) * 1000)
            must_be_token(answer)
            await stage.cluster.request("DELETE", path)
            await asyncio.sleep(_ON_ITS_WAY)
        asker.close()
    say(f"assigned → answered: median {statistics.median(taken):.1f} ms, most {max(taken):.1f} ms")
    return [Bar("Assigned → answered, p99, ms", statistics.quantiles(taken, n=100)[-1], 50)]


async def _ahead(stage: Scene) -> list[Bar]:
    """Start pods of a federated identity, each with a service account of its own."""
    numbers = range(PODS, PODS + NEW_PODS)
    await stage.cluster.federate("federated", [f"account-{number}" for number in numbers])
    taken = []
    async with AzureOperator(stage.plan) as azure, stage.agent(f"--prefetch={AUDIENCE}"):
        for number in numbers:
            before = await _given(azure)
            [pod] = await stage.add_pods([number], selector="federated", accounts="account-{}")
            while await _given(azure) == before:  # noqa: ASYNC110 - Azure tells when asked
                await asyncio.sleep(0.02)
            # Entra has answered: NMI has it in a moment, and the pod's port is bound by then.
            await asyncio.sleep(_STARTS)
            answer = await ask_once(stage.cgroups, pod)
            must_be_token(answer)
            taken.append(answer.seconds * 1000)
    say(f"fetched ahead: worst of {NEW_PODS} {max(taken):.1f} ms")
    return [Bar("a new pod's first federated token, p50, ms", statistics.median(taken), 5)]


async def _given(azure: AzureOperator) -> int:
    return sum(
        each["status"] == 200 and each["credential"] != "client_secret"
        for each in await azure.entra_requests()
    )


def main() -> int:
    """Measure in namespaces of our own, and print the table."""
    as_json = wants_json()
    enter("bench.nmi_sources")
    return show(asyncio.run(measure()), as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())

"""NMI and those it asks: calls to IMDS, its quota, assignment by the controller, tokens ahead."""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
from time import perf_counter

from bench.bars import Bar
from bench.stage.asking import AUDIENCE, Asker, ask_once, connect_all, must_be_token
from bench.stage.ground import BenchPod
from bench.stage.scene import METRICS_PORT, Scene, say, scene, show_in_namespaces
from podidentity.kernel.source_rules import TABLE
from podidentity_sandbox.azure.client import AzureOperator

PODS, IDENTITIES = 110, 20
REQUESTS = 10_000
ASSIGNMENTS = 100
NEW_PODS = 20
"""As many as an app may have federated credentials."""
_IMDS_SECOND = 1.1
_ON_ITS_WAY = 0.02
"""Seconds in which a request reaches NMI, and is held there."""


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
    taken, bound = [], []
    async with stage.agent(f"--prefetch={AUDIENCE}"):
        for number in numbers:
            before = await _fetched()
            [pod] = await stage.add_pods([number], selector="federated", accounts="account-{}")
            began = perf_counter()
            await _bound(pod)
            bound.append((perf_counter() - began) * 1000)
            while await _fetched() == before:  # noqa: ASYNC110 - the agent tells when asked
                await asyncio.sleep(0.02)
            answer = await ask_once(stage.cgroups, pod)
            must_be_token(answer)
            taken.append(answer.seconds * 1000)
    say(f"a new pod's port is bound after {statistics.median(bound):.0f} ms (median; worst of "
        f"{NEW_PODS}: {max(bound):.0f} ms): until then a packet to IMDS is lost")  # fmt: skip
    say(f"fetched ahead: worst of {NEW_PODS} {max(taken):.1f} ms")
    return [Bar("a new pod's first federated token, p50, ms", statistics.median(taken), 5)]


async def _bound(pod: BenchPod) -> None:
    """Return when the rules know which port the pod sends from: the agent's table and its copy."""
    address = re.compile(rf"\b{re.escape(pod.address)}\b")
    while True:
        listing = await asyncio.create_subprocess_exec(
            *("nft", "list", "sets", "bridge"), stdout=subprocess.PIPE
        )
        listed, _ = await listing.communicate()
        _, *tables = listed.decode().split(f"table bridge {TABLE}")
        if tables and all(address.search(each) for each in tables):
            return


async def _fetched() -> float:
    """Return how many tokens the agent has got from Entra."""
    reader, writer = await asyncio.open_connection("127.0.0.1", METRICS_PORT)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n")
    found = re.search(
        rb"podidentity_upstream_requests_total{(.*entra.*)} (\S+)", await reader.read()
    )
    writer.close()
    return float(found[2]) if found else 0.0


if __name__ == "__main__":
    show_in_namespaces("bench.nmi_sources", measure)

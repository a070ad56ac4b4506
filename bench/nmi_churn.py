"""A million requests to NMI while pods come and go, identities change and secrets rotate."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from dataclasses import dataclass

from bench.bars import Bar
from bench.stage.asking import Asker, connect_all
from bench.stage.cluster import GROUP, NAMESPACE
from bench.stage.ground import BenchPod, remove_pods
from bench.stage.load import PODS, load, require_programs
from bench.stage.scene import Scene, say, scene, show_in_namespaces
from podidentity_sandbox.azure.client import App, AzureOperator

REQUESTS = 1_000_000
SECONDS = 5
"""Of one part of the load."""
NODE_PODS, COMING = 110, 10
"""Pods of the node, and how many more come and go at a time."""
_WATCHED = 0.25
"""Seconds after a write by which NMI must have seen it, on a machine that is busy."""
_IDENTITY, _SECRET = "changing", "rotating"


@dataclass
class Seen:
    """Results beside those of the load."""

    changes: int = 0
    stale: int = 0
    pods: int = 0


async def measure() -> list[Bar]:
    """Ask until it is a million; return what became of memory and tokens."""
    async with scene() as stage, AzureOperator(stage.plan) as azure:
        await stage.bind(20)
        await stage.add_pods(range(NODE_PODS))
        app = await azure.make_app("rotating")
        await _prepare(stage, app, (await azure.add_secret(app)).value)
        changed = await stage.add_pods([NODE_PODS], selector=_IDENTITY)
        rotated = await stage.add_pods([NODE_PODS + 1], selector=_SECRET)
        sizes: list[tuple[int, float]] = []
        seen = Seen()
        async with stage.agent() as agent:
            askers = await connect_all(stage.cgroups, [*changed, *rotated])
            churning = asyncio.ensure_future(_churn(stage, azure, app, askers, seen))
            asked = 0
            while asked < REQUESTS:
                if churning.done():
                    break
                found = await asyncio.to_thread(
                    load,
                    agent,
                    stage.cgroups,
                    stage.pods[:PODS],
                    connections=64,
                    seconds=SECONDS,
                )
                asked += found.requests
                # Half a gigabyte of log and audit is of no use here.
                await stage.written()
                sizes.append((asked, agent.pss()))
                say(f"{asked:,} requests, {sizes[-1][1]:.1f} MB: {found}")
            churning.cancel()
            # A failure of its own fails the benchmark.
            with contextlib.suppress(asyncio.CancelledError):
                await churning
    say(f"{seen.pods} pods came and went; {seen.changes} identities and secrets changed")
    if not seen.changes or not seen.pods:
        sys.exit("nothing changed: this measures nothing")
    first = next(size for count, size in sizes if count >= REQUESTS / 5)
    return [
        Bar("stale tokens after a change", seen.stale, 1),
        Bar("growth after the first fifth, %", (sizes[-1][1] / first - 1) * 100, 5),
    ]


async def _prepare(stage: Scene, app: App, secret: str) -> None:
    """Bind an identity that changes, and a service principal whose secret rotates."""
    request = stage.cluster.request
    body = {"metadata": {"name": _SECRET}, "stringData": {"clientSecret": secret}}
    secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    await request("POST", secrets, {"apiVersion": "v1", "kind": "Secret", **body})
    first = stage.identities[0]
    spec = {"type": 0, "clientID": first.client_id, "resourceID": first.resource_id}
    await stage.cluster.bind_as(_IDENTITY, spec)
    password = {"name": _SECRET, "namespace": NAMESPACE}
    tenant = stage.plan.tenant_id
    spec = {"type": 1, "clientID": app.client_id, "tenantID": tenant, "clientPassword": password}
    await stage.cluster.bind_as(_SECRET, spec)
    await stage.cluster.permit(_SECRET, [app.client_id])


async def _churn(
    stage: Scene, azure: AzureOperator, app: App, askers: list[Asker], seen: Seen
) -> None:
    """Change things until cancelled, and look at the very next token each time."""
    on_identity, on_secret = askers
    number, before = NODE_PODS + 10, await on_secret.token()
    # It is bound to the first: so each is a change.
    first, second = stage.identities[:2]
    while True:
        pods = await stage.add_pods(range(number, number + COMING))
        number += COMING
        for identity in (second, first):
            spec = {"clientID": identity.client_id, "resourceID": identity.resource_id}
            path = f"{GROUP}/namespaces/{NAMESPACE}/azureidentities/{_IDENTITY}"
            await stage.cluster.patch(path, {"spec": spec})
            await asyncio.sleep(_WATCHED)
            seen.changes += 1
            seen.stale += _claims(await on_identity.token())["appid"] != identity.client_id
        secret = (await azure.add_secret(app)).value
        data = {"data": {"clientSecret": base64.b64encode(secret.encode()).decode()}}
        await stage.cluster.patch(f"/api/v1/namespaces/{NAMESPACE}/secrets/{_SECRET}", data)
        await asyncio.sleep(_WATCHED)
        token = await on_secret.token()
        seen.changes += 1
        seen.stale += token == before
        before = token
        await _end(stage, pods)
        seen.pods += len(pods)


async def _end(stage: Scene, pods: list[BenchPod]) -> None:
    await stage.cluster.remove_pods(pods)
    await asyncio.to_thread(remove_pods, pods)
    stage.pods = [pod for pod in stage.pods if pod not in pods]


def _claims(token: str) -> dict[str, str]:
    part = token.split(".")[1]
    claims: dict[str, str] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


if __name__ == "__main__":
    require_programs()
    show_in_namespaces("bench.nmi_churn", measure)

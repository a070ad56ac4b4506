"""NMI takes the place of AAD Pod Identity's, one pool of nodes after the other, and gives it back.

Pods ask all the while, over new connections and kept ones. What may fail is what the archived NMI
has in its hands when it ends: connections that it answered, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.weather import CALM
from tests.acceptance import archived_nmi
from tests.acceptance.asking import OURS
from tests.acceptance.sandbox import PATIENCE, leaked, opened
from tests.acceptance.two_pools import PODS, Cluster, not_ours
from tests.docs.blocks import ROOT, Block, blocks_of
from tests.sandboxes import own

HOW_TO = [*blocks_of(ROOT / "docs" / "how-to" / "take-over.md")]
FORWARD = [each for each in HOW_TO if each.mark == "run=take-over"]
BACK = [each for each in HOW_TO if each.mark == "run=take-over-back"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Cluster, asyncio.Runner]]:
    with opened(own("take-over"), nodes=2, weather=CALM) as (place, azure, loop):
        found = Cluster(place, azure, loop.run(prepare(place.plan)))
        loop.run(begin(found))
        yield found, loop


async def begin(found: Cluster) -> None:
    """Have the objects of AAD Pod Identity, and its NMI on each node."""
    await found.prepare()
    await found.run("kubectl", "apply", "-f", "-", given=await _definitions(found))
    await found.start_pods()
    await archived(found)


async def _definitions(found: Cluster) -> str:
    dry = json.loads(await found.run("podidentity", "enable", "--dry-run", "-o", "json"))
    kept = [each for each in dry["items"] if each["kind"] == "CustomResourceDefinition"]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": kept})


async def archived(found: Cluster) -> None:
    """Have the archived NMI on each node, ready."""
    manifest = archived_nmi.manifest(found.made.client_id)
    await found.run("kubectl", "apply", "-f", "-", given=manifest)
    wait = ("rollout", "status", f"daemonset/{archived_nmi.NAME}", f"--timeout={PATIENCE}s")
    await found.run("kubectl", *wait)


async def follow(found: Cluster, block: Block) -> None:
    """Run the commands of the how-to as somebody types them."""
    await found.run("bash", "-c", block.text)


def test_it_comes_pool_by_pool_without_a_foreign_token(
    cluster: tuple[Cluster, asyncio.Runner],
) -> None:
    found, loop = cluster
    loop.run(take_over(found))


async def take_over(found: Cluster) -> None:
    grant, canary, others, everywhere, end = FORWARD
    planned = json.loads(await found.run("bash", "-c", "podidentity migrate plan -o json; :"))
    assert [(each["reason"], each["pods"]) for each in planned["refused"]] == [
        ("NotPermitted", ["a", "b"])
    ]
    await follow(found, grant)
    assert [await found.who(pod) for pod in PODS] == [archived_nmi.SERVER] * 2
    async with found.load("coming") as asked:
        await follow(found, canary)
        assert [await found.who(pod) for pod in PODS] == [OURS, archived_nmi.SERVER]
        assert not_ours(await found.on_ports(0))
        await follow(found, others)
        assert [await found.who(pod) for pod in PODS] == [OURS, OURS]
        await follow(found, everywhere)
        await follow(found, end)
        await found.until_ours_has_the_ports()
    assert asked.wrong == []
    assert {by for by, _ in asked.lost} <= {archived_nmi.SERVER}, json.dumps(asked.lost)
    assert len(asked.lost) <= 4, "the connections that are kept"
    assert min(asked.answers[by] for by in (OURS, archived_nmi.SERVER)) > 200
    assert await leaked(found.azure, "coming") == 0


def test_it_goes_back_to_the_archived_one_without_a_foreign_token(
    cluster: tuple[Cluster, asyncio.Runner],
) -> None:
    found, loop = cluster
    loop.run(go_back(found))


async def go_back(found: Cluster) -> None:
    apart, leave = BACK
    async with found.load("going") as asked:
        await follow(found, apart)
        await archived(found)
        assert [await found.who(pod) for pod in PODS] == [OURS, OURS]
        await follow(found, leave)
        assert [await found.who(pod) for pod in PODS] == [archived_nmi.SERVER] * 2
    assert asked.wrong == []
    assert asked.lost == []
    assert min(asked.answers[by] for by in (OURS, archived_nmi.SERVER)) > 100
    assert await leaked(found.azure, "going") == 0

"""NMI takes the place of AAD Pod Identity's, one pool of nodes after the other, and gives it back.

Pods ask all the while, over new connections and kept ones. What may fail is what the archived NMI
has in its hands when it ends: connections that it answered, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.weather import CALM
from tests.acceptance import archived_nmi
from tests.acceptance.archived_nmi import ARCHIVED
from tests.acceptance.asking import OURS, Load, load
from tests.acceptance.deployer import give_rights_in
from tests.acceptance.sandbox import PATIENCE, leaked, opened
from tests.acceptance.two_pools import PODS, Cluster, not_ours
from tests.docs.blocks import ROOT, Block, blocks_of
from tests.sandboxes import own

HOW_TO = [*blocks_of(ROOT / "docs" / "how-to" / "take-over.md")]
FORWARD = [each for each in HOW_TO if each.mark == "run=take-over"]
BACK = [each for each in HOW_TO if each.mark == "run=take-over-back"]
ANOTHER_PORT = [
    each
    for each in blocks_of(ROOT / "docs" / "how-to" / "upgrade.md")
    if each.mark == "run=another-port"
]
ENOUGH = 100
"""Tokens that each NMI has given before it goes: the pods would have noticed what it does wrong."""
LEFTOVERS = [each for each in HOW_TO if each.mark == "run=take-over-leftovers"]
pytestmark = archived_nmi.needs_archived


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
    await bring(found, archived_nmi.manifest(), f"daemonset/{archived_nmi.NAME}")


async def bring(found: Cluster, manifest: str, *daemon_set: str) -> None:
    await found.run("kubectl", "apply", "-f", "-", given=manifest)
    await found.run("kubectl", "rollout", "status", *daemon_set, f"--timeout={PATIENCE}s")
    await found.until_archived_has_rules()


async def follow(found: Cluster, block: Block, folder: Path = ROOT) -> None:
    """Run the commands of the how-to as somebody types them."""
    await found.run("bash", "-c", f"cd {folder}\n{block.text}")


def test_it_comes_pool_by_pool_without_a_foreign_token(
    cluster: tuple[Cluster, asyncio.Runner],
) -> None:
    found, loop = cluster
    loop.run(take_over(found))


async def take_over(found: Cluster) -> None:
    _, grant, canary, others, everywhere, end = FORWARD
    planned = json.loads(await found.run("bash", "-c", "podidentity migrate plan -o json; :"))
    assert [(each["reason"], each["pods"]) for each in planned["refused"]] == [
        ("NotPermitted", ["a", "b"])
    ]
    await follow(found, grant)
    assert await who(found) == [ARCHIVED] * 2
    async with found.load("coming") as asked:
        await follow(found, canary)
        assert await who(found) == [OURS, ARCHIVED]
        await found.until_answered("coming", ARCHIVED, ENOUGH)
        assert not_ours(await found.on_ports(0))
        await follow(found, others)
        assert await who(found) == [OURS, OURS]
        await follow(found, everywhere)
        await follow(found, end)
        await found.until_ours_has_the_ports()
        await found.until_answered("coming", OURS, ENOUGH)
    assert asked.wrong == []
    assert {by for by, _ in asked.lost} <= {ARCHIVED}, json.dumps(asked.lost)
    assert len(asked.lost) <= 4, "the connections that are kept"
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
        assert await who(found) == [OURS, OURS]
        await found.until_answered("going", OURS, ENOUGH)
        await follow(found, leave)
        assert await who(found) == [ARCHIVED] * 2
        await found.until_answered("going", ARCHIVED, ENOUGH)
    assert asked.wrong == []
    assert asked.lost == []
    assert await leaked(found.azure, "going") == 0


# ---- What AKS's add-on left: `kube-system/nmi`, its objects, and no MIC


async def leftovers(found: Cluster) -> None:
    """Have NMI of AKS's add-on in the place of the archived release's, and the add-on's objects."""
    gone = ("delete", "daemonset", "-n", "default", archived_nmi.NAME, "--cascade=foreground")
    await found.run("kubectl", *gone)
    await found.run("kubectl", "label", "nodes", "--all", "podidentity-")
    addon = archived_nmi.manifest("kube-system", name="nmi", labels=archived_nmi.LEFT)
    await bring(found, addon, "-n", "kube-system", "daemonset/nmi")
    await found.run("kubectl", "apply", "-f", "-", given=EXCEPTION)
    mark = ("azureidentity/bound", "azureidentitybinding/bound", f"{archived_nmi.OF_AKS}=aks")
    await found.run("kubectl", "label", *mark)
    assert await who(found) == [ARCHIVED] * 2


EXCEPTION = json.dumps(
    {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzurePodIdentityException",
        "metadata": {
            "name": "aks-addon-exception",
            "namespace": "kube-system",
            "labels": {archived_nmi.OF_AKS: "aks"},
        },
        "spec": {"podLabels": {archived_nmi.OF_AKS: "aks"}},
    }
)
"""https://learn.microsoft.com/azure/aks/use-azure-ad-pod-identity"""


async def who(found: Cluster) -> list[str]:
    return [await found.who(pod) for pod in PODS]


async def of_the_add_on(found: Cluster) -> dict[str, Any]:
    """Return the objects that the add-on made, by their uids."""
    kinds = "azureidentities,azureidentitybindings,azurepodidentityexceptions"
    ask = ("get", kinds, "-A", "-l", f"{archived_nmi.OF_AKS}=aks", "-o", "json")
    listed = json.loads(await found.run("kubectl", *ask))["items"]
    return {each["metadata"]["uid"]: each["spec"] for each in listed}


def only_what_it_had(found: Cluster, asked: Load, nonce: str, runner: asyncio.Runner) -> None:
    """See that no token was another's, and that only connections to the old NMI ended."""
    assert asked.wrong == []
    assert {by for by, _ in asked.lost} <= {ARCHIVED}, json.dumps(asked.lost)
    assert len(asked.lost) <= 4, "the connections that are kept"
    assert runner.run(leaked(found.azure, nonce)) == 0


def test_what_the_add_on_of_aks_left_is_taken_over_pool_by_pool_and_comes_back(
    cluster: tuple[Cluster, asyncio.Runner], tmp_path: Path
) -> None:
    found, loop = cluster
    give_rights_in(found.place.plan, "podidentity")
    loop.run(leftovers(found))
    made = loop.run(of_the_add_on(found))
    assert len(made) == 3
    only_what_it_had(found, loop.run(take_leftovers(found, tmp_path)), "left", loop)
    back = loop.run(bring_leftovers_back(found, tmp_path))
    only_what_it_had(found, back, "left-back", loop)
    assert back.lost == []
    assert loop.run(of_the_add_on(found)) == made


async def take_leftovers(found: Cluster, folder: Path) -> Load:
    canary, others, *_ = LEFTOVERS
    async with found.load("left") as asked:
        await follow(found, canary, folder)
        assert await who(found) == [OURS, ARCHIVED]
        await found.until_answered("left", ARCHIVED)
        await follow(found, others, folder)
        assert await who(found) == [OURS, OURS]
        await found.until_ours_has_the_ports()
        await found.until_answered("left", OURS)
    return asked


async def bring_leftovers_back(found: Cluster, folder: Path) -> Load:
    async with found.load("left-back") as asked:
        await found.until_answered("left-back", OURS)
        await follow(found, LEFTOVERS[2], folder)
        assert await who(found) == [ARCHIVED] * 2
        await found.until_answered("left-back", ARCHIVED)
    return asked


def test_what_the_add_on_left_goes_on_without_its_daemon_set_until_ours_has_its_name(
    cluster: tuple[Cluster, asyncio.Runner],
) -> None:
    found, loop = cluster
    only_what_it_had(found, loop.run(take_the_name(found)), "name", loop)


async def take_the_name(found: Cluster) -> Load:
    async with found.load("name") as asked:
        await found.until_answered("name", ARCHIVED)
        await follow(found, LEFTOVERS[3])
        await found.until_ours_has_the_ports()
        assert await who(found) == [OURS, OURS]
        await found.until_answered("name", OURS)
    return asked


# ---- On both nodes ours has another port, one after the other


def test_on_nodes_without_pods_another_port_comes_and_no_request_of_the_others_fails(
    cluster: tuple[Cluster, asyncio.Runner],
) -> None:
    found, loop = cluster
    patch, node, end = ANOTHER_PORT
    loop.run(follow(found, patch))
    for number, name in enumerate(PODS):
        asked = loop.run(moved_away(found, name, node.text, number))
        assert asked.failures == []
    loop.run(follow(found, end))
    assert loop.run(who(found)) == [OURS, OURS]


async def moved_away(found: Cluster, pod: str, commands: str, number: int) -> Load:
    """Have a node change while its pod is gone; return what the other's got meanwhile."""
    (other,) = set(PODS) - {pod}
    name = found.place.plan.nodes[number].name
    async with load(found.place, f"without-{pod}", pods=[other], rate=25) as asked:
        await found.run("kubectl", "delete", "pod", pod)
        await found.run("bash", "-c", f"NODE={name}\n{commands}")
        await found.start_pods()
        assert await found.who(pod) == OURS
        assert "169.254.25.79:2580" in await asyncio.to_thread(
            found.place.on_node, "ss", "-tln", number=number
        )
        await found.until_answered(f"without-{pod}", OURS, pods=[other])
    return asked

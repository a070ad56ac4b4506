"""NMI takes the place of AAD Pod Identity's, one pool of nodes after the other, and gives it back.

Pods ask all the while, over new connections and kept ones. What may fail is what the archived NMI
has in its hands when it ends: connections that it answered, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import Prepared, prepare
from podidentity_sandbox.weather import CALM
from tests.acceptance import archived_nmi
from tests.acceptance.sandbox import Sandbox, leaked, opened
from tests.docs.blocks import ROOT, Block, blocks_of
from tests.sandboxes import own

HOW_TO = [*blocks_of(ROOT / "docs" / "how-to" / "take-over.md")]
FORWARD = [each for each in HOW_TO if each.mark == "run=take-over"]
BACK = [each for each in HOW_TO if each.mark == "run=take-over-back"]
PODS = ("a", "b")
"""One on each node, which are two pools."""
ASKED = ("8085/healthz", "8085/readyz", "9090/metrics", "2579/metadata/instance")
"""On the ports of a node that both want."""
CLIENTS = """
import collections, http.client, json, os, sys, threading, time
nonce, client_id = sys.argv[1:]
PATH = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
found, lost, over = collections.Counter(), [], "/over-" + nonce
def ask(connection):
    connection.request("GET", PATH, headers={"Metadata": "true", "X-Nonce": nonce})
    answer = connection.getresponse()
    by, body = answer.getheader("Server", "ours"), answer.read()
    same = answer.status == 200 and json.loads(body)["client_id"].lower() == client_id
    found[f"{by} {answer.status if same else body[:200]}"] += 1
    return by, answer.getheader("Connection", "") != "close"
def client(keep):
    kept, by = None, ""
    while not os.path.exists(over):
        if kept is None:
            connection, by = http.client.HTTPConnection("169.254.169.254", timeout=20), ""
        else:
            connection = kept
        try:
            by, stays = ask(connection)
            stays = stays and keep
        except (OSError, http.client.HTTPException) as error:
            lost.append([by, repr(error)])
            stays = False
        kept = connection if stays else None
        if not stays:
            connection.close()
        time.sleep(0.02)
open("/begun-" + nonce, "w").close()
threads = [threading.Thread(target=client, args=[n % 2 == 0]) for n in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps({"answers": found, "lost": lost}))
"""


@dataclass
class Load:
    """What the pods got until they ended."""

    answers: Counter[str] = field(default_factory=Counter)
    """How many answers by each NMI, with their status; of a foreign token or error the body."""
    lost: list[list[str]] = field(default_factory=list)
    """Of each request without an answer: who had answered on its connection before, and the error;
    "" of a new connection."""


class Cluster:
    """Two pools, a pod on each, and the archived NMI on both."""

    def __init__(self, place: Sandbox, azure: AzureOperator, made: Prepared) -> None:
        self.place, self.azure, self.made = place, azure, made

    async def run(self, *command: str, given: str = "") -> str:
        return await asyncio.to_thread(self.place.run, *command, given=given)

    async def archived(self) -> None:
        """Have the archived NMI on each node, ready."""
        manifest = archived_nmi.manifest(self.made.client_id)
        await self.run("kubectl", "apply", "-f", "-", given=manifest)
        wait = ("rollout", "status", f"daemonset/{archived_nmi.NAME}", "--timeout=90s")
        await self.run("kubectl", *wait)

    async def follow(self, block: Block) -> None:
        """Run the commands of the how-to as somebody types them."""
        await self.run("bash", "-c", block.text)

    async def who(self, pod: str) -> str:
        """Return who answers a new connection of a pod."""
        said = await self.place.shell(
            "curl -s -m 20 -o /dev/null -D - -H Metadata:true 'http://169.254.169.254/metadata/identity"
            "/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net'",
            pod=pod,
        )
        head = said.stdout.decode()
        assert " 200 " in head, head
        return archived_nmi.SERVER if archived_nmi.SERVER in head else "ours"

    async def on_ports(self, number: int) -> str:
        """Return what answers at the ports of a node that both want."""
        asks = "; ".join(f"curl -s -m 5 http://127.0.0.1:{each}" for each in ASKED)
        return await asyncio.to_thread(self.place.on_node, "sh", "-c", f"{asks}; :", number=number)

    @asynccontextmanager
    async def load(self, nonce: str) -> AsyncIterator[Load]:
        """Have both pods ask from before the block until after it."""
        words = f"{nonce} {self.made.client_id.lower()}"
        command = f"python3 -c {shlex.quote(CLIENTS)} {words}"
        tasks = [asyncio.create_task(self.place.shell(command, 300, pod=pod)) for pod in PODS]
        for pod in PODS:
            begun = f"until test -e /begun-{nonce}; do sleep 0.02; done"
            await self.place.shell(begun, pod=pod)
        load = Load()
        try:
            yield load
        finally:
            for pod in PODS:
                await self.place.shell(f"touch /over-{nonce}", pod=pod)
            ran = await asyncio.gather(*tasks)
        for each in ran:
            found = json.loads(each.stdout or each.stderr)
            load.answers.update(found["answers"])
            load.lost += found["lost"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Cluster, asyncio.Runner]]:
    with opened(own("take-over"), nodes=2, weather=CALM) as (place, azure, loop):
        made = loop.run(prepare(place.plan))
        found = Cluster(place, azure, made)
        loop.run(begin(found))
        yield found, loop


async def begin(found: Cluster) -> None:
    """Have a cluster as AAD Pod Identity leaves it: its objects, and its NMI on each node."""
    place = found.place
    machines = {"type": "UserAssigned", "userAssignedIdentities": {found.made.identity_id: {}}}
    await found.azure.arm("PATCH", place.plan.scale_set_id, {"identity": machines})
    # kube-proxy does that on each node.
    for number in range(len(place.plan.nodes)):
        command = "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"
        place.on_node("sh", "-c", command, number=number)
    objects = [json.dumps(each) for each in (*_identity(found.made), *_pods(place))]
    for node, pool in zip(place.plan.nodes, ("canary", "others"), strict=True):
        await found.run("kubectl", "label", "--overwrite", "node", node.name, f"agentpool={pool}")
    await found.run("kubectl", "apply", "-f", "-", given=await _definitions(found))
    await asyncio.to_thread(found.place.apply, *objects)
    await found.archived()


async def _definitions(found: Cluster) -> str:
    dry = json.loads(await found.run("podidentity", "enable", "--dry-run", "-o", "json"))
    kept = [each for each in dry["items"] if each["kind"] == "CustomResourceDefinition"]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": kept})


def _identity(made: Prepared) -> Iterator[dict[str, Any]]:
    api = {"apiVersion": "aadpodidentity.k8s.io/v1"}
    spec = {"type": 0, "resourceID": made.identity_id, "clientID": made.client_id}
    metadata = {"name": "bound", "namespace": "default"}
    yield {**api, "kind": "AzureIdentity", "metadata": metadata, "spec": spec}
    binding = {"azureIdentity": "bound", "selector": "bound"}
    yield {**api, "kind": "AzureIdentityBinding", "metadata": metadata, "spec": binding}


def _pods(place: Sandbox) -> Iterator[dict[str, Any]]:
    for name, node in zip(PODS, place.plan.nodes, strict=True):
        labels = {"aadpodidbinding": "bound"}
        containers = [{"name": "main", "image": "idle"}]
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"nodeName": node.name, "containers": containers},
        }


def not_ours(said: str) -> bool:
    """Whether another has one of the ports still; the stand-in is Active wherever it is asked."""
    ours = said.count("Active") == 1 and "aadpodidentity_" in said and "invalid_request" in said
    return not ours


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
    await found.follow(grant)
    assert [await found.who(pod) for pod in PODS] == [archived_nmi.SERVER] * 2
    async with found.load("coming") as load:
        await found.follow(canary)
        assert [await found.who(pod) for pod in PODS] == ["ours", archived_nmi.SERVER]
        assert not_ours(await found.on_ports(0))
        await found.follow(others)
        assert [await found.who(pod) for pod in PODS] == ["ours", "ours"]
        await found.follow(everywhere)
        await found.follow(end)
        async with asyncio.timeout(60):
            for number in range(2):
                while not_ours(await found.on_ports(number)):  # noqa: ASYNC110 - of a node
                    await asyncio.sleep(0.2)
    assert {each for each in load.answers if not each.endswith(" 200")} == set(), load
    assert {by for by, _ in load.lost} <= {archived_nmi.SERVER}, json.dumps(load.lost)
    assert len(load.lost) <= 4, "the connections that are kept"
    assert min(load.answers[f"{by} 200"] for by in ("ours", archived_nmi.SERVER)) > 200
    assert await leaked(found.azure, "coming") == 0


def test_it_goes_back_to_the_archived_one_without_a_foreign_token(
    cluster: tuple[Cluster, asyncio.Runner],
) -> None:
    found, loop = cluster
    loop.run(go_back(found))


async def go_back(found: Cluster) -> None:
    apart, leave = BACK
    async with found.load("going") as load:
        await found.follow(apart)
        await found.archived()
        assert [await found.who(pod) for pod in PODS] == ["ours", "ours"]
        await found.follow(leave)
        assert [await found.who(pod) for pod in PODS] == [archived_nmi.SERVER] * 2
    assert {each for each in load.answers if not each.endswith(" 200")} == set(), load
    assert load.lost == []
    assert min(load.answers[f"{by} 200"] for by in ("ours", archived_nmi.SERVER)) > 100
    assert await leaked(found.azure, "going") == 0

"""Attacks that once succeeded, run against the whole agent: what they came to is what must hold.

The tenant has every right in his namespace, a plain pod `raw` with a container's usual capabilities
(so NET_RAW), and shares his node with `shop/web`, whose identity he wants. Attacks on addresses and
frames run on each kind of network: on routed links no frame of a neighbour arrives, but a forged
source may still be believed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from statistics import median

import pytest

from podidentity_sandbox.plan import Network
from podidentity_sandbox.weather import CALM
from tests.acceptance.attacks.harness import CLOSE_WAIT, Harness
from tests.acceptance.directory import manifest, pod
from tests.acceptance.sandbox import opened
from tests.acceptance.two_tenants import MINE, TwoTenants, appid, settle
from tests.sandboxes import own

MIB = 1 << 20


ON_EACH_NETWORK = pytest.mark.parametrize("harness", Network, indirect=True)
ON_ROUTED_LINKS = pytest.mark.parametrize("harness", [Network.ROUTED], indirect=True)


@pytest.fixture(scope="module")
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    network: Network = request.param
    # Calm: what an attack comes to is told by seconds and quotas of seconds.
    with opened(own(f"attack-{network}"), network, weather=CALM) as (place, azure, loop):
        place.run("podidentity", "enable")
        tenants = loop.run(settle(TwoTenants(place, azure, loop)))
        tenants.apply(pod("raw", "tenant", ""), pod("plain", "tenant", ""))
        yield Harness(tenants)


@ON_EACH_NETWORK
def test_a_socket_that_outlived_its_connection_proves_nobody(harness: Harness) -> None:
    """A1: a pooled client holds CLOSE_WAIT after the agent has gone, or has ended it as idle."""

    async def run() -> None:
        victim = await harness.address("web", "shop")
        kept = await harness.start("web", "pool", namespace="shop")
        assert kept["status"] == 200
        # That the node forgets its end takes a minute; here a second.
        harness.on_node("sysctl", "-qw", "net.ipv4.tcp_fin_timeout=1")
        await harness.kill_agent()
        while await harness.socket_state("web", "shop", kept["port"]) != CLOSE_WAIT:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        while f":{kept['port']}" in harness.on_node("ss", "-Htan", "dst", victim):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        told = await harness.attack("raw", "scan", victim, kept["port"] - 50, kept["port"] + 50)
        assert not told["stolen"]
        assert [status for status, _ in await harness.token("web", "shop")] == [200]

    harness.tenants.loop.run(run())


@ON_EACH_NETWORK
def test_an_open_connection_cannot_be_taken_over(harness: Harness) -> None:
    """A2: a challenge ACK tells the sequence numbers of an idle connection."""

    async def run() -> None:
        victim = await harness.address("web", "shop")
        kept = await harness.start("web", "pool", namespace="shop")
        told = await harness.attack("raw", "inject", victim, kept["port"], 5)
        assert not told["stolen"], told

    harness.tenants.loop.run(run())


@ON_EACH_NETWORK
def test_answers_do_not_follow_a_forged_mac_address(harness: Harness) -> None:
    """A2b: the bridge learns the victim's MAC address at the attacker's port."""

    async def run() -> None:
        victim = await harness.address("web", "shop")
        harness.azure.weather("imds=[{effect: slow, seconds: 0.3}]")
        try:
            attack = asyncio.create_task(harness.attack("raw", "eavesdrop", victim, 8))
            asked = await harness.token("web", "shop", 8, fresh=True)
            told = await attack
        finally:
            harness.azure.weather("imds=[]")
        assert not told["stolen"]
        assert [status for status, _ in asked] == [200] * 8

    harness.tenants.loop.run(run())


@ON_ROUTED_LINKS
def test_an_annotation_with_anothers_uid_gives_him_no_identity_of_mine(harness: Harness) -> None:
    """A5: the victim would write into the attacker's storage, and lose its own rights."""

    async def run() -> None:
        victim = await harness.address("web", "shop")
        found = json.loads(harness.kubectl("get pod web -n shop -o json"))
        uid = found["metadata"]["uid"]
        twin = manifest(
            "v1",
            "Pod",
            "aaa-twin",
            "tenant",
            metadata={
                "labels": {"aadpodidbinding": MINE},
                "annotations": {f"kubernetes.io/config.{each}": uid for each in ("hash", "mirror")},
            },
            spec={
                "nodeName": harness.plan.nodes[0].name,
                "containers": [{"name": "main", "image": "idle"}],
                "volumes": [{"name": "never", "configMap": {"name": "never"}}],
            },
        )
        harness.kubectl("apply -f -", given=twin)
        addresses = {"phase": "Running", "podIP": victim, "podIPs": [{"ip": victim}]}
        patch = "patch pod aaa-twin -n tenant --subresource=status --type=merge -p"
        harness.kubectl(patch, json.dumps({"status": addresses}))
        # A change of the victim puts it behind the twin, whoever keeps pods in that order.
        harness.kubectl("label pod web -n shop rollout=2 --overwrite")

    harness.tenants.loop.run(run())
    try:
        for _ in range(5):
            status, body = harness.tenants.ask("web", "shop")
            assert (status, appid(body)) == (200, harness.tenants.orders.client_id)
    finally:
        # A real kubelet deletes it, for it looks like a mirror of no static pod.
        gone = "delete pod aaa-twin -n tenant --force --grace-period=0 --ignore-not-found"
        harness.kubectl(gone)


@ON_EACH_NETWORK
def test_addresses_that_nobody_has_take_no_ones_place(harness: Harness) -> None:
    """A6: one pod of NET_RAW had 256 connections from each of 16 addresses, all that there are."""

    async def run() -> None:
        target = "169.254.169.254"
        attack = asyncio.create_task(harness.attack("raw", "hog", target, 80, 18, 256, 12))
        await asyncio.sleep(6)
        asked = await harness.token("web", "shop", 40)
        await attack
        assert [status for status, _ in asked] == [200] * 40

    harness.tenants.loop.run(run())


@ON_EACH_NETWORK
def test_addresses_that_nobody_has_do_not_hide_the_agent_from_its_kubelet(
    harness: Harness,
) -> None:
    """A6: its probe port had 256 places for all, and a full one is a restart."""

    async def run() -> None:
        before = harness.restarts()
        node = harness.plan.nodes[0].address
        await harness.attack("raw", "hog", node, 8085, 18, 16, 45)
        assert harness.restarts() == before

    harness.tenants.loop.run(run())


@ON_ROUTED_LINKS
def test_requests_that_wait_are_bounded_in_bytes(harness: Harness) -> None:
    """A7: two plain pods had the agent hold 326 MB, over its limit."""

    async def run() -> None:
        await harness.apply(pod("held-1", "tenant", "nothing"), pod("held-2", "tenant", "nothing"))
        before = harness.restarts()
        attacks = [
            asyncio.create_task(harness.attack(each, "pipemem", 256, 32, 15_600, 12))
            for each in ("held-1", "held-2")
        ]
        most = 0
        while not all(attack.done() for attack in attacks):
            most = max(most, harness.memory())
            await asyncio.sleep(0.5)
        await asyncio.gather(*attacks)
        assert harness.restarts() == before
        assert 0 < most < 140 * MIB

    harness.tenants.loop.run(run())


@ON_ROUTED_LINKS
def test_many_pods_of_one_tenant_leave_the_quota_to_others(harness: Harness) -> None:
    """A10: sixteen pods, each within its budget, had the neighbour wait, or answered 429."""

    async def run() -> None:
        names = [f"crowd-{number}" for number in range(16)]
        await harness.apply(*(pod(name, "tenant", MINE) for name in names))
        crowd = [
            asyncio.create_task(harness.attack(name, "crowd", "token", 12, 12)) for name in names
        ]
        await asyncio.sleep(4)
        asked = await harness.token("web", "shop", 6, fresh=True)
        await asyncio.gather(*crowd)
        assert [status for status, _ in asked] == [200] * 6
        # The machine may stand still in one of them; who has to wait his turn does so in each.
        assert median(seconds for _, seconds in asked) < 3

    harness.tenants.loop.run(run())


@ON_ROUTED_LINKS
def test_one_pod_leaves_the_instance_documents_to_others(harness: Harness) -> None:
    """A10: 180 connections at /metadata/instance had all of IMDS's five a second."""

    async def run() -> None:
        crowd = asyncio.create_task(harness.attack("plain", "crowd", "instance", 180, 8))
        await asyncio.sleep(3)
        one = (
            "curl -s -m 60 -o /dev/null -w '%{http_code}\\n' -H Metadata:true"
            " 'http://169.254.169.254/metadata/instance?api-version=2021-02-01' || true; sleep 0.3"
        )
        said = await harness.sh("web", f"for i in $(seq 6); do {one}; done", "shop")
        await crowd
        assert said.split() == ["200"] * 6

    harness.tenants.loop.run(run())


@ON_ROUTED_LINKS
def test_nobody_silences_the_log_for_others(harness: Harness) -> None:
    """A8: a thousand invented names at /host/token filled the memory of what was said already."""

    async def run() -> None:
        await harness.apply(pod("nolabel", "tenant", ""))
        await harness.attack("plain", "mute", 2000)
        assert (await harness.token("nolabel", "tenant"))[0][0] == 400

    harness.tenants.loop.run(run())
    assert "nolabel" in harness.log()

"""A pool in mid-switch: on one node packets pass netfilter, on the other they meet its rules.

A pool gets eBPF host routing node by node, so for hours it has nodes of both kinds, and one
manifest of NMI must serve both. Cilium is a stand-in, which redirects packets.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from podidentity_sandbox.weather import CALM
from tests.acceptance.planes.cilium import CRDS, cilium
from tests.acceptance.planes.site import REFUSED, SERVED, TIMES, Site, once, until
from tests.acceptance.planes.test_others_rules import OURS_GONE
from tests.acceptance.sandbox import ANSWERED, CLOSED, leaked, opened
from tests.sandboxes import own

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="programs in the kernel: root")

PASSING, MEETING = 0, 1
"""Numbers of the nodes: where packets pass netfilter, and where they meet its rules at first."""
BOTH = (PASSING, MEETING)
LABEL = "kubernetes.azure.com/ebpf-host-routing"
SEPARATOR = "and on stderr:"
CHECK = f"""
{{ said=$(podidentity check -o json 2>&1 >&3) || [ $? = 1 ]; }} 3>&1
printf '{SEPARATOR}%s\\n' "$said"
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: on-{number}, namespace: default, labels: {{aadpodidbinding: bound}}}}
spec: {{nodeName: {node}, containers: [{{name: main, image: idle}}]}}
"""


@dataclass
class Pool(Site):
    stack: ExitStack

    def node(self, number: int) -> str:
        return self.place.plan.nodes[number].name

    async def in_pod(self, number: int, script: str) -> list[str]:
        """Run this in the pod of a node; return the words that it printed."""
        ran = await self.place.shell(script, pod=f"on-{number}")
        return ran.stdout.decode().split()

    async def asked(self, number: int, seconds: int) -> tuple[list[str], int]:
        nonce = secrets.token_hex(8)
        script = f"for i in $(seq {TIMES}); do {once(nonce, seconds)}; done"
        return await self.in_pod(number, script), await leaked(self.azure, nonce)

    def ask_both(self, *closed: int) -> list[tuple[list[str], int]]:
        """Ask some times in the pod of each node; return statuses, and how many leaked."""

        async def both() -> list[tuple[list[str], int]]:
            seconds = [CLOSED if number in closed else ANSWERED for number in BOTH]
            return await asyncio.gather(*map(self.asked, BOTH, seconds))

        return self.loop.run(both())

    def start_cilium(self, number: int) -> None:
        """Have Cilium with eBPF host routing on a node from now on, and AKS's label."""
        self.place.run("kubectl", "label", "node", self.node(number), f"{LABEL}=true")
        self.stack.enter_context(cilium(self.place, "packets", "single", number))

    def until_led(self, number: int, by: str) -> None:
        """Wait until NMI of a node is ready, with requests that come to it this way."""
        until(
            lambda: self.place.readiness(number),
            lambda found: found["ready"] and found["path"]["backend"] == by,
        )

    def check(self) -> tuple[dict[str, Any], str]:
        """Return what `podidentity check` finds, by its reasons, and what it says on stderr."""
        found, _, said = self.place.run("sh", "-c", CHECK).partition(SEPARATOR)
        return {each["reason"]: each for each in json.loads(found)}, said

    def enable(self) -> str:
        """Have Cilium lead requests to NMI; return what was said."""
        return self.place.run("sh", "-c", "podidentity enable --backend=lrp 2>&1")

    def clusterwide(self) -> str:
        return self.place.run("kubectl", "get", "ccnp", "-o", "name")


@pytest.fixture(scope="module")
def site() -> Iterator[Pool]:
    # Calm: the subject is the way of packets on the node, which no delay of Azure changes.
    with (
        opened(own("mid-switch"), nodes=2, weather=CALM) as (place, azure, loop),
        ExitStack() as stack,
    ):
        site = Pool(place, azure, loop, stack)
        place.run("kubectl", "apply", "-f", str(CRDS))
        for number in BOTH:
            pod = POD.format(number=number, node=site.node(number))
            place.apply(pod)
        site.start_cilium(PASSING)
        yield site


def test_without_ours_pods_of_both_nodes_reach_the_real_imds(site: Pool) -> None:
    assert site.ask_both() == [(SERVED, TIMES)] * 2


def test_when_the_switch_begins_pods_of_that_node_get_nothing_and_those_of_the_other_tokens(
    site: Pool,
) -> None:
    site.loop.run(site.place.bind_by("podidentity", "enable", "--no-wait"))
    site.until_led(MEETING, "nftables")
    found = until(
        lambda: site.place.readiness(PASSING),
        lambda found: found["path"]["hop"] == "no-answer",
    )
    assert not found["ready"]
    assert site.ask_both(PASSING) == [(REFUSED, 0), (SERVED, 0)]
    findings, said = site.check()
    assert findings["HostRouting"]["name"] == site.node(PASSING)
    assert findings["NoTokens"]["name"] == f"on-{PASSING}"
    assert "NMI is ready on 1 of 2 nodes" in findings["NotReady"]["message"]
    assert f"  on {site.node(MEETING)}: by nftables\n" in said
    assert f"  on {site.node(PASSING)}: not known" in said


def test_with_backend_lrp_pods_of_both_get_tokens_and_no_policy_cuts_the_other_off(
    site: Pool,
) -> None:
    said = site.enable()
    assert f"is not made: on {site.node(MEETING)} pods' requests come by the node's rules" in said
    assert not site.clusterwide()
    site.until_led(PASSING, "lrp")
    site.until_led(MEETING, "nftables")
    assert site.ask_both() == [(SERVED, 0)] * 2
    findings, said = site.check()
    assert not findings.keys() & {"HostRouting", "NoTokens", "NotReady", "CutsOff", "FailsOpen"}
    assert f"  on {site.node(PASSING)}: by lrp\n" in said
    assert f"  on {site.node(MEETING)}: by nftables\n" in said


def test_while_the_other_node_switches_nothing_leaks_and_then_cilium_leads_its_pods(
    site: Pool,
) -> None:
    nonce = secrets.token_hex(8)

    async def ask_meanwhile() -> list[str]:
        # The last request begins after the switch; one that began in it may fail.
        whole, any_other = once(nonce, ANSWERED), once(nonce, 5)
        script = f"{whole}; touch /begun; until test -e /over; do {any_other}; done; {whole}"
        asking = asyncio.create_task(site.in_pod(MEETING, script))
        await site.in_pod(MEETING, "until test -e /begun; do sleep 0.02; done")
        await asyncio.to_thread(site.start_cilium, MEETING)
        await asyncio.to_thread(site.until_led, MEETING, "lrp")
        await site.in_pod(MEETING, "touch /over")
        return await asking

    statuses = site.loop.run(ask_meanwhile())
    assert set(statuses) <= {"200", "000"}
    assert (statuses[0], statuses[-1]) == ("200", "200"), "before and after it"
    assert site.leaked(nonce) == 0
    assert site.ask_both() == [(SERVED, 0)] * 2


def test_when_the_switch_is_over_check_asks_for_the_policy_and_enable_makes_it(site: Pool) -> None:
    _, said = until(site.check, lambda found: "FailsOpen" in found[0], every=3)
    assert f"  on {', '.join(map(site.node, BOTH))}: by lrp\n" in said
    site.enable()
    assert "podidentity-imds" in site.clusterwide()
    assert site.ask_both() == [(SERVED, 0)] * 2


def test_after_disable_both_are_closed_and_without_our_rules_both_are_open(site: Pool) -> None:
    site.place.run("podidentity", "disable")
    assert site.ask_both(*BOTH) == [(REFUSED, 0)] * 2
    for number in BOTH:
        site.place.on_node("sh", "-ec", OURS_GONE, number=number)
    assert [leaked for _, leaked in site.ask_both()] == [TIMES] * 2, "a leak must be seen"

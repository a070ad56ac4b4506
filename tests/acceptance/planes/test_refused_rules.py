"""New rules are refused in a node's network, as by AKS where eBPF host routing is on."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.lifecycle import bring_down
from tests.acceptance.planes import refused_rules
from tests.acceptance.planes.refused_rules import LOOKED_AT, Refuser
from tests.acceptance.planes.site import REFUSED, SERVED, TIMES, Site, until
from tests.acceptance.sandbox import CLOSED, Sandbox
from tests.sandboxes import own

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a filter for all of a sandbox: root")

ALL = 1000
"""Messages that a stricter program may look at: those of any datagram."""
LABEL = "kubernetes.azure.com/ebpf-host-routing"
SAID = "the process has CAP_NET_ADMIN, and something of the node refuses its rules all the same"


@dataclass
class RefusingSite(Site):
    refuser: Refuser


@pytest.fixture(scope="module")
def site() -> Iterator[RefusingSite]:
    name = own("refused")
    command = shutil.which("podidentity")
    assert command
    refuser = refused_rules.start([command, *f"sandbox up --name {name} --nodes 1".split()])
    try:
        place = Sandbox(Plan.load(Folder.of(name).path))
        refuser.network = Path(f"/proc/{place.node_process()}/ns/net").stat().st_ino
        place.start_pod()
        with asyncio.Runner() as loop:
            azure = loop.run(AzureOperator(place.plan).__aenter__())
            yield RefusingSite(place, azure, loop, refuser)
            loop.run(azure.__aexit__())
    finally:
        bring_down(name)


def test_without_our_rules_requests_reach_the_real_imds(site: RefusingSite) -> None:
    assert site.ask() == (SERVED, TIMES)


def test_an_agent_whose_rules_are_refused_says_what_it_is_and_nothing_leaks(
    site: RefusingSite,
) -> None:
    site.refuser.looked_at = ALL
    node = site.place.plan.nodes[0].name
    site.place.run("kubectl", "label", "node", node, f"{LABEL}=true")
    site.place.run("podidentity", "enable", "--no-wait")
    checked = site.until_findings(lambda found: SAID in found["NotReady"]["message"])
    found = site.place.readiness()
    log = site.place.run("kubectl", "logs", "-n", "kube-system", "daemonset/nmi", "-c", "net")
    metrics = site.place.on_node("curl", "-s", "http://127.0.0.1:9090/metrics")
    assert site.ask(seconds=CLOSED) == (REFUSED, 0)
    assert site.refuser.refused > 0
    assert not found["ready"]
    for text in (str(found), log, checked["NotReady"]["message"]):
        assert SAID in text
        assert LABEL in text
        assert "give the process CAP_NET_ADMIN" not in text
    assert "podidentity_interception_healthy 0\n" in metrics
    assert checked["HostRouting"]["name"] == node


def test_as_soon_as_rules_are_taken_pods_get_tokens(site: RefusingSite) -> None:
    site.refuser.looked_at = 0
    site.loop.run(site.place.bind())
    assert site.ask() == (SERVED, 0)


def test_a_repair_that_is_refused_is_told_and_the_copy_of_our_process_goes_on(
    site: RefusingSite,
) -> None:
    site.refuser.looked_at = ALL
    site.place.on_node("nft", "delete", "table", "ip", "podid")
    found = until(site.place.readiness, lambda found: not found["ready"])
    assert SAID in str(found["checks"]["interception"])
    assert site.ask() == (SERVED, 0)
    site.refuser.looked_at = 0
    until(site.place.readiness, lambda found: found["ready"])
    assert site.ask() == (SERVED, 0)


def test_the_program_as_it_is_published_looks_too_little_to_refuse_ours(site: RefusingSite) -> None:
    """The first rule of a transaction of ours comes after the messages that it looks at."""
    refused = site.refuser.refused
    site.refuser.looked_at = LOOKED_AT
    site.place.on_node("nft", "delete", "table", "ip", "podid")
    until(site.place.readiness, lambda found: found["ready"])
    assert site.ask() == (SERVED, 0)
    assert site.refuser.refused == refused
    site.place.on_node("nft", "add table ip other; add chain ip other one")
    enter = ["nsenter", "--target", str(site.place.node_process()), "--net", "--"]
    rule = [*enter, "nft", "add rule ip other one accept"]
    refused_rules.start(rule, site.refuser.network, looked_at=1)
    with pytest.raises(AssertionError):
        refused_rules.start(rule, site.refuser.network, LOOKED_AT)

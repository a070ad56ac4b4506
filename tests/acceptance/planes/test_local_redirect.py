"""Backend lrp: pods' requests are led to NMI by Cilium, on nodes where packets pass its rules."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from podidentity.manifests import local_redirect
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.node.client import execute
from podidentity_sandbox.plan import Network
from tests.acceptance.planes.cilium import CRDS, Agent, Decision, cilium
from tests.acceptance.planes.test_others_rules import OURS_GONE
from tests.acceptance.sandbox import ASK, Sandbox, opened
from tests.sandboxes import own

WAYS = {"packets": "single", "sockets": "looked-up"}
"""How Cilium redirects, and how it sends past netfilter."""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="programs in the kernel: root"),
    pytest.mark.parametrize("site", WAYS, indirect=True),
]

TIMES = 5
SERVED, REFUSED = ["200"] * TIMES, ["000"] * TIMES
VAULT = "https://vault.azure.net"


@dataclass(frozen=True)
class Site:
    place: Sandbox
    azure: AzureOperator
    loop: asyncio.Runner
    agent: Agent
    without_ours: tuple[list[str], int]
    """What a pod got before NMI was there."""
    enabled: str
    """What `enable` said."""

    @property
    def node(self) -> str:
        return self.place.plan.nodes[0].address

    def ask(self, pod: str = "app", to: str = "169.254.169.254", more: str = "") -> tuple[list[str], int]:
        """Ask some times in a pod; return the statuses and how many requests reached IMDS."""
        nonce = secrets.token_hex(8)
        once = ASK.format(seconds=1, nonce=nonce, resource=VAULT).replace("169.254.169.254", to)
        script = f"for i in $(seq {TIMES}); do {once} {more} -o /dev/null; done"
        shell = execute(self.place.plan, "default", pod, ["sh", "-c", script], timeout=60)
        statuses = self.loop.run(shell).stdout.decode().split()
        requests = self.loop.run(self.azure.imds_requests())
        return statuses, sum(each["headers"].get("x-nonce") == nonce for each in requests)

    def readiness(self, query: str = "") -> Any:
        found = self.place.on_node("curl", "-s", f"http://127.0.0.1:8085/readyz{query}")
        return json.loads(found)

    def until(self, look: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
        """Look until that holds, and return what was found."""
        ends = time.monotonic() + 60
        while not holds(found := look()):
            assert time.monotonic() < ends, found
            time.sleep(0.1)
        return found

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have all processes of `serve` stand still."""
        held = self.place.processes("serve")
        for each in held:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in held:
                os.kill(each, signal.SIGCONT)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    way: str = request.param
    with (
        opened(own(f"lrp-{way}"), Network.ROUTED) as (place, azure, loop),
    ):
        place.run("kubectl", "apply", "-f", str(CRDS))
        place.start_pod()
        with cilium(place, way, WAYS[way]) as agent:
            made = Site(place, azure, loop, agent, ([], 0), "")
            before = made.until(made.ask, lambda found: found[1] == TIMES)
            said = loop.run(place.bind_by("podidentity", "enable", "--backend=lrp"))
            yield Site(place, azure, loop, agent, before, said)


def test_without_ours_pods_reach_the_real_imds(site: Site) -> None:
    assert site.without_ours == (SERVED, TIMES)


def test_pods_get_tokens_by_cilium(site: Site) -> None:
    assert site.ask() == (SERVED, 0)
    assert site.readiness()["path"] == {"hop": "proved", "plane": "routed", "backend": "lrp"}
    metrics = site.place.on_node("curl", "-s", "http://127.0.0.1:9090/metrics")
    assert 'podidentity_data_path_backend{backend="lrp"} 1\n' in metrics
    assert site.agent.decision == Decision(backend=(site.node, 2579), denied=True)

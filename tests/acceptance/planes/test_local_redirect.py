"""Backend lrp: pods' requests are led to NMI by Cilium, on nodes where packets pass its rules."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from podidentity.manifests import local_redirect
from podidentity_sandbox.plan import Network
from podidentity_sandbox.weather import CALM
from tests.acceptance.asking import OURS, Load, load
from tests.acceptance.planes.cilium import CRDS, Agent, Decision, cilium
from tests.acceptance.planes.site import IMDS, REFUSED, SERVED, TIMES, VAULT, Site, once, until
from tests.acceptance.planes.test_others_rules import OURS_GONE
from tests.acceptance.sandbox import ANSWERED, CLOSED, PATIENCE, opened
from tests.sandboxes import own

WAYS = {"packets": "single", "sockets": "looked-up"}
"""How Cilium redirects, and how it sends past netfilter."""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="programs in the kernel: root"),
    pytest.mark.parametrize("site", WAYS, indirect=True),
]

THIEF = """
apiVersion: v1
kind: Pod
metadata: {name: thief, namespace: default}
spec:
  containers:
    - name: main
      image: idle
      securityContext: {capabilities: {add: [NET_ADMIN, NET_RAW]}}
"""

FROM_ONE_PORT = f"""
import socket, sys
for to in sys.argv[1:]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.settimeout({ANSWERED})
        client.bind(("", 31000))
        host, port = to.split(":")
        client.connect((host, int(port)))
        path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource={VAULT}"
        headers = ("Host: x", "Metadata: true", "Connection: close", "", "")
        client.sendall("\\r\\n".join((f"GET {{path}} HTTP/1.1", *headers)).encode())
        print(client.makefile().read().split()[1])  # all of it: NMI closes first
"""


@dataclass
class CiliumSite(Site):
    agent: Agent
    without_ours: tuple[list[str], int]
    """What a pod got before NMI was there."""

    @property
    def node(self) -> str:
        return self.place.plan.nodes[0].address

    def now(self) -> tuple[list[str], int]:
        """Ask while it may still be closed."""
        return self.ask(seconds=5)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[CiliumSite]:
    way: str = request.param
    # Calm: the subject is the way of packets on the node, which no delay of Azure changes.
    with opened(own(f"lrp-{way}"), Network.ROUTED, weather=CALM) as (place, azure, loop):
        place.run("kubectl", "apply", "-f", str(CRDS))
        place.start_pod()
        with cilium(place, way, WAYS[way]) as agent:
            made = CiliumSite(place, azure, loop, agent, ([], 0))
            before = until(made.now, lambda found: found[1] == TIMES)
            loop.run(place.bind_by("podidentity", "enable", "--backend=lrp"))
            yield CiliumSite(place, azure, loop, agent, before)


def test_without_ours_pods_reach_the_real_imds(site: CiliumSite) -> None:
    assert site.without_ours == (SERVED, TIMES)


def test_pods_get_tokens_by_cilium(site: CiliumSite) -> None:
    assert site.ask() == (SERVED, 0)
    assert site.place.readiness()["path"] == {"hop": "proved", "plane": "routed", "backend": "lrp"}
    metrics = site.place.on_node("curl", "-s", "http://127.0.0.1:9090/metrics")
    assert 'podidentity_data_path_backend{backend="lrp"} 1\n' in metrics
    assert site.agent.decision == Decision(backend=(site.node, 2579), denied=True)


def test_the_policies_are_stored_as_they_were_written(site: CiliumSite) -> None:
    _, redirect, deny = local_redirect()
    for wanted, kind in ((redirect, "ciliumlocalredirectpolicy"), (deny, "ccnp")):
        place = ("-n", "kube-system", "-o", "json")
        name = wanted["metadata"]["name"]
        found = json.loads(site.place.run("kubectl", "get", kind, name, *place))
        assert {**found["spec"], **wanted["spec"]} == found["spec"]


def test_check_says_by_what_requests_come(site: CiliumSite) -> None:
    script = "podidentity check -o json 2>&1 >/dev/null || [ $? = 1 ]"
    told = site.place.run("sh", "-c", script)
    assert f"  on {site.place.plan.nodes[0].name}: by lrp\n" in told


def test_with_another_port_cilium_leads_pods_there_and_meanwhile_nothing_leaks(
    site: CiliumSite,
) -> None:
    asked = site.loop.run(ports_change(site))
    assert asked.wrong == [], "whoever was answered got the token"
    assert asked.answers[OURS] > 0
    assert site.leaked("of-the-ports") == 0


async def ports_change(site: CiliumSite) -> Load:
    """Have another port, and the first one again, while the pod asks; return what it got."""
    async with load(site.place, "of-the-ports", rate=25, patience=5) as asked:
        for port, told in ((2580, "--nmi-arg=--nmi-port=2580"), (2579, "--forget=nmi-arg")):
            await asyncio.to_thread(site.place.run, "podidentity", "enable", told)
            async with asyncio.timeout(PATIENCE):
                while site.agent.decision.backend != (site.node, port):  # noqa: ASYNC110 - a thread's
                    await asyncio.sleep(0.1)
                while (await site.place.ask())[0] != 200:  # noqa: ASYNC110 - of the kernel
                    await asyncio.sleep(0.1)
    return asked


def test_a_port_of_a_pod_that_asked_imds_may_ask_nmi_itself_next(site: CiliumSite) -> None:
    asking = shlex.join(["python3", "-c", FROM_ONE_PORT, f"{IMDS}:80", f"{site.node}:2579"])
    assert site.shell(asking).split() == ["200", "200"]


def test_a_pod_that_connects_to_nmi_itself_gets_its_own_tokens_and_nobody_elses(
    site: CiliumSite,
) -> None:
    assert site.ask(to=f"{site.node}:2579") == (SERVED, 0)
    site.place.apply(THIEF)
    for to in (f"{site.node}:2579", IMDS):
        assert site.ask("thief", to=to) == (["400"] * TIMES, 0), "it has no identity"
    victim = json.loads(site.place.run("kubectl", "get", "pod", "app", "-o", "json"))
    address = victim["status"]["podIP"]
    take = site.place.shell(f"ip address add {address}/32 dev eth0", pod="thief")
    assert site.loop.run(take).exit == 0
    for to in (f"{site.node}:2579", IMDS):
        statuses, leaked = site.ask("thief", to=to, more=f"--interface {address}", seconds=CLOSED)
        assert ("200" in statuses, leaked) == (False, 0)
    assert site.ask() == (SERVED, 0), "nor is the owner locked out"


def test_the_node_itself_and_pods_in_its_network_get_nothing_there_and_reach_imds(
    site: CiliumSite,
) -> None:
    nonce = "of-the-node"
    for to, reached in ((f"{site.node}:2579", 0), (IMDS, 1)):
        said = site.place.on_node("sh", "-c", once(nonce, to=to))
        assert said.rsplit("\n", 1)[-1] in {"400", "403", "404", "503"}, said
        assert site.leaked(nonce) == reached


def test_while_nmi_does_not_answer_nothing_leaks_and_cilium_redirects_nobody(
    site: CiliumSite,
) -> None:
    with site.place.stopped("serve"):
        assert site.ask(seconds=CLOSED) == (REFUSED, 0)
        until(lambda: site.agent.decision.backend, lambda found: found is None)
        assert site.ask(seconds=CLOSED) == (REFUSED, 0)
    until(lambda: site.agent.decision.backend, lambda found: found is not None)
    until(site.now, lambda found: found == (SERVED, 0))


def test_with_nmi_gone_policy_and_routing_rules_each_close_alone_and_without_both_it_is_open(
    site: CiliumSite,
) -> None:
    site.place.run("kubectl", "delete", "daemonset", "nmi", "-n", "kube-system")
    until(lambda: site.agent.decision.backend, lambda found: found is None)
    assert site.ask(seconds=CLOSED) == (REFUSED, 0)
    site.place.run("kubectl", "delete", "ccnp", "podidentity-imds")
    until(lambda: site.agent.decision.denied, lambda found: not found)
    assert site.ask(seconds=CLOSED) == (REFUSED, 0), "by the routing rules alone"
    site.place.on_node("sh", "-ec", OURS_GONE)
    assert site.ask()[1] == TIMES, "by nothing"
    # enable makes the policy only where it knows that it cuts nobody off; here is nobody yet.
    deny = local_redirect()[-1]
    site.place.run("kubectl", "apply", "-f", "-", given=json.dumps(deny))
    until(lambda: site.agent.decision.denied, bool)
    assert site.ask(seconds=CLOSED) == (REFUSED, 0), "by the policy alone"
    site.place.run("podidentity", "enable", "--backend=lrp")
    until(site.now, lambda found: found == (SERVED, 0))


def test_disable_takes_the_policies_away_and_nothing_leaks(site: CiliumSite) -> None:
    said = site.place.run("podidentity", "disable")
    for kind in ("ciliumlocalredirectpolicy", "ciliumclusterwidenetworkpolicy"):
        assert f"{kind}.cilium.io/podidentity-imds deleted\n" in said
    assert site.agent.decision == Decision()
    assert site.ask(seconds=CLOSED) == (REFUSED, 0)

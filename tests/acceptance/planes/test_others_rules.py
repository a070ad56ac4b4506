"""What others write into a node's packet filter, beside ours.

kube-proxy, AKS's IMDS restriction, and engines of network policies.

On each kind of network; requests that reach the real IMDS are counted by a nonce, first without
our rules and then with them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest

from podidentity.net import path_probe
from podidentity.nmi import path_watch
from podidentity_sandbox.plan import Network
from podidentity_sandbox.weather import CALM
from tests.acceptance.planes import kube_proxy
from tests.acceptance.planes.engines import GONE, Engine
from tests.acceptance.planes.kube_proxy import Service, crowd
from tests.acceptance.planes.links import host_routing, link_of
from tests.acceptance.planes.site import Site, once, until
from tests.acceptance.sandbox import ANSWERED, CLOSED, leaked, opened
from tests.docs.blocks import ROOT
from tests.sandboxes import own

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="pods have cgroups only as root"),
    pytest.mark.parametrize("site", Network, indirect=True),
]

UNHINDERED, UNDER_LOAD = 10, 40
"""Requests for a token while nothing of ours is there, and of a round while rules are reloaded."""
ROUNDS, RELOADS = 2, 10
"""At least so many."""
CROWD = 40
PROBE = ("-l", "app.kubernetes.io/component=probe")
OF_NODES = ("--field-selector=involvedObject.kind=Node", "-o", "jsonpath={.items[*].reason}")
NOTICED = 10.0
"""Seconds until a bypass must be noticed."""
NMI_PAGE = ROOT / "docs/reference/nmi.md"
SERVICE = ("10.0.77.7", 80)
SERVICE_URL = "http://10.0.77.7"
SERVER = """
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: default}
spec:
  containers:
    - {name: main, image: idle, command: [python3, -m, http.server, "80", -d, /mnt]}
"""
OURS_GONE = """
nft delete table ip podid
for priority in 1 3 4 5 2 6; do ip rule delete priority $priority; done
ip route flush table 2579
ip address delete 169.254.25.79/32 dev lo
nft delete table ip podid_source
nft list table bridge podid_source >/dev/null 2>&1 && nft delete table bridge podid_source || true
"""
"""As docs/reference/nmi.md has it."""


@dataclass(frozen=True)
class Answers:
    """What a pod got: statuses of IMDS's address, and of a service's, and how many leaked."""

    imds: Sequence[str]
    service: Sequence[str]
    leaked: int
    written: int = field(default=0, compare=False)
    """How often something was done meanwhile."""


@dataclass
class CrowdedSite(Site):
    """A node with a pod that asks, and a service; NMI comes after the first counts."""

    network: Network
    server: str = ""
    without_ours: dict[str, Answers] = field(default_factory=dict)

    def sh(self, script: str) -> None:
        """Run a shell script in the node's network, to the first failure."""
        self.place.on_node("sh", "-ec", script)

    def ask_often(
        self,
        times: int,
        meanwhile: Callable[[int], None] | None = None,
        seconds: int = ANSWERED,
    ) -> Answers:
        """Ask IMDS's address so often; `meanwhile` is called over and over, with its number.

        The service is asked as often, where something is done meanwhile: kube-proxy works then.
        """
        return self.loop.run(self._ask(times, meanwhile, seconds))

    async def _ask(
        self, times: int, meanwhile: Callable[[int], None] | None, seconds: int
    ) -> Answers:
        nonce = secrets.token_hex(8)
        asks = [once(nonce, seconds)]
        if meanwhile is not None:
            asks.append(f"curl -s -m {ANSWERED} -w '\\n%{{http_code}}' {SERVICE_URL} -o /dev/null")
        command = f"for i in $(seq {times}); do {'; '.join(asks)}; done"
        asking = asyncio.create_task(self.place.shell(command))
        number = 0
        while meanwhile is not None and not asking.done():
            await asyncio.to_thread(meanwhile, number)
            number += 1
        found = (await asking).stdout.decode().split()
        service = found[1::2] if meanwhile is not None else []
        return Answers(found[:: len(asks)], service, await leaked(self.azure, nonce), number)

    def judge(self, engine: Engine, *policies: str) -> None:
        """Store these policies, and have an engine judge the pod's egress by them alone."""
        self.place.run("kubectl", "apply", "-f", "-", given="\n---\n".join(policies))
        found = json.loads(self.place.run("kubectl", "get", "networkpolicies", "-o", "json"))
        self.sh(GONE)
        given = engine.script(self.link(), found["items"])
        self.place.on_node("nft", "-f", "-", given=given)

    def link(self, pod: str = "app", namespace: str = "default") -> str:
        """Return the node's end of a pod's link."""
        return link_of(self.place, self.loop, namespace, pod)

    def host_routing(self, link: str) -> AbstractContextManager[None]:
        """Have a program in the kernel send the requests of a pod's link past netfilter."""
        return host_routing(self.place, link)

    def probe_pod(self) -> str:
        """Return the name of the probe pod."""
        found = self.place.run("kubectl", "get", "pods", "-n", "kube-system", "-o", "name", *PROBE)
        (name,) = found.split()
        return name.removeprefix("pod/")

    def until_ready(self, *, ready: bool) -> float:
        """Wait until `/readyz` says so; return how many seconds that took."""
        begun = time.monotonic()
        until(self.place.readiness, lambda found: found["ready"] is ready)
        return time.monotonic() - begun

    def until_hop(self, hop: str) -> float:
        """Wait until probes come so far; return how many seconds that took."""
        begun = time.monotonic()
        until(self.place.readiness, lambda found: found["path"]["hop"] == hop)
        return time.monotonic() - begun

    def until_found(self, *, broken: bool) -> dict[str, str]:
        """Wait until `check` says that the path is broken, or no more; return what it says."""
        found = self.until_findings(lambda found: ("PathBroken" in found) is broken)
        return dict(found.get("PathBroken", {}))

    def until_told(self, *reasons: str) -> None:
        """Wait until events of the node have these reasons."""
        events = ("kubectl", "get", "events", "-n", "default", *OF_NODES)
        until(lambda: self.place.run(*events).split(), set(reasons).issubset)

    def explained(self) -> Any:
        """Return what `explain` says of the pod."""
        explain = "podidentity explain pod default/app -o json || [ $? = 1 ]"
        return json.loads(self.place.run("sh", "-c", explain))

    def path_of_pod(self) -> dict[str, str]:
        """Return where the pod's requests arrive, by `explain`."""
        found: dict[str, str]
        (found,) = [each for each in self.explained()["chain"] if each["link"] == "path"]
        return found

    @property
    def node(self) -> str:
        return self.place.plan.nodes[0].address

    def services(self, number: int = 0) -> list[Service]:
        """Return the asked service among others, of which some come and go."""
        asked = Service("default/server", *SERVICE, [f"{self.server}:80"] * (1 + number % 3))
        return [*crowd(CROWD - 7 * (number % 2), f"{self.server}:80"), asked]


@dataclass(frozen=True)
class KubeProxy:
    """kube-proxy in one of its modes, on a site."""

    site: CrowdedSite
    mode: str

    def begin(self) -> None:
        self.site.sh(kube_proxy.LOCALNET)
        self.write(0)
        if self.mode == "iptables":
            self.site.sh(kube_proxy.iptables_jumps())

    def write(self, number: int) -> None:
        services = self.site.services(number)
        if self.mode == "iptables":
            command = ["iptables-nft-restore", "-w", "5", "--noflush"]
            self.site.place.on_node(*command, given=kube_proxy.iptables_restore(services))
        else:
            given = kube_proxy.nftables_transaction(services, self.site.node)
            self.site.place.on_node("nft", "-f", "-", given=given)

    def end(self) -> None:
        iptables = self.mode == "iptables"
        self.site.sh(kube_proxy.IPTABLES_GONE if iptables else kube_proxy.NFTABLES_GONE)


MODES = ("iptables", "nftables")


def restriction(table: str, node: str, *, there: bool) -> str:
    """Return the command that sets or ends AKS's IMDS restriction.

    Source: Azure/AgentBaker, parts/linux/cloud-init/artifacts/ensure_imds_restriction.sh. Which
    of the tables it is depends on the network plugin.
    """
    rule = f"! -s {node} -d 169.254.169.254/32 -p tcp --dport 80 -j DROP"
    where = "-I FORWARD 1" if there else "-D FORWARD"
    return f"iptables-nft -w -t {table} {where} {rule}"


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[CrowdedSite]:
    assert shutil.which("iptables-nft", path=f"{os.environ['PATH']}:/usr/sbin"), (
        "iptables-nft is not installed, by which kube-proxy writes its rules: ./scripts/setup"
        " installs it as root; else: sudo apt-get install iptables"
    )
    network: Network = request.param
    # Calm: the subject is the way of packets on the node, which no delay of Azure changes.
    with opened(own(f"planes-{network}"), network, weather=CALM) as (place, azure, loop):
        place.start_pod()
        place.apply(SERVER)
        server = json.loads(
            place.run("podidentity", "sandbox", "get", "pod", "server", "-o", "json")
        )
        site = CrowdedSite(place, azure, loop, network, server["status"]["podIP"])
        site.without_ours["nothing"] = site.ask_often(UNHINDERED)
        for mode in MODES:
            proxy = KubeProxy(site, mode)
            proxy.begin()
            site.without_ours[mode] = site.ask_often(UNHINDERED, proxy.write)
            proxy.end()
        loop.run(place.bind())
        assert loop.run(place.ask())[0] == 200
        yield site


def test_without_our_rules_requests_reach_the_real_imds(site: CrowdedSite) -> None:
    assert {what: each.leaked for what, each in site.without_ours.items()} == dict.fromkeys(
        ("nothing", *MODES), UNHINDERED
    )
    reached = {what: set(each.service) for what, each in site.without_ours.items()}
    assert reached == {"nothing": set(), **{mode: {"200"} for mode in MODES}}


@pytest.mark.parametrize("mode", MODES)
def test_beside_kube_proxys_rules_and_their_reloads_pods_get_tokens_and_reach_services(
    site: CrowdedSite, mode: str
) -> None:
    proxy = KubeProxy(site, mode)
    each = Answers(["200"] * UNDER_LOAD, ["200"] * UNDER_LOAD, leaked=0)
    proxy.begin()
    try:
        rounds = written = 0
        while rounds < ROUNDS or written < RELOADS:
            found = site.ask_often(UNDER_LOAD, proxy.write)
            assert found == each
            rounds, written = rounds + 1, written + found.written
    finally:
        proxy.end()


@pytest.mark.parametrize("table", ["filter", "mangle"])
def test_tokens_come_with_akss_restriction_and_after_it_has_gone(
    site: CrowdedSite, table: str
) -> None:
    site.sh(restriction(table, site.node, there=True))
    both = site.ask_often(UNHINDERED)
    site.sh(restriction(table, site.node, there=False))
    alone = site.ask_often(UNHINDERED)
    for found in (both, alone):
        assert (set(found.imds), found.leaked) == ({"200"}, 0)


NETWORK = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: "
DENY = NETWORK + "{name: default-deny}\nspec: {podSelector: {}, policyTypes: [Egress]}\n"
ALLOW = NETWORK + "{name: to-imds}\nspec:\n  podSelector: {}\n  policyTypes: [Egress]\n"


@pytest.mark.parametrize("engine", Engine)
def test_a_policy_that_denies_by_default_is_named_with_the_rule_that_is_needed(
    site: CrowdedSite, engine: Engine
) -> None:
    site.judge(engine, DENY)
    try:
        denied = site.ask_often(2, seconds=CLOSED)
        explained = site.explained()
        checked = site.place.check()
        site.judge(engine, DENY, ALLOW + documented())
        allowed = site.ask_often(UNHINDERED)
        again = site.explained()
    finally:
        site.sh(GONE)
        site.place.run("kubectl", "delete", "networkpolicies", "--all")
    assert (denied.imds, denied.leaked) == (["000"] * 2, 0)
    need = "llow egress to 169.254.169.254/32, TCP port 80"
    links = {each["link"]: each for each in explained["chain"]}
    assert not explained["entitled"]
    assert links["network policy"]["text"].startswith(f"default-deny: a{need}")
    (found,) = [each for each in checked if each["reason"] == "EgressClosed"]
    assert found["nextStep"].startswith(f"A{need}")
    assert (set(allowed.imds), allowed.leaked) == ({"200"}, 0)
    assert again["entitled"]


def documented() -> str:
    """Return the rules that docs/reference/nmi.md gives, as a part of a policy's spec."""
    (text,) = re.findall(r"```yaml\n(egress:\n.*?)```", NMI_PAGE.read_text(), re.DOTALL)
    return textwrap.indent(text, "  ")


def test_ebpf_host_routing_passes_our_rules_and_akss_restriction(site: CrowdedSite) -> None:
    """A leak, shown and not closed, by a program that names the next hop (nodes.md)."""
    site.sh(restriction("filter", site.node, there=True))
    try:
        with site.host_routing(site.link()):
            passed = site.ask_often(UNHINDERED)
    finally:
        site.sh(restriction("filter", site.node, there=False))
    assert passed.leaked == UNHINDERED
    again = site.ask_often(UNHINDERED)
    assert (set(again.imds), again.leaked) == ({"200"}, 0)


def test_a_bypass_is_noticed_by_the_probe_within_ten_seconds_and_so_is_its_end(
    site: CrowdedSite,
) -> None:
    site.until_ready(ready=True)
    before = site.place.readiness()["path"]
    with site.host_routing(site.link(site.probe_pod(), "kube-system")):
        noticed = site.until_hop("imds")
        broken = site.place.readiness()
        told = site.until_found(broken=True)
    mended = site.until_ready(ready=True)
    site.until_found(broken=False)
    assert before == {"hop": "proved", "plane": str(site.network), "backend": "nftables"}
    assert not broken["ready"]
    assert broken["path"] == {**before, "hop": "imds", "backend": ""}
    assert "answered by IMDS itself" in broken["checks"]["path"][0]
    assert told["nextStep"].startswith("Turn eBPF host routing off")
    site.until_told("PathBroken", "PathProved")
    # By the product's clock: how long it took is of this machine, too.
    assert path_watch.EVERY + path_probe.SECONDS < NOTICED
    print(f"noticed in {noticed:.1f} s, mended in {mended:.1f} s")  # noqa: T201 - the figure


def test_one_pods_path_is_told_on_demand_and_no_token_comes_of_it(site: CrowdedSite) -> None:
    site.until_ready(ready=True)
    whole = site.path_of_pod()
    with site.host_routing(site.link()):
        bypassed = site.path_of_pod()
        node_itself = site.place.readiness()["path"]["hop"]
    site.judge(Engine.BEFORE, DENY)
    try:
        denied = site.path_of_pod()
    finally:
        site.sh(GONE)
        site.place.run("kubectl", "delete", "networkpolicies", "--all")
    assert (whole["state"], site.path_of_pod()["state"]) == ("ok", "ok")
    assert bypassed["state"] == "no"
    assert "answered by IMDS itself" in bypassed["text"]
    assert node_itself == "proved", "the probe pod's link is another"
    assert "got no answer" in denied["text"]
    assert "let pods out to 169.254.169.254/32, TCP port 80" in denied["text"]
    seen = site.loop.run(site.azure.imds_requests())
    ours = [each for each in seen if each["headers"].get("user-agent") == "podidentity-probe"]
    assert ours, "the bypass let one through"
    assert {each["status"] for each in ours} == {400}
    assert {each["target"].partition("?")[0] for each in ours} == {"/metadata/versions"}


def test_with_nmi_stopped_nothing_leaks_through_kube_proxys_rules(site: CrowdedSite) -> None:
    site.place.run("podidentity", "disable")
    try:
        for mode in MODES:
            proxy = KubeProxy(site, mode)
            proxy.begin()
            found = site.ask_often(UNHINDERED, proxy.write, CLOSED)
            proxy.end()
            assert (set(found.imds), found.leaked) == ({"000"}, 0), mode
    finally:
        site.place.run("podidentity", "enable")


def test_where_our_rules_go_akss_restriction_still_closes_and_with_neither_it_is_open(
    site: CrowdedSite,
) -> None:
    site.place.run("podidentity", "disable")
    site.sh(restriction("filter", site.node, there=True))
    site.sh(OURS_GONE)
    restricted = site.ask_often(2, seconds=CLOSED)
    site.sh(restriction("filter", site.node, there=False))
    opened = site.ask_often(UNHINDERED)
    site.place.run("podidentity", "enable")
    again = site.ask_often(UNHINDERED)
    assert (set(restricted.imds), restricted.leaked) == ({"000"}, 0)
    assert opened.leaked == UNHINDERED
    assert (set(again.imds), again.leaked) == ({"200"}, 0)

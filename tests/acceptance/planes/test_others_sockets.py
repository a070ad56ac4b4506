"""Pods whose connections are made by no process of their own.

A mesh's proxy makes them in the pod's network namespace, as ztunnel of Istio's ambient mesh; or the
pod has a kernel of its own, as Kata's have. On each kind of network: what is refused by default,
what the operator's word admits, and what others make of that.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.plan import Network
from podidentity_sandbox.weather import CALM
from tests.acceptance.directory import manifest, pod
from tests.acceptance.planes.site import Site, once
from tests.acceptance.planes.vm import Guest, machine
from tests.acceptance.sandbox import ANSWERED, opened
from tests.docs.blocks import ROOT
from tests.sandboxes import own

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="pods have cgroups only as root"),
    pytest.mark.parametrize("site", Network, indirect=True),
]

TIMES = 10
MESH, CLASS = "istio-system", "kata-vm-isolation"
CHOSEN = (
    f"--nmi-arg=--trusted-proxies={MESH}/ztunnel",
    f"--nmi-arg=--attestation-by-runtime-class={CLASS}=namespace",
)


@dataclass(frozen=True)
class Answers:
    """Statuses of requests for a token, and how many of these reached the real IMDS."""

    statuses: Sequence[int]
    leaked: int
    reasons: frozenset[str]
    """What NMI's log says of them."""


REFUSED = [403] * TIMES
NO_ANSWER = 0
SERVED = Answers([200] * TIMES, 0, frozenset())


@dataclass
class SharedSite(Site):
    """A node with a pod that has an identity, one of a runtime class that has, and a thief."""

    flags: tuple[str, ...] = ()

    def enable(self, *flags: str) -> None:
        """Have NMI run with these flags, if it does not yet."""
        if flags != self.flags:
            self.place.run("podidentity", "enable", "--forget=nmi-arg", *flags)
            self.flags = flags

    def pods(self, *pods: str) -> None:
        self.place.apply(*pods)

    def get(self, name: str, namespace: str = "default") -> dict[str, Any]:
        return self.place.api.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")

    def address(self, name: str, namespace: str = "default") -> str:
        return str(self.get(name, namespace)["status"]["podIP"])

    def cgroup(self, name: str, namespace: str = "default") -> Path:
        """Return the cgroup of the pod's container."""
        uid = self.get(name, namespace)["metadata"]["uid"]
        root = Path(self.place.plan.cgroup_root)
        (found,) = [
            procs.parent
            for procs in root.rglob("cgroup.procs")
            if procs.parent.parent.name == f"pod{uid}" and procs.read_text().strip()
        ]
        return found

    def process(self, name: str, namespace: str = "default") -> int:
        """Return the first process of the pod's container."""
        return int((self.cgroup(name, namespace) / "cgroup.procs").read_text().split()[0])

    def ask_in(
        self,
        name: str = "app",
        namespace: str = "default",
        *,
        guest: Guest | None = None,
        source: str = "",
        times: int = TIMES,
        seconds: int = ANSWERED,
    ) -> Answers:
        """Ask for a token so often in a pod, or in its guest, or from an address that it took."""
        nonce = secrets.token_hex(8)
        bound = f" --interface {source}" if source else ""
        script = f"for i in $(seq {times}); do {once(nonce, seconds)}{bound} || true; done"
        before = len(self.log())
        said = guest.run("sh", "-c", script) if guest else self.shell(script, name, namespace)
        # Lines without a status tell how many were not written before.
        said_why = re.findall(r" status=\d+ .*reason=(\w+)", "\n".join(self.log()[before:]))
        statuses = [*map(int, said.split())]
        return Answers(statuses, self.leaked(nonce), frozenset(said_why))

    def forge(self, address: str) -> int:
        """Have the thief ask in another's name by frames of its own; return the status."""
        forger = "python3 -m podidentity_sandbox.demo.forger --trick arp --seconds 4"
        script = f"{forger} --claim {address} 2>/dev/null || true"
        said = self.shell(script, "thief", "tenant")
        return int(json.loads(said)["status"]) if said else NO_ANSWER

    def log(self) -> list[str]:
        """Return the lines of `serve`."""
        logs = ("kubectl", "logs", "-n", "kube-system", "-l", "app.kubernetes.io/component=nmi")
        return self.place.run(*logs, "-c", "serve", "--tail=-1").splitlines()

    def until_checked(self, reason: str) -> dict[str, str]:
        """Return what `check` finds for this reason, once NMI has told it by an event."""
        found: dict[str, str] = self.until_findings(lambda found: reason in found)[reason]
        return found

    def explained(self, name: str) -> dict[str, str]:
        """Return the state and text of the link `proof` that `explain` shows."""
        script = f"podidentity explain pod default/{name} -o json || [ $? = 1 ]"
        chain = json.loads(self.place.run("sh", "-c", script))["chain"]
        (link,) = [each for each in chain if each["link"] == "proof"]
        return dict(link)

    @contextmanager
    def ztunnel(self, name: str, namespace: str = "default") -> Iterator[None]:
        """Have the mesh's proxy make the connections of a pod."""
        netns = f"/proc/{self.process(name, namespace)}/ns/net"
        cgroup = self.cgroup("ztunnel-x", MESH)
        program = (sys.executable, "-m", "tests.kernel.ztunnel")
        where = ("--netns", netns, "--cgroup", str(cgroup))
        pipe = subprocess.PIPE
        with subprocess.Popen([*program, *where], cwd=ROOT, stdin=pipe, stdout=pipe) as running:
            assert running.stdin is not None
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            try:
                yield
            finally:
                running.stdin.close()
        gone = ("nsenter", f"--net={netns}", "nft", "delete", "table", "ip", "istio")
        subprocess.run(gone, check=True)

    @contextmanager
    def taken(self, address: str) -> Iterator[None]:
        """Have the thief hold an address beside its own; it may change its network."""
        self.shell(f"ip address add {address}/32 dev eth0", "thief", "tenant")
        try:
            yield
        finally:
            self.shell(f"ip address del {address}/32 dev eth0", "thief", "tenant")


def thief() -> str:
    """Return a pod that may change its own network, and has an identity of nobody."""
    allowed = {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}
    container = {"name": "main", "image": "idle", "securityContext": allowed}
    return manifest("v1", "Pod", "thief", "tenant", spec={"containers": [container]})


def believed(name: str) -> str:
    """Return a pod with an identity whose address is believed."""
    made = json.loads(pod(name))
    made["metadata"]["annotations"] = {"aadpodidentity.k8s.io/attestation": "address"}
    return json.dumps(made)


def of_class(name: str) -> str:
    """Return a pod with an identity and the runtime class."""
    made = json.loads(pod(name))
    made["spec"]["runtimeClassName"] = CLASS
    return json.dumps(made)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[SharedSite]:
    network: Network = request.param
    # Calm: the subject is the way of packets on the node, which no delay of Azure changes.
    with opened(own(f"sockets-{network}"), network, weather=CALM) as (place, azure, loop):
        loop.run(place.bind())
        site = SharedSite(place, azure, loop)
        spaces = [manifest("v1", "Namespace", name) for name in (MESH, "tenant")]
        account = manifest("v1", "ServiceAccount", "ztunnel", MESH)
        runtime = json.dumps(
            {
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "metadata": {"name": CLASS},
                "handler": "kata",
            }
        )
        site.pods(*spaces, account, runtime)
        proxy = pod("ztunnel-x", MESH, "", "ztunnel")
        pods = (pod("app"), pod("plain"), believed("believed"), of_class("machine"))
        site.pods(*pods, proxy, thief())
        assert site.ask_in() == SERVED
        # As istio-cni says of a pod that it has set up; it changes nothing for NMI.
        place.run("kubectl", "annotate", "pod", "app", "ambient.istio.io/redirection=enabled")
        yield site


def test_by_default_what_a_meshs_proxy_makes_is_refused_with_that_reason(site: SharedSite) -> None:
    with site.ztunnel("app"):
        found = site.ask_in()
    assert found == Answers(REFUSED, 0, frozenset({"MadeByProxy"}))
    words = f"made by a proxy {MESH}/ztunnel in the pod's network namespace"
    assert words in "\n".join(site.log())
    assert f"--trusted-proxies={MESH}/ztunnel" in site.until_checked("MadeByProxy")["nextStep"]
    assert site.explained("app")["state"] == "no"


def test_by_default_a_pod_with_a_kernel_of_its_own_is_refused_with_that_reason(
    site: SharedSite,
) -> None:
    with machine(site.process("machine")) as guest:
        found = site.ask_in(guest=guest)
    assert found == Answers(REFUSED, 0, frozenset({"RuntimeClass"}))
    flag = f"--attestation-by-runtime-class={CLASS}=namespace"
    assert flag in "\n".join(site.log())
    assert flag in site.until_checked("RuntimeClass")["nextStep"]
    assert site.explained("machine")["state"] == "no"


def test_with_the_operators_word_both_get_tokens(site: SharedSite) -> None:
    site.enable(*CHOSEN)
    with site.ztunnel("app"):
        assert site.ask_in() == SERVED
    with machine(site.process("machine")) as guest:
        assert site.ask_in(guest=guest) == SERVED
    assert {"MadeByProxy", "RuntimeClass"}.isdisjoint(site.findings())
    assert [site.explained(name)["state"] for name in ("app", "machine")] == ["ok", "ok"]


def test_behind_a_trusted_proxy_a_pod_that_takes_an_address_gets_nothing(site: SharedSite) -> None:
    site.enable(*CHOSEN)
    address = site.address("app")
    with site.ztunnel("app"), site.ztunnel("thief", "tenant"):
        itself = site.ask_in("thief", "tenant")
        with site.taken(address):
            stolen = site.ask_in("thief", "tenant", source=address, times=2, seconds=5)
            contested = site.ask_in()
        again = site.ask_in()
    assert itself == Answers([400] * TIMES, 0, frozenset({"NoLabel"}))
    assert (200 in stolen.statuses, stolen.leaked) == (False, 0)
    assert contested == Answers(REFUSED, 0, frozenset({"AddressContested"}))
    assert again == SERVED


def test_no_pod_has_the_proof_of_a_runtime_class_that_is_not_its_own(site: SharedSite) -> None:
    site.enable(*CHOSEN)
    with machine(site.process("plain")) as guest:
        assert site.ask_in(guest=guest) == Answers(REFUSED, 0, frozenset({"UnprovenCaller"}))


def test_a_pod_that_takes_the_address_of_one_with_a_kernel_of_its_own_gets_nothing(
    site: SharedSite,
) -> None:
    """By a second address, which has a socket; and by frames of its own, which have none."""
    site.enable(*CHOSEN)
    address = site.address("machine")
    with machine(site.process("machine")) as guest:
        with site.taken(address):
            stolen = site.ask_in("thief", "tenant", source=address, times=2, seconds=5)
            contested = site.ask_in(guest=guest)
        forged = site.forge(address)
        again = site.ask_in(guest=guest)
    assert (200 in stolen.statuses, stolen.leaked) == (False, 0)
    assert contested == Answers(REFUSED, 0, frozenset({"AddressContested"}))
    assert forged == NO_ANSWER
    assert again == SERVED


def test_where_others_can_send_with_its_address_a_runtime_class_proves_nothing(
    site: SharedSite,
) -> None:
    """The flag lets them on bridges; routed links are guarded whatever it says.

    That frames do so is seen by a pod whose address is believed.
    """
    site.enable(*CHOSEN, "--nmi-arg=--source-guard=off")
    bridge = site.place.plan.nodes[0].network is Network.BRIDGE
    with machine(site.process("machine")) as guest:
        found = site.ask_in(guest=guest)
    assert found == (Answers([503] * TIMES, 0, frozenset({"NotReady"})) if bridge else SERVED)
    assert site.forge(site.address("believed")) == (200 if bridge else NO_ANSWER)
    assert site.forge(site.address("machine")) == (503 if bridge else NO_ANSWER)

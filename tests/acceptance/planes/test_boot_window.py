"""A node that starts: what its pods reach before NMI is up, and what closes that.

Requests that reach the real IMDS are counted by a nonce. Two pods: one with a bound identity, one
that is entitled to nothing. Both ask by themselves, too, from their first moment on.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from podidentity.manifests import STARTUP_TAINT
from podidentity_sandbox.plan import Network
from podidentity_sandbox.weather import CALM
from tests.acceptance.planes.site import TIMES, VAULT, Site, once
from tests.acceptance.planes.test_others_rules import OURS_GONE
from tests.acceptance.sandbox import ANSWERED, CLOSED, PATIENCE, opened
from tests.docs.blocks import ROOT, blocks_of
from tests.sandboxes import own

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="pods have cgroups only as root")

RESTLESS = "restless"
"""The nonce of what the pods ask by themselves."""
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {labels}}}
spec:
  containers:
    - name: main
      image: curl
      command: [sh, -c, {command}]
"""
TOLD = """
exec 3< <(exec kubectl -n kube-system get events --watch --field-selector reason=BootClosed -o name)
read -t 300 -u 3
kill $!
"""
"""Waits for an event: NMI tells what has held for some seconds."""
PODS = {"app": "{aadpodidbinding: bound}", "stranger": "{}"}


@dataclass(frozen=True)
class Asked:
    """What pods got: the statuses of each, and how many requests reached the real IMDS."""

    app: set[str]
    stranger: set[str]
    leaked: int

    @property
    def open(self) -> bool:
        """Whether all requests reached it, and the stranger got a token of the node's machine."""
        return self.leaked == TIMES * len(PODS) and "200" in self.stranger


@dataclass
class Node(Site):
    """A node that is restarted."""

    identity: str = ""
    """Resource id of the identity that is bound to one pod; "": the kubelet's is alone there."""

    def bind(self, *command: str) -> None:
        """Enable pod identity by this command, and bind the identity."""
        self.identity = self.loop.run(self.place.bind_by(*command))

    @property
    def name(self) -> str:
        return self.place.plan.nodes[0].name

    def make_pods(self) -> None:
        command = json.dumps(f"while :; do {once(RESTLESS, CLOSED)}; sleep 1; done")
        texts = [POD.format(name=name, labels=PODS[name], command=command) for name in PODS]
        self.place.run("kubectl", "apply", "-f", "-", given="\n---\n".join(texts))

    def pods_run(self) -> None:
        names = [f"pod/{name}" for name in PODS]
        self.place.run("kubectl", "wait", "--for=condition=Ready", f"--timeout={PATIENCE}s", *names)

    def restart(self) -> int:
        """Switch the machine off and on; return what had leaked of its pods' own by then."""
        self.place.run("podidentity", "sandbox", "part", "kill", self.name)
        before = self.leaked(RESTLESS)
        self.place.run("podidentity", "sandbox", "part", "start", self.name)
        self.pods_run()
        return before

    def install(self, unit: str) -> None:
        """Put a unit on the machine: it runs before the kubelet."""
        command = shlex.split(re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)[0])
        plan = self.place.plan
        plan.boot_script(plan.nodes[0]).write_text(f"{shlex.join(command)}\n")

    def itself(self) -> list[str]:
        """Return the statuses that a process of the node and a pod of its network get from IMDS."""
        asking = self.once("node", seconds=ANSWERED)
        return [self.place.on_node("sh", "-c", asking).strip(), self.shell(asking, "host").strip()]

    def ask_in_both(self, seconds: int = ANSWERED) -> Asked:
        """Have both pods ask for the bound identity by its id."""
        nonce = secrets.token_hex(8)
        asking = self.once(nonce, seconds=seconds)
        command = f"for i in $(seq {TIMES}); do {asking}; done"
        found = {name: set(self.shell(command, name).split()) for name in PODS}
        return Asked(found["app"], found["stranger"], self.leaked(nonce))

    def once(self, nonce: str, *, seconds: int) -> str:
        """Return the command that asks once, and prints the status."""
        resource = f"{VAULT}&msi_res_id={self.identity}" if self.identity else VAULT
        return once(nonce, seconds, resource=resource)

    def checked(self) -> list[str]:
        """Return what `check` says beside its findings, once NMI has told what closes the node."""
        self.place.run("bash", "-c", TOLD)
        said = "podidentity check -o json 2>&1 >/dev/null || true"
        return self.place.run("sh", "-c", said).splitlines()

    def taints(self) -> list[str]:
        """Return its taints; those that Kubernetes gives it until it has joined go first."""
        ends = time.monotonic() + PATIENCE
        while True:
            node = json.loads(self.place.run("kubectl", "get", "node", self.name, "-o", "json"))
            found = [each["key"] for each in node["spec"].get("taints", [])]
            if not any(key.startswith("node.kubernetes.io/") for key in found):
                return found
            assert time.monotonic() < ends, found
            time.sleep(0.1)


SHUT = Asked({"000"}, {"000"}, 0)
SERVED = Asked({"200"}, {"400"}, 0)
REFUSED = Asked({"403"}, {"400"}, 0)
AT_LAST = Asked({"403", "200"}, {"400"}, 0)


# ---- New nodes: a taint with which they start


@pytest.fixture(scope="module")
def new() -> Iterator[Node]:
    """A node that has just joined its cluster, with the taint."""
    # Calm: the subject is the way of packets on the node, which no delay of Azure changes.
    with opened(
        own("boot-new"), init_taints=f"{STARTUP_TAINT}=true:NoSchedule", weather=CALM
    ) as found:
        yield Node(*found)


def documented() -> list[str]:
    """Return the command by which docs/how-to/close-the-boot-window.md has NMI take the taint."""
    page = ROOT / "docs/how-to/close-the-boot-window.md"
    (block,) = [each for each in blocks_of(page) if each.mark == "run=boot"]
    return shlex.split(block.text)


def test_on_a_new_node_without_the_taint_pods_reach_imds_before_nmi_is_there(new: Node) -> None:
    assert new.taints() == [STARTUP_TAINT]
    new.make_pods()
    new.place.run("kubectl", "taint", "nodes", new.name, f"{STARTUP_TAINT}-")
    new.pods_run()
    assert new.ask_in_both().open
    assert new.leaked(RESTLESS)


def test_a_new_node_with_the_taint_takes_pods_when_nmi_is_ready_and_nothing_leaks(
    new: Node,
) -> None:
    new.place.run("kubectl", "delete", "pods", "--all", "--force", "--grace-period=0")
    new.place.run("podidentity", "sandbox", "part", "kill", new.name)
    new.place.run("kubectl", "delete", "node", new.name)
    new.place.run("podidentity", "sandbox", "part", "start", new.name)
    assert new.taints() == [STARTUP_TAINT], "it has joined anew"
    before = new.leaked(RESTLESS)
    new.make_pods()
    judged = 'jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}=Unschedulable'
    for name in PODS:
        new.place.run("kubectl", "wait", f"--for={judged}", f"--timeout={PATIENCE}s", f"pod/{name}")
        pod = json.loads(new.place.run("kubectl", "get", "pod", name, "-o", "json"))
        assert pod["status"]["phase"] == "Pending"
        assert "untolerated taint" in pod["status"]["conditions"][0]["message"]
    new.bind(*documented())
    new.pods_run()
    assert new.taints() == []
    # They asked while `add` ran, which grants last: a refusal may count for five seconds more.
    ends = time.monotonic() + 60
    while (asked := new.ask_in_both()) != SERVED:
        assert asked in (REFUSED, AT_LAST), asked
        assert time.monotonic() < ends
    assert new.leaked(RESTLESS) == before


def test_where_it_is_taken_back_nmi_has_no_right_on_nodes_any_more(new: Node) -> None:
    account = "--as=system:serviceaccount:kube-system:podidentity-nmi"
    may = ("kubectl", "auth", "can-i", "patch", "nodes", account)
    assert new.place.run(*may).strip() == "yes"
    new.place.run("podidentity", "enable", "--forget=startup-taint")
    assert new.place.run("sh", "-c", f"{' '.join(may)} || true").strip() == "no"


# ---- Restarts: the pods of a node start again at once


HOST = """
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: default}
spec:
  hostNetwork: true
  containers: [{name: main, image: curl}]
"""


@pytest.fixture(scope="module", params=Network)
def restarted(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node that NMI served, which restarts without it."""
    # Calm: the subject is the way of packets on the node, which no delay of Azure changes.
    with opened(own(f"boot-{request.param}"), request.param, weather=CALM) as found:
        node = Node(*found)
        node.bind("podidentity", "enable")
        node.make_pods()
        node.place.apply(HOST)
        node.pods_run()
        assert node.ask_in_both() == SERVED
        assert node.leaked(RESTLESS) == 0
        node.place.run("podidentity", "disable")
        assert node.ask_in_both(CLOSED) == SHUT, "the rules stay until the node restarts"
        yield node


def test_a_node_that_restarts_is_open_until_nmi_is_up(restarted: Node) -> None:
    before = restarted.restart()
    assert restarted.ask_in_both().open
    assert restarted.leaked(RESTLESS) > before, "its pods start before anything else"


def test_with_the_node_unit_it_is_closed_to_pods_and_open_to_itself(restarted: Node) -> None:
    restarted.install(restarted.place.run("podidentity", "node-unit"))
    before = restarted.restart()
    assert restarted.ask_in_both(CLOSED) == SHUT
    assert restarted.itself() == ["200", "200"]
    assert restarted.leaked(RESTLESS) == before


def test_nmi_serves_above_the_unit_also_after_a_restart_and_where_its_rules_go_the_unit_closes(
    restarted: Node,
) -> None:
    before = restarted.leaked(RESTLESS)
    restarted.place.run("podidentity", "enable")
    assert restarted.ask_in_both() == SERVED
    assert f"  restarts of {restarted.name}: closed by the node unit" in restarted.checked()
    restarted.restart()
    restarted.place.run("podidentity", "enable")
    assert restarted.ask_in_both() == SERVED
    restarted.place.run("podidentity", "disable")
    restarted.place.on_node("sh", "-ec", OURS_GONE)
    assert restarted.ask_in_both(CLOSED) == SHUT
    assert restarted.leaked(RESTLESS) == before

"""A stand-in for Cilium on one node of a sandbox: what its agent decides, and its programs.

It follows the API server as the agent does: local redirect policies, pods of the node, clusterwide
policies. What it decides is `Decision`, and `local_redirect` does it in the kernel.

Source: controller.go and the tests of pkg/loadbalancer/redirectpolicy of cilium/cilium.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from tests.acceptance.sandbox import Sandbox
from tests.docs.blocks import ROOT

IMDS = "169.254.169.254"
CRDS = Path(__file__).with_name("cilium_crds.yaml")

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """What the programs of a node do with what pods send to IMDS, TCP port 80."""

    backend: tuple[str, int] | None = None
    """Where new connections are redirected to."""
    empty: bool = False
    """Whether there is a frontend without a backend: nobody answers."""
    denied: bool = False
    """Whether what is not redirected is denied, whatever its port."""
    all_denied: bool = False
    """Whether pods may send nothing at all."""

    def line(self) -> str:
        address, port = self.backend or ("0.0.0.0", 0)  # noqa: S104 - no listener
        flags = {"empty": self.empty, "imds": self.denied, "all": self.all_denied}
        return " ".join(["state", address, str(port), *(name for name in flags if flags[name])])


def decide(
    policies: Sequence[Object], clusterwide: Sequence[Object], pods: Sequence[Object]
) -> Decision:
    """Return what holds on the node of these pods."""
    backend, empty = None, False
    for policy in policies:
        matcher = policy["spec"]["redirectFrontend"].get("addressMatcher")
        if not matcher or matcher["ip"].strip() != IMDS:
            continue
        if [(each["port"], each["protocol"]) for each in matcher["toPorts"]] != [("80", "TCP")]:
            continue
        matching = [pod for pod in pods if _is_backend(pod, policy)]
        found = [each for pod in matching for each in _ends(pod, policy["spec"])]
        backend = found[0] if found else backend
        empty = empty or bool(matching and not found)
    specs = [each["spec"] for each in clusterwide if "endpointSelector" in each["spec"]]
    return Decision(
        backend=backend,
        empty=empty,
        denied=any(_denies_imds(spec) for spec in specs),
        all_denied=any(_denies_by_default(spec) for spec in specs),
    )


def _is_backend(pod: Object, policy: Object) -> bool:
    """Whether a pod is in the policy's namespace, ready, and has the labels."""
    selector = policy["spec"]["redirectBackend"]["localEndpointSelector"]
    assert "matchExpressions" not in selector, "the stand-in knows labels only"
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    return (
        pod["metadata"]["namespace"] == policy["metadata"]["namespace"]
        and conditions.get("Ready") == "True"
        and selector.get("matchLabels", {}).items() <= pod["metadata"].get("labels", {}).items()
    )


def _ends(pod: Object, spec: Object) -> Iterator[tuple[str, int]]:
    """Yield the addresses of a pod with each port that the policy names and the pod declares."""
    wanted = {(int(each["port"]), each["protocol"]) for each in spec["redirectBackend"]["toPorts"]}
    for address in pod["status"].get("podIPs", ()):
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", ()):
                if (port["containerPort"], port.get("protocol", "TCP")) in wanted:
                    yield address["ip"], port["containerPort"]


def _denies_imds(spec: Object) -> bool:
    blocks = (cidr for rule in spec.get("egressDeny", ()) for cidr in rule.get("toCIDR", ()))
    return any(ip_address(IMDS) in ip_network(each) for each in blocks)


def _denies_by_default(spec: Object) -> bool:
    judges = bool(spec.get("egress") or spec.get("egressDeny"))
    return bool(spec.get("enableDefaultDeny", {}).get("egress", judges)) and not spec.get("egress")


@dataclass
class Agent:
    """Follows the API server, and tells the programs of one node."""

    place: Sandbox
    programs: subprocess.Popen[str]
    seen: dict[str, dict[str, Object]] = field(default_factory=dict)
    """The last of each object by its uid, by resource."""
    told: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def decision(self) -> Decision:
        with self._lock:
            return self._decide()

    def follow(self, resource: str, *options: str) -> subprocess.Popen[bytes]:
        """Start to follow a resource."""
        self.seen[resource] = {}
        kubectl = ("kubectl", f"--kubeconfig={self.place.plan.kubeconfig}", "get", resource)
        watch = ("--watch", "--output-watch-events", "-o", "json", *options)
        running = subprocess.Popen((*kubectl, *watch), stdout=subprocess.PIPE)
        threading.Thread(target=self._read, args=(resource, running), daemon=True).start()
        return running

    def _read(self, resource: str, running: subprocess.Popen[bytes]) -> None:
        assert running.stdout is not None
        for line in running.stdout:
            event = json.loads(line)
            with self._lock:
                self._note(resource, event["type"], event["object"])

    def _note(self, resource: str, change: str, found: Object) -> None:
        uid, known = found["metadata"]["uid"], self.seen[resource]
        if change == "DELETED":
            known.pop(uid, None)
        elif resource == "ciliumlocalredirectpolicies":
            known.setdefault(uid, found)  # the agent does not take changes of one
        else:
            known[uid] = found
        if resource == "pods" and not found["spec"].get("hostNetwork"):
            for address in found["status"].get("podIPs", ()):
                self._tell(f"pod {address['ip']}")
        self._tell(self._decide().line())

    def _decide(self) -> Decision:
        names = ("ciliumlocalredirectpolicies", "ciliumclusterwidenetworkpolicies", "pods")
        return decide(*(list(self.seen.get(name, {}).values()) for name in names))

    def _tell(self, line: str) -> None:
        if line == self.told or self.programs.poll() is not None:
            return
        assert self.programs.stdin is not None
        assert self.programs.stdout is not None
        self.programs.stdin.write(f"{line}\n")
        self.programs.stdin.flush()
        assert self.programs.stdout.readline() == "done\n"
        if line.startswith("state"):
            self.told = line


@contextmanager
def cilium(place: Sandbox, way: str, routing: str, node: int = 0) -> Iterator[Agent]:
    """Have a stand-in for Cilium on a node whose pods are routed, until the end."""
    name = place.plan.nodes[node].name
    enter = ("nsenter", "--target", str(place.node_process(node)), "--net", "--")
    program = (sys.executable, "-m", "tests.acceptance.planes.local_redirect", way, routing, "eth0")
    with ExitStack() as stack:
        running = stack.enter_context(
            subprocess.Popen(
                (*enter, *program, str(Path(place.plan.cgroup_root, name))),
                cwd=ROOT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        assert running.stdin is not None
        assert running.stdout is not None
        stack.callback(running.stdin.close)
        assert running.stdout.readline() == "attached\n"
        agent = Agent(place, running)
        for resource, options in (
            ("ciliumlocalredirectpolicies", ("--all-namespaces",)),
            ("ciliumclusterwidenetworkpolicies", ()),
            ("pods", ("--all-namespaces", f"--field-selector=spec.nodeName={name}")),
        ):
            followed = stack.enter_context(agent.follow(resource, *options))
            stack.callback(followed.terminate)
        yield agent

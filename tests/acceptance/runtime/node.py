"""One node with a real container runtime: what tests start on it, do to it, and ask of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import Any

from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.node.client import execute
from podidentity_sandbox.node.cri.containerd import names_in
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.node.cri.static import MANIFESTS
from podidentity_sandbox.plan import Network, NodePlan, Plan
from podidentity_sandbox.weather import CALM
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.api import Api, ApiError, ready
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.inspection import ask as order
from podidentity_sandbox.world.inspection import children, status
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.acceptance.sandbox import Sandbox

ROOT = Path(__file__).parents[3]
TOOLS = Path(os.environ.get("PODIDENTITY_RUNTIME_TOOLS", ROOT / ".venvs/runtime"))
"""What ./scripts/setup-runtime brought; `./scripts/test --runtime --later` names another."""
IMAGE, NEXT = "localhost/podidentity:now", "localhost/podidentity:next"
"""The product's image, and the same again under the name of a later one."""
SERVED, SYSTEM = "team", "kube-system"
EVERYBODYS = {"app", "other"}
"""Pods of `team` that tests share."""
PATIENCE = float(os.environ.get("PODIDENTITY_TEST_PATIENCE", "1"))
"""How many times longer what must come to pass may take; an emulated machine says so."""
SECONDS = 180.0 * PATIENCE
"""Of what must come to pass: only a test that fails uses them up."""
Object = dict[str, Any]

IDLE = ["python3", "-ISc", "import signal; signal.pause()"]
# Asks for a token; prints status and body. Its argument is the address to ask from.
ASK = """
import socket, sys
own = (sys.argv[1], 0) if sys.argv[1:] else None
asking = socket.create_connection(("169.254.169.254", 80), 15, own)
asking.settimeout(60)
asking.sendall(
    b"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
    b" HTTP/1.1\\r\\nHost: 169.254.169.254\\r\\nMetadata: true\\r\\nConnection: close\\r\\n\\r\\n"
)
answer = b""
while piece := asking.recv(65536):
    answer += piece
head, _, body = answer.partition(b"\\r\\n\\r\\n")
print(head.split()[1].decode(), body.decode(), flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """What IMDS's stand-in answered; status 0 where it did not."""

    status: int
    body: str

    @classmethod
    def of(cls, printed: str, why: str) -> Answer:
        number, _, body = printed.partition(" ")
        return cls(int(number), body) if number.isdigit() else cls(0, printed + why)


class Node:
    """The node, in a sandbox with pod identity; its pods are in namespace `team`."""

    SPACES: Sequence[str] = ("--mount", "--pid", "--ipc", "--uts", "--cgroup")
    """The namespaces of a node besides its network."""

    def __init__(self, plan: Plan, options: RuntimeOptions) -> None:
        self.plan = plan
        self.options = options
        self.api = Api(plan)
        self.place = Sandbox(plan)

    @property
    def own(self) -> NodePlan:
        return self.plan.nodes[0]

    # ---- The node itself

    def is_set_up(self, *, network: Network, **options: Any) -> bool:
        """Whether the node has this network and these options."""
        return self.own.network is network and self.options == replace(self.options, **options)

    def reboot(self, *, network: Network | None = None, **changes: Any) -> None:
        """End everything on the node, and start it again with network or options changed."""
        before = self._containers()
        if network is not None:
            self.plan = replace(self.plan, nodes=(replace(self.own, network=network),))
            self.plan.save()
        self.options = replace(self.options, **changes)
        self.options.save(self.plan.path)
        control = Folder(self.plan.name, self.plan.path.parent).control
        try:
            for operation in ("kill", "start"):
                order(control, {"op": operation, "part": self.own.name}, seconds=SECONDS)
        except SandboxError as error:
            # The folder will be gone when somebody wants to read it.
            log = self.plan.logs / f"{self.own.name}.log"
            error.add_note("\n".join(log.read_text(errors="replace").splitlines()[-30:]))
            raise
        # Until the kubelet says otherwise the API server shows what ran before.
        end = time.monotonic() + SECONDS
        while self._containers() & before:
            assert time.monotonic() < end, "pods are as they were"
            time.sleep(0.05)

    def _containers(self) -> set[str]:
        pods = self.api.request("GET", "/api/v1/pods")["items"]
        own = [pod for pod in pods if pod["spec"].get("nodeName") == self.own.name]
        states = [s for pod in own for s in pod["status"].get("containerStatuses") or []]
        return {str(state["containerID"]) for state in states if state.get("containerID")}

    @property
    def containerd(self) -> Path:
        """The folder of containerd's programs."""
        return Path(self.options.tools, "debian/usr/bin")

    @property
    def pid(self) -> int:
        """Process 1 of the node, by its number on this machine."""
        parts = status(Folder(self.plan.name, self.plan.path.parent)).parts
        (outer,) = [part["pid"] for part in parts if part["name"] == self.own.name]
        (first,) = children(outer)
        return first

    def on_node(self, text: str, *, net: str = "", cgroup: str = "system.slice") -> str:
        """Return what a shell script prints on the node, in that cgroup.

        `net` is the file of another network namespace.
        """
        pid, spaces = self.pid, [*self.SPACES, f"--net={net}" if net else "--net"]
        tools = (self.containerd, Path(sys.executable).parent)
        path = ":".join(map(str, (*tools, os.environ["PATH"])))
        joined = f'echo 0 >"{self.cgroups}/{cgroup}/cgroup.procs" && exec "$@"'
        ran = subprocess.run(
            ["sh", "-c", joined, "sh", "nsenter", "-t", str(pid), *spaces, "sh", "-c", text],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": path},
            timeout=SECONDS,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    @property
    def cgroups(self) -> Path:
        """The node's cgroup of v2 on this machine."""
        return Path(self.plan.cgroup_root, self.own.name)

    # ---- Pods

    def start(
        self,
        name: str,
        *,
        bound: bool = True,
        binding: str = "demo",
        labels: Object | None = None,
        **spec: Any,
    ) -> str:
        """Create a pod that asks or can be told to; return its name."""
        container = {"name": "main", "image": IMAGE, "command": IDLE, **spec.pop("container", {})}
        labels = {**({"aadpodidbinding": binding} if bound else {}), **(labels or {})}
        metadata = {"name": name, "namespace": SERVED, "labels": labels}
        self.api.request(
            "POST",
            f"/api/v1/namespaces/{SERVED}/pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
            },
        )
        return name

    def ready(self, *names: str, namespace: str = SERVED) -> None:
        self.become(ready, *names, namespace=namespace)

    def become(
        self,
        holds: Callable[[Object], bool],
        *names: str,
        namespace: str = SERVED,
        seconds: float = SECONDS,
    ) -> None:
        late = self.api.wait_for(f"/api/v1/namespaces/{namespace}/pods", names, holds, seconds)
        told = {
            name: (self.get(name, namespace)["status"], self.events(name, namespace))
            for name in late
        }
        assert not late, told

    def get(self, name: str, namespace: str = SERVED) -> Object:
        return self.api.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")

    def events(self, name: str, namespace: str = SERVED) -> list[str]:
        items = self.api.request("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
        return [each["message"] for each in items if each["involvedObject"]["name"] == name]

    def delete(self, *names: str, namespace: str = SERVED) -> None:
        """Delete pods; return when nothing of them is left."""
        pods = f"/api/v1/namespaces/{namespace}/pods"
        version = self.api.request("GET", pods)["metadata"]["resourceVersion"]
        left = set(names)
        for name in names:
            self.api.request("DELETE", f"{pods}/{name}?gracePeriodSeconds=1")
        for kind, pod in self.api.watch(pods, version, SECONDS):
            if kind == "DELETED":
                left.discard(pod["metadata"]["name"])
            if not left:
                return
        raise AssertionError(f"{left} are still there")

    def drop(self, name: str) -> None:
        """Delete a pod, and leave its end to the kubelet."""
        self.api.request("DELETE", f"/api/v1/namespaces/{SERVED}/pods/{name}?gracePeriodSeconds=1")

    def alone(self, *names: str) -> None:
        """Wait until no other pods are served."""
        end = time.monotonic() + SECONDS
        while self.names() - set(names):
            assert time.monotonic() < end, self.names()
            time.sleep(0.05)

    def clean(self) -> None:
        """Begin to end what a test has left: static pods, and all pods but those of all tests."""
        for file in Path(f"/proc/{self.pid}/root{MANIFESTS}").glob("*"):
            file.unlink()
        for name in self.names() - EVERYBODYS:
            with suppress(ApiError):  # it has just ended
                self.drop(name)

    def names(self) -> set[str]:
        pods = self.api.request("GET", f"/api/v1/namespaces/{SERVED}/pods")["items"]
        return {pod["metadata"]["name"] for pod in pods}

    def address(self, pod: str) -> str:
        return str(self.get(pod)["status"]["podIP"])

    def inside(
        self,
        pod: str,
        *command: str,
        namespace: str = SERVED,
        container: str | None = None,
        stdin: bytes = b"",
        seconds: float = SECONDS,
    ) -> str:
        """Return what a command in a pod prints, on either stream."""
        run = execute(
            self.plan, namespace, pod, command, container=container, stdin=stdin, timeout=seconds
        )
        ran = asyncio.run(run)
        return ran.stdout.decode() + ran.stderr.decode()

    def ask(self, pod: str, *source: str) -> Answer:
        """Ask for a token in a pod."""
        return Answer.of(self.inside(pod, "python3", "-ISc", ASK, *source), "")

    def ask_on_node(self, *, net: str, cgroup: str) -> Answer:
        """Ask in a network namespace, as a process of a cgroup of the node."""
        program = f"{sys.executable} -ISc '{ASK}'"
        return Answer.of(self.on_node(program, net=net, cgroup=cgroup), "")

    def cgroup(self, pod: str) -> str:
        """Return the cgroup of a pod's latest container, below the node's."""
        (file,) = self._files(pod, SERVED, "cgroup.procs")
        return str(file.parent.relative_to(self.cgroups))

    def processor(self, pod: str, namespace: str = SERVED) -> float:
        """Return the seconds of a processor that a pod's containers have used."""
        told = [file.read_text() for file in self._files(pod, namespace, "cpu.stat")]
        used = [re.findall(r"^usage_usec (\d+)$", each, re.MULTILINE)[0] for each in told]
        return sum(map(int, used)) / 1e6

    def _files(self, pod: str, namespace: str, name: str) -> list[Path]:
        """Return a file of the cgroup of each of a pod's containers."""
        found = []
        for each in self.get(pod, namespace)["status"]["containerStatuses"]:
            identity = each["containerID"].removeprefix("containerd://")
            pattern = f"*kubepods*/**/*{identity}*/{name}"
            # `Path.glob` of Python 3.11 raises where it looks into a cgroup that goes meanwhile.
            (file,) = glob(pattern, root_dir=self.cgroups, recursive=True)  # noqa: PTH207
            found.append(self.cgroups / file)
        return found

    def network(self, pod: str) -> str:
        """Return a file of a pod's network namespace."""
        pids = (self.cgroups / self.cgroup(pod) / "cgroup.procs").read_text().split()
        return f"/proc/{pids[0]}/ns/net"

    # ---- The agent

    def agent(self) -> str:
        """Return the name of the agent's pod once it is ready, and no other is there."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            pods = self.agents()
            if len(pods) == 1 and ready(pods[0]):
                return str(pods[0]["metadata"]["name"])
            time.sleep(0.1)
        raise AssertionError(self.agents())

    def image(self) -> str:
        """Return the image of the agent."""
        (pod,) = self.agents()
        return str(pod["spec"]["containers"][0]["image"])

    def agents(self) -> list[Object]:
        pods = f"/api/v1/namespaces/{SYSTEM}/pods?labelSelector=app.kubernetes.io/component%3Dnmi"
        found: list[Object] = self.api.request("GET", pods)["items"]
        return found

    def restarts(self) -> dict[str, int]:
        (pod,) = self.agents()
        return {each["name"]: each["restartCount"] for each in pod["status"]["containerStatuses"]}

    def in_agent(self, container: str, *command: str) -> str:
        return self.inside(self.agent(), *command, namespace=SYSTEM, container=container)

    def program(self, name: str) -> int:
        """Return the process on this machine of `net` or `serve`, the first of its container."""
        return self.processes(name)[0]

    def processes(self, name: str) -> list[int]:
        """Return its processes, each after the one that started it."""
        top = f"/{self.own.name}/"
        found = self.place.processes(name)
        return [pid for pid in found if top in Path(f"/proc/{pid}/cgroup").read_text()]

    def enable(self, image: str = IMAGE, *words: str) -> None:
        self.place.run("podidentity", "enable", "--image", image, *words)


@contextmanager
def opened(
    name: str, archive: Path, kind: Mapping[str, Any], *, enabled: bool = True
) -> Iterator[Node]:
    """Bring a sandbox with one such node up, with an identity for the pods of `team`.

    Unless it is `enabled` there is nothing of pod identity but the image.
    """
    options = {key: value for key, value in kind.items() if key != "network"}
    given = RuntimeOptions(tools=str(TOOLS), images=(str(archive),), **options)
    # Calm: the subject is the container runtime.
    shape = Shape(nodes=1, network=kind["network"])
    plan = bring_up(name, shape, runtime=given, weather=CALM, bound=True)
    try:
        node = Node(plan, given)
        theirs = min(names_in(archive))
        for name in (IMAGE, NEXT):
            node.on_node(f"ctr -n k8s.io images tag {theirs} {name}")
        node.api.request("POST", "/api/v1/namespaces", _namespace())
        if enabled:
            made = asyncio.run(prepare(plan))
            node.enable()
            node.place.add(SERVED, "demo", "--identity-resource-id", made.identity_id)
        yield node
    finally:
        bring_down(plan.name)


def _namespace() -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SERVED}}


def manifest_of(node: Node) -> Object:
    """Return the DaemonSet as `enable` makes it."""
    path = f"/apis/apps/v1/namespaces/{SYSTEM}/daemonsets/nmi"
    made = node.api.request("GET", path)
    return {**made, "metadata": {k: made["metadata"][k] for k in ("name", "namespace", "labels")}}


def copied(value: Object) -> Object:
    copy: Object = json.loads(json.dumps(value))
    return copy

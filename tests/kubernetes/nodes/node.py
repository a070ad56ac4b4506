"""Two real nodes, of kubelet, containerd and kube-proxy, in a sandbox with pod identity."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from podidentity.manifests import STARTUP_TAINT
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.kubernetes.nodes import TRUST, containerd_of
from podidentity_sandbox.node.client import ExecResult
from podidentity_sandbox.node.cri.containerd import names_in
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.plan import NodePlan, Plan
from podidentity_sandbox.weather import CALM
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.environment import environment
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.inspection import ask as order
from podidentity_sandbox.world.inspection import status
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.acceptance.runtime.conftest import ARCHIVE
from tests.acceptance.runtime.node import (
    IMAGE,
    NEXT,
    SECONDS,
    SERVED,
    TOOLS,
    Node,
    Object,
)
from tests.acceptance.sandbox import leaked
from tests.kubernetes.conftest import KUBERNETES


class RealNode(Node):
    """One of the two; pods that it starts are its own."""

    def __init__(self, plan: Plan, options: RuntimeOptions, number: int) -> None:
        super().__init__(plan, options)
        self._number = number

    @property
    def own(self) -> NodePlan:
        return self.plan.nodes[self._number]

    @property
    def containerd(self) -> Path:
        return containerd_of(KUBERNETES)

    @property
    def pid(self) -> int:
        """The machine's first process, by its number here."""
        return self.part("")

    def part(self, service: str) -> int:
        """Return the process of a service, by its number here."""
        parts = status(Folder(self.plan.name, self.plan.path.parent)).parts
        name = "-".join(filter(None, (self.own.name, service)))
        (pid,) = [int(part["pid"]) for part in parts if part["name"] == name]
        return pid

    def order(self, *operations: str, service: str = "") -> None:
        """Have the sandbox do these things to the machine, or to a service of it."""
        control = Folder(self.plan.name, self.plan.path.parent).control
        name = "-".join(filter(None, (self.own.name, service)))
        for operation in operations:
            order(control, {"op": operation, "part": name}, seconds=SECONDS)

    def start(self, name: str, **spec: Any) -> str:
        return super().start(name, **{"nodeName": self.own.name, **spec})

    def inside(
        self,
        pod: str,
        *command: str,
        namespace: str = SERVED,
        container: str | None = None,
        stdin: bytes = b"",
        seconds: float = SECONDS,
    ) -> str:
        where = ["-n", namespace, pod, *(["-c", container] if container else [])]
        ran = subprocess.run(
            ["kubectl", "exec", *(["-i"] if stdin else []), *where, "--", *command],
            env=environment(self.plan, os.environ["PATH"]),
            input=stdin,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        return ran.stdout.decode() + ran.stderr.decode()

    async def execute(
        self, namespace: str, pod: str, command: Sequence[str], seconds: float
    ) -> ExecResult:
        """Run a command in a pod, beside others."""
        ran = await asyncio.create_subprocess_exec(
            *("kubectl", "exec", "-n", namespace, pod, "--", *command),
            env=environment(self.plan, os.environ["PATH"]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(seconds):
            out, err = await ran.communicate()
        assert ran.returncode is not None
        return ExecResult(exit=ran.returncode, stdout=out, stderr=err)

    def share(self) -> None:
        """Have the two pods that tests share on this node: one bound, one with no right."""
        for name, bound in (("app", True), ("other", False)):
            if name in self.names() and self.get(name)["spec"]["nodeName"] != self.own.name:
                self.delete(name)
            if name not in self.names():
                self.start(name, bound=bound)
        self.ready("app", "other")

    def leaked(self, nonce: str) -> int:
        """Return how many requests with this nonce IMDS itself has seen."""

        async def count() -> int:
            async with AzureOperator(self.plan) as azure:
                return await leaked(azure, nonce)

        return asyncio.run(count())

    def agents(self) -> list[Object]:
        return [pod for pod in super().agents() if pod["spec"]["nodeName"] == self.own.name]


@contextmanager
def opened(name: str) -> Iterator[list[RealNode]]:
    """Bring two nodes up, one routed and one with a bridge, and an identity for pods of `team`."""
    assert ARCHIVE.exists(), f"{ARCHIVE} is not there: ./scripts/image builds it"
    options = RuntimeOptions(tools=str(TOOLS), images=(str(ARCHIVE),))
    taint = f"{STARTUP_TAINT}=true:NoSchedule"
    shape = Shape(kubernetes=str(KUBERNETES), real_nodes=True, init_taints=taint)
    plan = bring_up(name, shape, runtime=options, weather=CALM, bound=True)
    try:
        nodes = [RealNode(plan, options, number) for number in range(2)]
        for node in nodes:
            for tag in (IMAGE, NEXT):
                node.on_node(f"ctr -n k8s.io images tag {min(names_in(ARCHIVE))} {tag}")
        first = nodes[0]
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SERVED}}
        first.api.request("POST", "/api/v1/namespaces", namespace)
        made = asyncio.run(prepare(plan))
        first.enable(IMAGE, "--startup-taint", "--proxy-secret", TRUST)
        first.place.add(SERVED, "demo", "--identity-resource-id", made.identity_id)
        yield nodes
    finally:
        bring_down(plan.name)

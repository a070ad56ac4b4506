"""The attacks of `tests/acceptance/attacks`, from real pods on real nodes.

The tenant's pods may do all that a network of their own allows (NET_ADMIN, NET_RAW). No request
of a pod comes to IMDS.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.node.client import ExecResult
from podidentity_sandbox.node.cri.pause import SHELL
from podidentity_sandbox.plan import Network
from tests.acceptance.attacks.harness import Harness
from tests.acceptance.attacks.test_attacks import (
    test_a_socket_that_outlived_its_connection_proves_nobody,
    test_addresses_that_nobody_has_do_not_hide_the_agent_from_its_kubelet,
    test_addresses_that_nobody_has_take_no_ones_place,
    test_an_annotation_with_anothers_uid_gives_him_no_identity_of_mine,
    test_an_open_connection_cannot_be_taken_over,
    test_many_pods_of_one_tenant_leave_the_quota_to_others,
    test_nobody_silences_the_log_for_others,
    test_one_pod_leaves_the_instance_documents_to_others,
)
from tests.acceptance.attacks.test_attacks import (
    test_answers_do_not_follow_a_forged_mac_address as eavesdropped,
)
from tests.acceptance.directory import pod
from tests.acceptance.runtime.node import ROOT
from tests.acceptance.sandbox import Sandbox
from tests.acceptance.two_tenants import MINE, SPACES, TwoTenants, settle
from tests.kubernetes.conftest import needs_kubernetes
from tests.kubernetes.nodes.node import RealNode
from tests.root import needs_root

__all__ = [
    "test_a_socket_that_outlived_its_connection_proves_nobody",
    "test_addresses_that_nobody_has_do_not_hide_the_agent_from_its_kubelet",
    "test_addresses_that_nobody_has_take_no_ones_place",
    "test_an_annotation_with_anothers_uid_gives_him_no_identity_of_mine",
    "test_an_open_connection_cannot_be_taken_over",
    "test_many_pods_of_one_tenant_leave_the_quota_to_others",
    "test_nobody_silences_the_log_for_others",
    "test_one_pod_leaves_the_instance_documents_to_others",
]

pytestmark = [needs_kubernetes, needs_root, pytest.mark.net]

NMI = "podidentity-nmi/"
"""How the User-Agent of its own requests to IMDS begins; it passes on no caller's."""
PROGRAMS = ("/bin", "/lib", "/lib64", "/usr", sys.base_prefix, str(ROOT / "src"))
"""Folders of this machine in each pod: Python, curl and what they need, and our frames."""
ATTACKER = {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}


class Place(Sandbox):
    """The sandbox as one of its real nodes has it: there all pods run."""

    def __init__(self, node: RealNode) -> None:
        super().__init__(node.plan)
        self.node = node

    def apply(self, *objects: str, namespace: str = "default", seconds: float | None = 60) -> None:
        made = [json.loads(each) for each in objects]
        for each in made:
            if each["kind"] == "Pod":
                each["spec"].update(self._spec(each["metadata"]["namespace"]))
        super().apply(*map(json.dumps, made), namespace=namespace, seconds=seconds)

    def _spec(self, namespace: str) -> dict[str, Any]:
        folders = {f"folder-{number}": each for number, each in enumerate(sorted(set(PROGRAMS)))}
        paths = f"{sys.base_prefix}/bin:/usr/sbin:/usr/bin:/bin"
        container = {
            "name": "main",
            "image": SHELL,
            "command": ["sleep", "infinity"],
            "env": [
                {"name": "PATH", "value": paths},
                {"name": "PYTHONPATH", "value": str(ROOT / "src")},
            ],
            "securityContext": ATTACKER if namespace == "tenant" else {},
            "volumeMounts": [
                {"name": name, "mountPath": each, "readOnly": True}
                for name, each in folders.items()
            ],
        }
        return {
            "nodeName": self.node.own.name,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [
                {"name": name, "hostPath": {"path": each}} for name, each in folders.items()
            ],
        }

    async def execute(
        self, namespace: str, pod: str, command: Sequence[str], seconds: float
    ) -> ExecResult:
        return await self.node.execute(namespace, pod, command, seconds)

    def on_node(self, *command: str, given: str = "", number: int = 0) -> str:
        return super().on_node(*command, given=given, number=number or self.node.own.index)

    def processes(self, program: str) -> list[int]:
        found = super().processes(program)
        top = f"/{self.node.own.name}/"
        return [pid for pid in found if top in Path(f"/proc/{pid}/cgroup").read_text()]

    async def nmi_ready(self) -> None:
        await asyncio.to_thread(self.node.agent)


class RealHarness(Harness):
    async def kill_agent(self) -> None:
        before = self.restarts()
        os.kill(self.place.nmi(), signal.SIGKILL)
        while self.restarts() == before:  # noqa: ASYNC110 - a command asks
            await asyncio.sleep(0.05)
        await self.place.nmi_ready()


@pytest.fixture(scope="module")
def tenants(nodes: list[RealNode]) -> Iterator[TwoTenants]:
    with asyncio.Runner() as loop:
        azure = AzureOperator(nodes[0].plan)
        loop.run(azure.__aenter__())
        tenants = TwoTenants(Place(nodes[0]), azure, loop)
        try:
            yield loop.run(settle(tenants))
        finally:
            for space in SPACES:
                tenants.place.run("kubectl", "delete", "namespace", space)
            loop.run(azure.__aexit__())


@pytest.fixture(scope="module")
def harness(
    request: pytest.FixtureRequest, nodes: list[RealNode], tenants: TwoTenants
) -> Iterator[Harness]:
    network: Network = request.param
    (node,) = [each for each in nodes if each.own.network is network]
    node.agent()
    tenants.place = Place(node)
    clear(tenants.place)
    tenants.apply(
        pod("web", "shop", "orders"),
        pod("own", "tenant", MINE),
        pod("raw", "tenant", ""),
        pod("plain", "tenant", ""),
    )
    yield RealHarness(tenants)
    clear(tenants.place)


def clear(place: Sandbox) -> None:
    """End the pods of both."""
    for space in SPACES:
        place.run("kubectl", "delete", "pods", "--all", "-n", space, "--grace-period=1")


@pytest.fixture(autouse=True)
def nothing_of_theirs_at_imds(tenants: TwoTenants) -> Iterator[None]:
    """What reaches IMDS is of NMI, which asks in its own words."""
    tenants.loop.run(tenants.azure.clear_imds_requests())
    yield
    seen = tenants.loop.run(tenants.azure.imds_requests())
    assert [each for each in seen if not each["headers"]["user-agent"].startswith(NMI)] == []


@pytest.mark.parametrize("harness", [Network.BRIDGE], indirect=True)
def test_answers_do_not_follow_a_forged_mac_address(harness: Harness) -> None:
    """Where CNI's plugin `ptp` makes the links, nobody tells the attacker a neighbour's address."""
    eavesdropped(harness)

"""Pod identity on real nodes: kubelet, containerd, runc and kube-proxy; routed, and by a bridge."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.kubernetes.nodes import missing
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.api import ready
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.inspection import status
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.acceptance.runtime.node import TOOLS
from tests.kubernetes.conftest import KUBERNETES, needs_kubernetes
from tests.kubernetes.nodes.node import RealNode
from tests.kubernetes.nodes.test_programs import until
from tests.root import needs_root
from tests.sandbox.world.places import Traces
from tests.sandboxes import own

pytestmark = [needs_kubernetes, needs_root, pytest.mark.net]


def journal(plan: Plan, *, clear: bool = False) -> list[dict[str, Any]]:
    """Return the requests that reached IMDS."""

    async def look() -> list[dict[str, Any]]:
        async with AzureOperator(plan) as azure:
            found = await azure.imds_requests()
            if clear:
                await azure.clear_imds_requests()
            return found

    return asyncio.run(look())


def test_the_nodes_are_kubernetes_own_and_machines_of_azure(nodes: list[RealNode]) -> None:
    found = {
        each["metadata"]["name"]: each
        for each in nodes[0].api.request("GET", "/api/v1/nodes")["items"]
    }
    for node in nodes:
        shown = found[node.own.name]
        assert ready(shown)
        assert shown["spec"]["providerID"] == node.own.provider_id
        info = shown["status"]["nodeInfo"]
        assert info["kubeletVersion"].startswith(f"v{node.plan.kubernetes_version}")
        assert info["containerRuntimeVersion"].startswith("containerd://2.")
        for service in ("containerd", "kubelet", "kube-proxy"):
            program = Path(f"/proc/{node.part(service)}/exe").resolve()
            assert KUBERNETES.parent in program.parents


def test_a_bound_pod_has_a_token_its_neighbour_none_and_neither_reaches_imds(
    node: RealNode,
) -> None:
    journal(node.plan, clear=True)
    assert node.ask("app").status == 200
    assert node.ask("other").status == 400
    sources = {each["source"] for each in journal(node.plan)}
    assert sources <= {each.address for each in node.plan.nodes}


def test_a_process_of_the_node_in_a_pods_network_is_not_that_pod(node: RealNode) -> None:
    network = node.network("app")
    assert node.ask_on_node(net=network, cgroup="system.slice").status == 403
    assert node.ask_on_node(net=network, cgroup=node.cgroup("other")).status == 403
    assert node.ask_on_node(net=network, cgroup=node.cgroup("app")).status == 200


@pytest.mark.parametrize("service", ["kubelet", "containerd", "kube-proxy"])
def test_a_service_that_is_killed_and_comes_back_disturbs_nobody(
    node: RealNode, service: str
) -> None:
    before = node.restarts()
    node.order("kill", service=service)
    assert node.ask_on_node(net=node.network("app"), cgroup=node.cgroup("app")).status == 200
    node.order("start", service=service)
    until(lambda: node.ask("app").status == 200)
    assert node.restarts() == before


def test_all_on_a_machine_stands_still_while_it_is_paused_and_is_counted(node: RealNode) -> None:
    node.order("pause")
    try:
        until(lambda: "frozen 1" in (node.cgroups / "cgroup.events").read_text())
    finally:
        node.order("resume")
    found = status(Folder(node.plan.name, node.plan.path.parent)).parts
    memory = {each["name"]: each["memory_kib"] for each in found}
    services = [memory[f"{node.own.name}-{each}"] for each in ("containerd", "kubelet")]
    assert memory[node.own.name] > sum(services)


def test_nothing_of_them_remains() -> None:
    name = own("gone")
    shape = Shape(nodes=1, kubernetes=str(KUBERNETES), real_nodes=True)
    plan = bring_up(name, shape, runtime=RuntimeOptions(tools=str(TOOLS)))
    left = Traces.of(status(Folder.of(name)))
    before = shared_folders()
    bring_down(name)
    assert left.seen() == []
    assert shared_folders() == before
    assert not plan.path.exists()


def shared_folders() -> dict[str, list[str]]:
    """Return what is where a node has folders of its own in the place of the machine's."""
    places = map(Path, ("/run", "/var/lib", "/var/log", "/opt"))
    return {str(each): sorted(path.name for path in each.iterdir()) for each in places}


def test_what_is_missing_is_named_before_anything_is_made(tmp_path: Path) -> None:
    for name in ("kubelet", "containerd"):
        (tmp_path / name).touch(mode=0o755)
    programs, nft = missing(tmp_path, "")
    assert programs.startswith(f"no program {tmp_path}/kube-proxy, {tmp_path}/containerd-shim")
    assert "./scripts/setup-kubernetes" in programs
    assert "nft is not installed" in nft

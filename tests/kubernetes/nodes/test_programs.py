"""The agent's two programs and the container runtime: each may die, and pods' requests go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from podidentity_sandbox.world.api import ready
from tests.acceptance.runtime.node import IMAGE, NEXT, SECONDS, SYSTEM
from tests.kubernetes.conftest import needs_kubernetes
from tests.kubernetes.nodes.load import NONCE, Load
from tests.kubernetes.nodes.node import RealNode
from tests.root import needs_root

pytestmark = [needs_kubernetes, needs_root, pytest.mark.net]

GAP = 5.0
"""Seconds; `docs/reference/nodes.md` says so."""
_PAUSE = 0.05


def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(_PAUSE)


def test_an_update_of_the_agent_costs_no_request(node: RealNode) -> None:
    before = node.agent()
    loads = [Load(node, f"asking-{number}", 20, 600) for number in range(2)]
    node.enable(NEXT if node.image() == IMAGE else IMAGE)
    assert node.agent() != before
    for load in loads:
        told = load.enough()
        assert told["failures"] == []
        assert told["answers"] == {"200": told["asked"]}


def test_net_that_is_killed_comes_back_and_serve_is_left_alone(node: RealNode) -> None:
    serve, before = node.program("serve"), node.restarts()
    os.kill(node.program("net"), signal.SIGKILL)
    until(lambda: node.restarts()["net"] == before["net"] + 1)
    until(lambda: node.ask("app").status == 200)
    assert node.program("serve") == serve
    assert node.restarts()["serve"] == before["serve"]
    node.agent()


def test_serve_that_is_killed_comes_back_and_net_keeps_the_rules(node: RealNode) -> None:
    net, before = node.program("net"), node.restarts()
    os.kill(node.program("serve"), signal.SIGKILL)
    until(lambda: node.restarts()["serve"] == before["serve"] + 1)
    assert "dnat" in node.on_node("nft list table ip podid")
    until(lambda: node.ask("app").status == 200)
    assert node.program("net") == net
    assert node.restarts()["net"] == before["net"]
    node.agent()


def test_a_worker_that_is_killed_is_replaced_without_the_kubelet(node: RealNode) -> None:
    before = node.restarts()
    worker = node.processes("serve")[-1]
    os.kill(worker, signal.SIGKILL)
    until(lambda: node.ask("app").status == 200)
    assert worker not in node.processes("serve")
    assert node.restarts() == before


def test_each_program_lives_in_memory_of_its_own(node: RealNode) -> None:
    limits = {"serve": 192 << 20, "net": 96 << 20}
    for program, limit in limits.items():
        given, used = memory(node.program(program))
        assert given == limit
        assert used < limit * 0.6, f"{program}: {used >> 20} MiB of {limit >> 20}"


def test_what_takes_more_memory_than_serve_may_is_ended_and_net_is_not(node: RealNode) -> None:
    net, before = node.program("net"), node.restarts()
    hog = "print('begun', flush=True); x = bytearray(400 << 20); print('done')"
    command = ("python3", "-ISc", hog)
    said = node.inside(node.agent(), *command, namespace=SYSTEM, container="serve")
    assert said.startswith("begun\n")
    assert "done" not in said
    until(lambda: node.ask("app").status == 200)
    assert node.program("net") == net
    assert node.restarts()["net"] == before["net"]
    node.agent()


def memory_folder(pid: int) -> Path:
    """Return the cgroup of a process that limits its memory."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for root in {"memory": ["memory"], "": ["", "unified"]}.get(controllers, []):
            folder = Path("/sys/fs/cgroup", root, path.lstrip("/"))
            if any((folder / name).exists() for name in ("memory.max", "memory.limit_in_bytes")):
                return folder
    raise AssertionError("no memory controller holds it")


def memory(pid: int) -> tuple[int, int]:
    """Return limit and use of a process's cgroup."""
    folder = memory_folder(pid)
    v2 = (folder / "memory.max").exists()
    names = (
        ("memory.max", "memory.current")
        if v2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    limit, used = (int((folder / name).read_text()) for name in names)
    return limit, used


def test_a_container_runtime_that_starts_again_disturbs_nobody(node: RealNode) -> None:
    before, held = node.restarts(), node.agent()
    load = Load(node, "asking", 20, 600)
    node.order("kill", "start", service="containerd")
    node.ready(node.start("after-restart"))
    assert node.ask("after-restart").status == 200
    assert (node.restarts(), node.agent()) == (before, held)
    told = load.enough()
    assert told["failures"] == []
    assert told["answers"] == {"200": told["asked"]}
    node.drop("after-restart")


def test_an_agent_that_is_deleted_leaves_a_gap_of_5_s_at_most_in_which_imds_stays_closed(
    nodes: list[RealNode],
) -> None:
    node = nodes[0]
    node.share()
    load = Load(node, "asking", 50, 600)
    node.place.run("kubectl", "delete", "pod", node.agent(), "-n", SYSTEM)
    node.agent()
    until(lambda: node.ask("app").status == 200)
    told = load.enough()
    assert told["answers"]["200"]
    assert max(told["times"], default=0) - min(told["times"], default=0) <= GAP
    assert node.leaked(NONCE) == 0


def test_after_a_reboot_every_pod_is_served_again(node: RealNode) -> None:
    node.reboot()
    node.agent()
    node.ready("app", "other")
    assert node.ask("app").status == 200
    assert node.ask("other").status == 400
    assert all(ready(pod) for pod in node.agents())

"""The agent's image on a node with containerd: its start, its memory, and what an update costs.

Needs root, `./scripts/setup-runtime` and `./scripts/image`. Pods' requests are not repeated: each
has a connection of its own.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import datetime

from bench.bars import Bar, show, wants_json
from podidentity_sandbox.world.api import ready
from tests.acceptance.runtime.conftest import ARCHIVE, KINDS
from tests.acceptance.runtime.node import IMAGE, NEXT, SYSTEM, Node, opened
from tests.kubernetes.nodes.load import Load
from tests.kubernetes.nodes.test_programs import memory

_STARTS = 10
_RATE, _SECONDS, _PODS = 500, 20, 10
_MIB = 1 << 20


def measure(node: Node) -> Iterator[Bar]:
    """Yield the figures of one node."""
    starts = [_start(node) for _ in range(_STARTS)]
    yield Bar("container's start to ready, p50, s", statistics.median(starts), 1.5)
    yield Bar("container's start to ready, the slowest, s", max(starts), 3)
    pods = [f"asking-{number}" for number in range(_PODS)]
    loads = [Load(node, pod, _RATE / _PODS, _SECONDS) for pod in pods]
    updates = 0
    while all(load.goes_on for load in loads):
        node.enable(NEXT if node.image() == IMAGE else IMAGE)
        node.agent()
        updates += 1
    results = [load.result() for load in loads]
    failures = [failure for result in results for failure in result["failures"]]
    sys.stderr.write("".join(f"  {failure}\n" for failure in failures[:10]))
    yield Bar("updates meanwhile", updates, 2, least=True)
    asked = sum(result["answers"].get("200", 0) for result in results)
    yield Bar(f"answers to {_RATE} requests a second for {_SECONDS} s", asked, asked, least=True)
    yield Bar("failed requests", len(failures), 1)
    for program, most in (("serve", 96), ("net", 48)):
        yield Bar(f"memory of {program}, MiB", memory(node.program(program))[1] / _MIB, most)


def _start(node: Node) -> float:
    """Replace the agent's pod; return the seconds from its first container's start to ready."""
    pods = f"/api/v1/namespaces/{SYSTEM}/pods"
    old = node.agent()
    version = node.api.request("GET", pods)["metadata"]["resourceVersion"]
    node.api.request("DELETE", f"{pods}/{old}")
    for _, pod in node.api.watch(pods, version, 60):
        name = pod["metadata"]["name"]
        if name != old and ready(pod):
            return time.time() - _started(node, name)
    raise RuntimeError("no agent gets ready")


def _started(node: Node, pod: str) -> float:
    """Return when the first container of a pod was started, by the kubelet's log."""
    log = (node.plan.logs / f"{node.own.name}.log").read_text().splitlines()
    (first, *_) = [line for line in log if f"{pod}: Started: Started container" in line]
    return datetime.strptime(first[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


def main() -> int:
    """Bring a node up, measure, and print the table."""
    as_json = wants_json()
    if not ARCHIVE.exists():
        sys.exit("there is no image: run ./scripts/image")
    name = f"bench-{os.getpid():x}"
    with opened(name, ARCHIVE, KINDS["routed-cgroupfs-runc"]) as node:
        return show(measure(node), as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())

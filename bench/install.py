"""`helm install` of the chart until a pod has its first token, and `helm test` of 100 nodes.

Needs root and `./scripts/setup-helm`; for the node with containerd `./scripts/setup-runtime` and
`./scripts/image`. Each install is the first of a new cluster, of one node that has the image.
"""

from __future__ import annotations

import asyncio
import http
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bench.bars import Bar, show, wants_json
from deploy.values import CHART
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.api import MERGE_PATCH, Api
from tests.acceptance import test_chart as chart
from tests.acceptance.runtime.conftest import ARCHIVE, KINDS
from tests.acceptance.runtime.node import IMAGE, SERVED, SYSTEM, opened
from tests.deploy.helm import RELEASE, Helm
from tests.sandboxes import own

_RUNS = 3
_NODES = 100
_PATIENCE = 300.0
"""Seconds for what must come to pass."""
_ADDRESSES = "10.99.0"
"""Of nodes without a machine."""
_PORT = 18085
_ANSWERS = f"""
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
    log_message = lambda *_: None
server = http.server.ThreadingHTTPServer(("0.0.0.0", {_PORT}), Answer)
print("listening", flush=True)
server.serve_forever()
"""


def measure() -> Iterator[Bar]:
    """Install three times in each kind of sandbox, and test a release of 100 nodes three times."""
    tokens = list[float]()
    for run in range(_RUNS):
        with chart.bare(f"bench-in-{run}") as release:
            tokens.append(_in_sandbox(release))
            if run == _RUNS - 1:
                seconds = list(_tests(release))
    yield Bar(f"sandbox: install to first token, the slowest of {_RUNS}, s", max(tokens), 30)
    tokens = [_on_containerd(run) for run in range(_RUNS)]
    yield Bar(f"containerd: the same, the slowest of {_RUNS}, s", max(tokens), 60)
    yield Bar(f"helm test of {_NODES} nodes, the slowest of {_RUNS}, s", max(seconds), 30)


def _told(where: str, steps: Mapping[str, float]) -> float:
    """Tell the person who waits when each step was done; return when the last one was."""
    said = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in steps.items())
    print(f"{where}: {said}", file=sys.stderr)
    return max(steps.values())


# ---- The sandbox


def _in_sandbox(release: chart.Release) -> float:
    """Install, start a pod and have it ask; return the seconds to its token."""
    (node,) = release.place.plan.nodes
    # The pod of `helm test`, later, on the one node that has a kubelet.
    test = {"identity": "bound", "nodeSelector": {"kubernetes.io/hostname": node.name}}
    began, steps = time.monotonic(), dict[str, float]()
    release.put("install", azureIdentities=release.identities, test=test)
    steps["ready"] = time.monotonic() - began
    release.place.start_pod()
    steps["pod"] = time.monotonic() - began
    status, body = release.ask()
    steps["token"] = time.monotonic() - began
    if (status, body.get("client_id")) != (200, release.client):
        raise RuntimeError(body)
    return _told("sandbox", steps)


# ---- A node with containerd


def _on_containerd(run: int) -> float:
    name = own(f"bench-cri-{run}")
    with Helm() as helm, opened(name, ARCHIVE, KINDS["routed-cgroupfs-runc"], enabled=False) as at:
        values = _values(at.plan)
        began, steps = time.monotonic(), dict[str, float]()
        helm.ask(
            "on_cluster",
            action="install",
            kubeconfig=str(at.plan.kubeconfig),
            namespace=SYSTEM,
            name=RELEASE,
            chart=str(CHART),
            values=values,
            wait="watcher",
            timeout=int(_PATIENCE),
        )
        steps["ready"] = time.monotonic() - began
        at.ready(at.start("first"))
        steps["pod"] = time.monotonic() - began
        answer = at.ask("first")
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(answer)
        steps["token"] = time.monotonic() - began
        return _told("containerd", steps)


def _values(plan: Plan) -> dict[str, Any]:
    """Have an identity on the machine; return the values of a release whose pods may use it."""

    async def attached() -> dict[str, Any]:
        async with AzureOperator(plan) as azure:
            made = await chart.attached(azure, plan)
        repository, _, tag = IMAGE.rpartition(":")
        return {
            "operationMode": "managed",
            "image": {"repository": repository, "tag": tag, "imagePullPolicy": "Never"},
            "azureIdentities": {
                "demo": {
                    "namespace": SERVED,
                    "resourceID": made.identity_id,
                    "clientID": made.client_id,
                    "binding": {"selector": "demo"},
                }
            },
        }

    return asyncio.run(attached())


# ---- Many nodes


def _tests(release: chart.Release) -> Iterator[float]:
    """Yield the seconds of each `helm test`, from the command to its end."""
    with _nodes(release) as names:
        for _ in range(_RUNS):
            began = time.monotonic()
            said = release.do("test", logs=True, timeout=int(_PATIENCE))["logs"]
            took = time.monotonic() - began
            # The library gives the pod's log as many times as the test has objects.
            lines = {line for line in said.splitlines() if line.split(" ")[0] in names}
            told = ["ready", "routed", "nftables", "kernel", "proved"]
            if sorted(map(str.split, lines)) != [[name, *told] for name in names]:
                raise RuntimeError(said)
            _told(f"helm test of {len(names)} nodes", {"done": took})
            yield took


@contextmanager
def _nodes(release: chart.Release) -> Iterator[list[str]]:
    """Have so many nodes, by their names: the sandbox's own, and those without a machine.

    The DaemonSets put their pods there; at their addresses somebody answers as NMI of the sandbox's
    node did.
    """
    api = Api(release.place.plan)
    hollow = {f"hollow-{number:03}": number for number in range(1, _NODES)}
    labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    for name in hollow:
        metadata = {"name": name, "labels": labels}
        api.request("POST", "/api/v1/nodes", {"metadata": metadata})
    _have_agents(api, dict(hollow))
    with _answers(release):
        yield sorted([release.place.plan.nodes[0].name, *hollow])


def _have_agents(api: Api, late: dict[str, int]) -> None:
    """Return when each of these nodes has a pod of NMI that is said to be ready."""
    pods, ends = f"/api/v1/namespaces/{SYSTEM}/pods", time.monotonic() + _PATIENCE
    while late:
        if time.monotonic() > ends:
            raise RuntimeError(f"no NMI on {sorted(late)}")
        for pod in api.request("GET", f"{pods}?labelSelector={chart.NMI}")["items"]:
            if pod["spec"].get("nodeName") in late:
                address = f"{_ADDRESSES}.{late.pop(pod['spec']['nodeName'])}"
                said = {"hostIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
                path = f"{pods}/{pod['metadata']['name']}/status"
                api.request("PATCH", path, {"status": said}, content_type=MERGE_PATCH)
        time.sleep(0.1)


@contextmanager
def _answers(release: chart.Release) -> Iterator[None]:
    place, said = release.place, json.dumps(release.place.readiness())
    rules = f"""table ip hollow {{
        chain prerouting {{
            type nat hook prerouting priority dstnat
            ip daddr {_ADDRESSES}.0/24 tcp dport 8085 dnat to {place.plan.nodes[0].address}:{_PORT}
        }}
    }}"""
    enter = ["nsenter", "--target", str(place.node_process()), "--net", "--"]
    program = [*enter, sys.executable, "-ISc", _ANSWERS, said]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as answering:
        try:
            if not answering.stdout or not answering.stdout.readline():
                raise RuntimeError("nobody answers")
            place.on_node("nft", "-f", "-", given=rules)
            yield
        finally:
            answering.terminate()


if __name__ == "__main__":
    if not ARCHIVE.exists():
        sys.exit("there is no image: run ./scripts/setup-runtime and ./scripts/image")
    raise SystemExit(show(measure(), as_json=wants_json()))

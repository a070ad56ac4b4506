"""`podidentity check`, `list` and `explain` on 5,000 pods: whole commands, to their last line."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import aiohttp

from bench.apiserver import PODS, WRITERS, say, server
from bench.bars import Bar, show, wants_json
from podidentity import manifests
from podidentity.wire import rbac
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.blueprint import write_kubeconfig

NAMESPACES = 50
IDENTITIES = 10
"""Of each namespace, each bound and granted."""
NODES = 100
RUNS = 5
CUSTOM = "/apis/aadpodidentity.k8s.io/v1/namespaces"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
_Made = tuple[str, Mapping[str, Any]]


def objects() -> Iterator[_Made]:
    """Yield path and body of what is in the cluster before its pods."""
    for number in range(NODES):
        metadata = {"name": f"node-{number}", "labels": {"kubernetes.io/os": "linux"}}
        yield "/api/v1/nodes", {"metadata": metadata}
    for number in range(NAMESPACES):
        namespace = f"n-{number}"
        yield "/api/v1/namespaces", {"metadata": {"name": namespace}}
        for each in range(IDENTITIES):
            yield from identity(namespace, f"i-{each}", f"{number:08}-0000-4000-8000-{each:012}")


def identity(namespace: str, name: str, client: str) -> Iterator[_Made]:
    """Yield an AzureIdentity, its binding, and its grant."""
    head = {"apiVersion": "aadpodidentity.k8s.io/v1", "metadata": {"name": name}}
    spec = {"type": 0, "clientID": client}
    yield f"{CUSTOM}/{namespace}/azureidentities", {**head, "kind": "AzureIdentity", "spec": spec}
    bound = {**head, "kind": "AzureIdentityBinding"}
    bound["spec"] = {"azureIdentity": name, "selector": name}
    yield f"{CUSTOM}/{namespace}/azureidentitybindings", bound
    yield f"{RBAC}/clusterroles", rbac.role(client)
    given = rbac.binding(client, rbac.Grantee(namespace), rbac.Giver.ADD)
    yield f"{RBAC}/clusterrolebindings", given


def pods() -> Iterator[_Made]:
    """Yield path and body of the pods."""
    for number in range(PODS):
        labels = {"aadpodidbinding": f"i-{number % IDENTITIES}"}
        spec = {
            "nodeName": f"node-{number % NODES}",
            "containers": [{"name": "main", "image": "x"}],
        }
        path = f"/api/v1/namespaces/n-{number % NAMESPACES}/pods"
        yield path, {"metadata": {"name": f"p-{number}", "labels": labels}, "spec": spec}


async def fill(plan: Plan) -> None:
    """Put all of it into the cluster."""
    tls = ssl.create_default_context(cafile=str(plan.ca_certificate))
    async with aiohttp.ClientSession(
        f"https://127.0.0.1:{plan.apiserver_port}",
        headers={"Authorization": f"Bearer {plan.admin_token}"},
        connector=aiohttp.TCPConnector(ssl=tls, limit=0),
    ) as session:

        async def post(made: Iterator[_Made]) -> None:
            for path, body in made:
                async with session.post(path, json=body) as answer:
                    if answer.status != 201:
                        sys.exit(f"an object was refused: {await answer.text()}")

        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        await post(iter([(crds, each) for each in manifests.crds()]))
        await post(objects())
        made = pods()
        await asyncio.gather(*(post(made) for _ in range(WRITERS)))


COMMANDS = {"check": ("check",), "list": ("list",), "explain": ("explain", "pod", "n-0/p-0")}


def used() -> float:
    """Return the seconds of processor time that finished children have taken."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def run(environment: Mapping[str, str], command: Sequence[str]) -> tuple[float, float]:
    """Run a command; return its seconds, and those of processor time."""
    before, began = used(), time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", "podidentity", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - began
    if ran.stderr or ran.returncode not in {0, 1}:
        sys.exit(f"{command[0]} failed: {ran.stderr}")
    return took, used() - before


def main() -> int:
    """Measure, and print the table."""
    as_json = wants_json()
    with server() as (plan, _):
        write_kubeconfig(plan)
        asyncio.run(fill(plan))
        say(f"{PODS} pods with one of {NAMESPACES * IDENTITIES} identities each, {NODES} nodes")
        environment = {**os.environ, "KUBECONFIG": str(plan.kubeconfig)}
        enable = [sys.executable, "-m", "podidentity", "enable", "--no-wait", "--no-grants"]
        subprocess.run(enable, env=environment, check=True, capture_output=True)
        bars = []
        for name, command in COMMANDS.items():
            took = [run(environment, command) for _ in range(RUNS)]
            shown = ", ".join(f"{wall:.2f} ({spent:.2f})" for wall, spent in took)
            say(f"{name}, seconds of each run (of processor time): {shown}")
            bars.append(Bar(f"{name} of {PODS} pods, slowest of {RUNS}, s", max(took)[0], 2))
    return show(bars, as_json=as_json)


if __name__ == "__main__":
    raise SystemExit(main())

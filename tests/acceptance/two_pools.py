"""A cluster of two pools of nodes, a pod on each, as AAD Pod Identity leaves it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import Prepared
from tests.acceptance.archived_nmi import ARCHIVED
from tests.acceptance.asking import OURS, Load, load, until_answered
from tests.acceptance.sandbox import PATIENCE, Sandbox

PODS = ("a", "b")
"""One on each node, which are two pools."""
POOLS = ("canary", "others")
ASKED = ("8085/healthz", "8085/readyz", "9090/metrics", "2579/host/token")
"""On the ports of a node that both want."""


class Cluster:
    """Two pools, a pod on each, and the archived NMI on both."""

    def __init__(self, place: Sandbox, azure: AzureOperator, made: Prepared) -> None:
        self.place, self.azure, self.made = place, azure, made
        self.rate = 12.0
        """How often each pod asks in a second: the archived NMI asks IMDS each time, and IMDS takes
        20 requests a second of a machine."""

    async def prepare(self) -> None:
        """Attach the identity to the machines, and name the pools."""
        place = self.place
        machines = {"type": "UserAssigned", "userAssignedIdentities": {self.made.identity_id: {}}}
        await self.azure.arm("PATCH", place.plan.scale_set_id, {"identity": machines})
        for number, (node, pool) in enumerate(zip(place.plan.nodes, POOLS, strict=True)):
            # kube-proxy does that on each node.
            command = "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"
            place.on_node("sh", "-c", command, number=number)
            label = ("kubectl", "label", "--overwrite", "node", node.name, f"agentpool={pool}")
            await self.run(*label)

    async def start_pods(self) -> None:
        """Start the pods, which an AzureIdentity is bound to."""
        objects = (*_identity(self.made), *_pods(self.place))
        await asyncio.to_thread(self.place.apply, *map(json.dumps, objects))

    async def run(self, *command: str, given: str = "") -> str:
        return await asyncio.to_thread(self.place.run, *command, given=given)

    async def who(self, pod: str) -> str:
        """Return who answers a new connection of a pod."""
        said = await self.place.shell(
            "curl -s -m 60 -i -H Metadata:true 'http://169.254.169.254/metadata/identity"
            "/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net'",
            pod=pod,
        )
        answer = said.stdout.decode()
        head, _, body = answer.partition("\r\n\r\n")
        assert " 200 " in head, answer
        assert "IMDS" not in head, "the node is open"
        return ARCHIVED if "refresh_token" in body else OURS

    async def on_ports(self, number: int) -> str:
        """Return what answers at the ports of a node that both want."""
        asks = "; ".join(f"curl -s -m 5 http://127.0.0.1:{each}" for each in ASKED)
        return await asyncio.to_thread(self.place.on_node, "sh", "-c", f"{asks}; :", number=number)

    async def until_archived_has_rules(self) -> None:
        """Return when the archived NMI says on each node that it has: it has no readiness."""
        ask = "until curl -s http://127.0.0.1:8085/healthz | grep -qx Active; do sleep 0.1; done"
        for number in range(len(POOLS)):
            command = ("timeout", str(PATIENCE), "sh", "-c", ask)
            await asyncio.to_thread(self.place.on_node, *command, number=number)

    async def until_ours_has_the_ports(self) -> None:
        """Return when ours answers at the ports of all nodes that both want."""
        async with asyncio.timeout(PATIENCE):
            for number in range(len(POOLS)):
                while not_ours(await self.on_ports(number)):  # noqa: ASYNC110 - of a node
                    await asyncio.sleep(0.2)

    def load(self, nonce: str) -> AbstractAsyncContextManager[Load]:
        """Have both pods ask from before the block until after it."""
        client = self.made.client_id
        return load(self.place, nonce, pods=PODS, rate=self.rate, client_id=client)

    async def until_answered(
        self, nonce: str, by: str, more_than: int = 0, pods: Sequence[str] = PODS
    ) -> None:
        """Return when pods that ask have had more than so many tokens from somebody."""
        await until_answered(self.place, nonce, more_than, by=by, pods=pods)


def _identity(made: Prepared) -> Iterator[dict[str, Any]]:
    api = {"apiVersion": "aadpodidentity.k8s.io/v1"}
    spec = {"type": 0, "resourceID": made.identity_id, "clientID": made.client_id}
    metadata = {"name": "bound", "namespace": "default"}
    yield {**api, "kind": "AzureIdentity", "metadata": metadata, "spec": spec}
    binding = {"azureIdentity": "bound", "selector": "bound"}
    yield {**api, "kind": "AzureIdentityBinding", "metadata": metadata, "spec": binding}


def _pods(place: Sandbox) -> Iterator[dict[str, Any]]:
    for name, node in zip(PODS, place.plan.nodes, strict=True):
        labels = {"aadpodidbinding": "bound"}
        containers = [{"name": "main", "image": "idle"}]
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"nodeName": node.name, "containers": containers},
        }


def not_ours(said: str) -> bool:
    """Whether another has one of the ports still."""
    ours = "Active" in said and "podidentity_build_info" in said and "invalid_request" in said
    return not ours or "page not found" in said

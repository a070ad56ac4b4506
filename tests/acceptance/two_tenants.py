"""Two tenants on one node, each with an identity of its own."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.azure.seed import KUBELET_IDENTITY
from podidentity_sandbox.demo.prepare import GROUP
from tests.acceptance.directory import pod
from tests.acceptance.sandbox import Sandbox
from tests.jwts import claims

API = "aadpodidentity.k8s.io/v1"
URL = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}"
ASK = "curl -s -m 60 -w '\\n%{{http_code}}' -H Metadata:true '{url}'"
VAULT = "https://vault.azure.net"
MINE = "mine"


@dataclass(frozen=True)
class Identity:
    """A managed identity that is on the node's machine."""

    id: str
    client_id: str
    object_id: str


@dataclass
class TwoTenants:
    """The tenant, his neighbour, and what lies between them."""

    place: Sandbox
    azure: AzureOperator
    loop: asyncio.Runner
    orders: Identity = field(init=False)
    mine: Identity = field(init=False)
    kubelet: Identity = field(init=False)

    def apply(self, *objects: str) -> None:
        self.place.apply(*objects)

    def ask(self, pod: str, namespace: str = "tenant", **query: str) -> tuple[int, dict[str, Any]]:
        more = "".join(f"&{name}={value}" for name, value in query.items())
        command = ASK.format(url=URL.format(VAULT) + more)
        run = self.place.shell(command, pod=pod, namespace=namespace)
        body, _, status = self.loop.run(run).stdout.decode().rpartition("\n")
        return int(status), json.loads(body)

    def asked_of_imds(self, *wanted: Identity) -> list[str]:
        """Return what NMI asked IMDS about these identities."""
        seen = self.loop.run(self.azure.imds_requests())
        names = [name.lower() for each in wanted for name in (each.client_id, each.id)]
        targets = [each["target"].lower().replace("%2f", "/") for each in seen]
        return [target for target in targets if any(name in target for name in names)]


async def settle(tenants: TwoTenants) -> TwoTenants:
    """Give each of the two an identity, and a pod that is bound to it."""
    azure = tenants.azure
    await azure.create_group(GROUP)
    tenants.orders, tenants.mine = [await _made(azure, name) for name in ("orders", MINE)]
    host = await azure.arm("GET", tenants.place.plan.scale_set_id)
    blocks = host["identity"]["userAssignedIdentities"]
    (tenants.kubelet,) = [
        Identity(id, each["clientId"], each["principalId"])
        for id, each in blocks.items()
        if id.endswith(KUBELET_IDENTITY)
    ]
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in SPACES]
    await asyncio.to_thread(tenants.apply, *map(json.dumps, spaces))
    for namespace, name, identity in (
        ("shop", "orders", tenants.orders),
        ("tenant", MINE, tenants.mine),
    ):
        which = ("--identity-resource-id", identity.id)
        await asyncio.to_thread(tenants.place.add, namespace, name, *which)
    await asyncio.to_thread(tenants.apply, pod("web", "shop", "orders"), pod("own", "tenant", MINE))
    return tenants


SPACES = ("shop", "tenant")


async def _made(azure: AzureOperator, name: str) -> Identity:
    found = await azure.create_identity(GROUP, name)
    return Identity(found["id"], found["clientId"], found["principalId"])


def appid(body: dict[str, Any]) -> str:
    return str(claims(body["access_token"])["appid"])

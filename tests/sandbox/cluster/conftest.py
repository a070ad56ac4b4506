"""A cluster served over TLS on the loopback, and clients that verify its certificate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from podidentity.client_connections import ClientConnections
from podidentity_sandbox.cluster.cluster import Cluster
from podidentity_sandbox.cluster.main import make_cluster, serve
from podidentity_sandbox.plan import NodePlan, Plan
from podidentity_sandbox.world.authority import write_certificates
from tests.sandbox.cluster.settled import Settled

Client = httpx2.AsyncClient
ADMIN = "admin-token"
PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
MERGE = {"Content-Type": "application/merge-patch+json"}
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGET = {"apiVersion": "example.com/v1", "kind": "Widget"}
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
TOKEN = "/api/v1/namespaces/default/serviceaccounts/default/token"
"""Where tokens of the account `default` are asked for."""
ACCOUNT = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}


@dataclass
class Served:
    """A served cluster."""

    cluster: Cluster
    plan: Plan
    url: str
    tls: ssl.SSLContext

    def client(self, token: str = ADMIN, *, of_program: bool = False) -> Client:
        """Return a client, which is connected as NMI and MIC are if it is `of_program`."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Client(
            base_url=self.url,
            headers=headers,
            verify=self.tls,
            trust_env=False,
            timeout=60,
            transport=ClientConnections(self.url, self.tls) if of_program else None,
        )

    def kubeconfig(self, **user: Any) -> dict[str, Any]:
        """Return the kubeconfig of a user with these credentials."""
        cluster = {"server": self.url, "certificate-authority": str(self.plan.ca_certificate)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": cluster}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": user}],
        }


def node_plan(index: int) -> NodePlan:
    return NodePlan(
        name=f"node-{index}",
        index=index,
        address=f"10.240.0.{4 + index}",
        pod_cidr=f"10.244.{index}.0/24",
        gateway=f"10.244.{index}.1",
        provider_id=f"azure:///vm/{index}",
        token=f"node-{index}-token",
    )


def plan_of(folder: Path, *nodes: NodePlan, **more: Any) -> Plan:
    """Return the plan of a sandbox."""
    return Plan(
        name="test",
        folder=str(folder),
        tenant_id="t",
        subscription_id="s",
        operator_id="o",
        operator_secret="o",
        admin_token=ADMIN,
        aks_token="aks-token",
        nodes=nodes,
        **{"rootless": False, **more},
    )


def saved_plan(folder: Path, *nodes: NodePlan, **more: Any) -> Plan:
    """Write the plan of a sandbox into its folder, with its certificates."""
    plan = plan_of(folder, *nodes, **more)
    write_certificates(plan)
    plan.save()
    return plan


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sandbox: plan, certificates and the cluster's key are made once."""
    path = tmp_path_factory.mktemp("cluster")
    saved_plan(path, node_plan(0), node_plan(1))
    return path


def listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


@pytest.fixture
async def served(folder: Path) -> AsyncIterator[Served]:
    async with serving(folder) as found:
        yield found


@contextlib.asynccontextmanager
async def serving(folder: Path, sock: socket.socket | None = None) -> AsyncIterator[Served]:
    """Serve the cluster of the plan in `folder`, on a listening socket."""
    cluster = make_cluster(folder)
    sock = sock or listener()
    url = f"https://127.0.0.1:{sock.getsockname()[1]}"
    runner = await serve(cluster, folder, [sock])
    controllers = asyncio.create_task(cluster.loop.run())
    tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    yield Served(cluster, Plan.load(folder), url, tls)
    await runner.cleanup()
    controllers.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await controllers


@pytest.fixture
async def api(served: Served) -> AsyncIterator[Client]:
    """The administrator's client."""
    async with served.client() as client:
        yield client


@pytest.fixture
async def kubelet(served: Served) -> AsyncIterator[Client]:
    """The client of the first node's kubelet."""
    async with served.client(served.plan.nodes[0].token) as client:
        yield client


def pod(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "busybox"}], **spec},
    }


def check_refusal(answer: httpx2.Response, code: int, words: str) -> None:
    """Hold that a request was refused with this code, and said so in these words."""
    told = answer.json()
    assert (answer.status_code, told["kind"], told["code"]) == (code, "Status", code), told
    assert words in told["message"]


def rule(verbs: str, resources: str, group: str = "", **more: list[str]) -> dict[str, Any]:
    return {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split(), **more}


def role(name: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "rules": list(rules)}


def binding(
    name: str, role: str, kind: str = "ClusterRole", subject: dict[str, str] = ACCOUNT
) -> dict[str, Any]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
    return {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}


def bound_to(pod: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a TokenRequest for a token that ends with the pod of this metadata."""
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
    return {"spec": {"boundObjectRef": reference, **spec}}


@contextlib.asynccontextmanager
async def watching(
    client: Client, path: str, **params: Any
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """A watch whose events are taken with anext."""
    async with client.stream("GET", path, params={"watch": "true", **params}) as response:
        assert response.status_code == 200
        yield (json.loads(line) async for line in response.aiter_lines())


def seen(event: dict[str, Any]) -> tuple[str, str]:
    """What happened to which object."""
    return event["type"], event["object"]["metadata"].get("name", "")


def definition() -> dict[str, Any]:
    """A small definition: widgets.example.com, with a typed spec and a status subresource."""
    found: dict[str, Any] = yaml.safe_load(WIDGET_DEFINITION)
    return found


WIDGET_DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer, format: int32}
              colour: {type: string, nullable: true}
              labels: {type: object, additionalProperties: {type: string}}
          status: {type: object, properties: {phase: {type: string}}}
"""


@pytest.fixture
def crd() -> dict[str, Any]:
    return definition()


@pytest.fixture
async def widgets(api: Client, served: Served, crd: dict[str, Any]) -> Client:
    """The administrator's client of a cluster that has the small definition."""
    await define(api, served, crd)
    return api


async def define(api: Client, served: Served, crd: dict[str, Any]) -> None:
    answer = await api.post(DEFINITIONS, json=crd)
    assert answer.status_code == 201, answer.text
    served.cluster.loop.settle()


@pytest.fixture
def world(folder: Path) -> Settled:
    return Settled(folder)

"""What is in the benchmark's cluster and Azure: pods of the node, identities, bindings, grants."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.stage.ground import BenchPod, address_of
from podidentity.manifests import crds, nmi
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import ISSUER, Plan
from podidentity_sandbox.world.api import Api
from podidentity_sandbox.world.apply import Applier

GROUP = "/apis/aadpodidentity.k8s.io/v1"
NAMESPACE = "bench"
_WRITERS = 8
_MERGE = {"Content-Type": "application/merge-patch+json"}
Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An identity that is attached to the node's machine."""

    name: str
    client_id: str
    resource_id: str


class BenchCluster:
    """The cluster's administrator and the subscription's owner. An async context manager."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._base = f"https://127.0.0.1:{plan.apiserver_port}"
        self.node = plan.nodes[0].name

    async def __aenter__(self) -> BenchCluster:
        tls = ssl.create_default_context(cafile=str(self._plan.ca_certificate))
        self._session = aiohttp.ClientSession(
            self._base,
            headers={"Authorization": f"Bearer {self._plan.admin_token}"},
            connector=aiohttp.TCPConnector(ssl=tls, limit=_WRITERS),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Object:
        """Call the API server; raise RuntimeError with its words."""
        async with self._session.request(method, path, json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
            found: Object = json.loads(text)
            return found

    async def patch(self, path: str, body: object) -> Object:
        """Change an object by a merge patch."""
        return await self.request("PATCH", path, body, _MERGE)

    async def install(self) -> None:
        """Put in what `podidentity enable` would but the pods of NMI, and our node."""
        applier = Applier(Api(self._plan), "kube-system")
        for manifest in (*crds(), *nmi()):
            if manifest["kind"] != "DaemonSet":
                await asyncio.to_thread(applier.apply, manifest)
        await self.request("POST", "/api/v1/nodes", _named("v1", "Node", self.node))
        await self.namespaces([NAMESPACE])

    async def namespaces(self, names: Iterable[str]) -> None:
        """Make namespaces."""
        for name in names:
            await self.request("POST", "/api/v1/namespaces", _named("v1", "Namespace", name))

    async def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig of NMI's own service account, with its rights and no more."""
        account = "/api/v1/namespaces/kube-system/serviceaccounts/podidentity-nmi"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        made = await self.request("POST", f"{account}/token", request)
        config = yaml.safe_load(self._plan.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": made["status"]["token"]}
        path = folder / "nmi.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    async def add_pods(
        self, numbers: Iterable[int], labels: Mapping[int, str], *, accounts: str = "default"
    ) -> list[BenchPod]:
        """Make running pods on the node; `labels`: the selector of each.

        `accounts`: the name of the pods' service account, where `{}` stands for their number.
        """
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"

        async def add(number: int) -> BenchPod:
            pod = _named("v1", "Pod", f"pod-{number}", {"aadpodidbinding": labels[number]})
            container = {"name": "main", "image": "idle"}
            pod["spec"] = {
                "nodeName": self.node,
                "serviceAccountName": accounts.format(number),
                "containers": [container],
            }
            made = await self.request("POST", path, pod)
            address = address_of(number)
            status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
            await self.patch(f"{path}/pod-{number}/status", {"status": status})
            return BenchPod(number, made["metadata"]["uid"])

        return await _gather(add(number) for number in numbers)

    async def remove_pods(self, pods: Iterable[BenchPod]) -> None:
        """Delete pods at once."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        now = {"gracePeriodSeconds": 0}
        await _gather(self.request("DELETE", f"{path}/{pod.name}", now) for pod in pods)

    async def attach(self, count: int) -> list[Identity]:
        """Make identities in Azure and attach them to the node's scale set."""
        async with AzureOperator(self._plan) as azure:
            await azure.create_group("bench")
            made = [await azure.create_identity("bench", f"id-{each}") for each in range(count)]
            wanted: Object = {each["id"]: {} for each in made}
            body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": wanted}}
            await azure.arm("PATCH", self._plan.scale_set_id, body)
            return [
                Identity(name=f"id-{n}", client_id=each["clientId"], resource_id=each["id"])
                for n, each in enumerate(made)
            ]

    async def bind(self, identities: Sequence[Identity], namespace: str = NAMESPACE) -> None:
        """Make an AzureIdentity and its AzureIdentityBinding, selector its name, for each."""
        await _gather(
            self.bind_as(
                each.name,
                {"type": 0, "clientID": each.client_id, "resourceID": each.resource_id},
                namespace,
            )
            for each in identities
        )

    async def bind_as(self, name: str, spec: Object, namespace: str = NAMESPACE) -> None:
        """Make an AzureIdentity of this spec, and its AzureIdentityBinding, selector its name."""
        path = f"{GROUP}/namespaces/{namespace}"
        identity = _named("aadpodidentity.k8s.io/v1", "AzureIdentity", name)
        await self.request("POST", f"{path}/azureidentities", {**identity, "spec": spec})
        binding = _named("aadpodidentity.k8s.io/v1", "AzureIdentityBinding", name)
        binding["spec"] = {"azureIdentity": name, "selector": name}
        await self.request("POST", f"{path}/azureidentitybindings", binding)

    async def federate(self, name: str, accounts: Sequence[str]) -> None:
        """Make an app that the tokens of these service accounts sign in, and bind it."""
        async with AzureOperator(self._plan) as azure:
            app = await azure.make_app(name)
            for account in accounts:
                subject = f"system:serviceaccount:{NAMESPACE}:{account}"
                await azure.add_federated_credential(app, account, issuer=ISSUER, subject=subject)
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        for account in accounts:
            await self.request("POST", path, _named("v1", "ServiceAccount", account))
        spec = {"type": 3, "clientID": app.client_id, "tenantID": self._plan.tenant_id}
        await self.bind_as(name, spec)
        await self.permit(name, [app.client_id])

    async def permit(self, name: str, clients: Sequence[str]) -> None:
        """Grant the namespace's service accounts the use of identities, by a role of this name."""
        group = "rbac.authorization.k8s.io"
        role = _named(f"{group}/v1", "ClusterRole", name)
        rule = {"apiGroups": ["aadpodidentity.k8s.io"], "resources": ["azureidentities"]}
        role["rules"] = [{**rule, "verbs": ["use"], "resourceNames": list(clients)}]
        binding = _named(f"{group}/v1", "ClusterRoleBinding", name)
        binding["roleRef"] = {"apiGroup": group, "kind": "ClusterRole", "name": name}
        accounts = f"system:serviceaccounts:{NAMESPACE}"
        binding["subjects"] = [{"apiGroup": group, "kind": "Group", "name": accounts}]
        for made, plural in ((role, "clusterroles"), (binding, "clusterrolebindings")):
            await self.request("POST", f"/apis/{group}/v1/{plural}", made)

    async def record(self, pod: BenchPod, identity: str) -> str:
        """Write, as the controller does, that an identity is on its way; return the path of it."""
        path = f"{GROUP}/namespaces/{NAMESPACE}/azureassignedidentities"
        name = f"{pod.name}-{NAMESPACE}-{identity}"
        api = "aadpodidentity.k8s.io/v1"
        made = _named(api, "AzureAssignedIdentity", name, {"nodename": self.node})
        made["spec"] = {
            "pod": pod.name,
            "podNamespace": NAMESPACE,
            "nodename": self.node,
            "azureIdentityRef": {"metadata": {"name": identity, "namespace": NAMESPACE}},
        }
        made["status"] = {"status": "Created", "availableReplicas": 1}
        await self.request("POST", path, made)
        return f"{path}/{name}"

    async def crowd(self, count: int) -> None:
        """Fill other namespaces with `count` identities that this node does not need."""
        namespaces = [f"other-{number}" for number in range(20)]
        await self.namespaces(namespaces)
        for number, namespace in enumerate(namespaces):
            group = f"/subscriptions/{uuid.UUID(int=7)}/resourceGroups/bench"
            kind = f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
            of_this = [
                Identity(
                    name=f"other-{each}", client_id=str(uuid.uuid4()), resource_id=f"{kind}/o{each}"
                )
                for each in range(number, count, len(namespaces))
            ]
            await self.bind(of_this, namespace)


def _named(api: str, kind: str, name: str, labels: Mapping[str, str] | None = None) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": labels or {}}}


async def _gather(calls: Iterable[Any]) -> list[Any]:
    """Await all, a few at a time, in their order."""
    room = asyncio.Semaphore(_WRITERS)

    async def one(call: Any) -> Any:  # noqa: ANN401 - whatever the calls return
        async with room:
            return await call

    return list(await asyncio.gather(*(one(call) for call in calls)))

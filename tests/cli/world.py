"""A real control plane and the sandbox's Azure for the commands: no nodes' processes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from podidentity_sandbox.plan import Plan, Pool
from podidentity_sandbox.world.blueprint import Shape, draw_plan, write_kubeconfig
from tests.kubernetes.control_plane import (
    NEWEST_FOLDER,
    ControlPlane,
    Server,
    State,
    control_plane,
    wait_until,
)

CUSTOM = "/apis/aadpodidentity.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@dataclass(frozen=True)
class World:
    """Where the two servers are, and the administrator's and operator's hands."""

    plan: Plan
    api: httpx2.Client
    server: Server
    control_plane: ControlPlane
    states: list[State]
    """The last of them is what it is put back to."""

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Let what is there now be what it is put back to."""
        self.states.append(self.control_plane.state())
        yield
        self.states.pop()

    def put_back(self) -> None:
        """Let the cluster be as it was when it was kept last, and its weather be this world's."""
        self.control_plane.under(self.plan.path)
        self.control_plane.put_back(self.states[-1])

    @property
    def environment(self) -> Mapping[str, str]:
        """Exactly the variables of `podidentity sandbox env`."""
        bundle = str(self.plan.ca_bundle)
        return {
            "KUBECONFIG": str(self.plan.kubeconfig),
            "HTTPS_PROXY": f"http://127.0.0.1:{self.plan.azure_proxy_port}",
            "NO_PROXY": "127.0.0.1,localhost,169.254.169.254",
            "SSL_CERT_FILE": bundle,
            "REQUESTS_CA_BUNDLE": bundle,
            "AZURE_TENANT_ID": self.plan.tenant_id,
            "AZURE_CLIENT_ID": self.plan.operator_id,
            "AZURE_CLIENT_SECRET": self.plan.operator_secret,
        }

    def send(self, method: str, path: str, body: object = None, **params: str) -> Any:
        """Ask the API server as its administrator; a failure fails the test."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        status, text = self.server.ask(method, path, params, body, kind)
        assert status // 100 == 2, (status, text)
        return json.loads(text)

    def get(self, path: str) -> Any:
        """Return the object at `path`, or None."""
        status, text = self.server.ask("GET", path, {}, None, "application/json")
        if status == 404:
            return None
        assert status // 100 == 2, text
        return json.loads(text)

    def delete(self, path: str, **params: str) -> bool:
        """Delete an object, or all of a kind; return whether there was one."""
        status, text = self.server.ask("DELETE", path, params, None, "application/json")
        assert status in {200, 404}, text
        return status == 200

    def namespace(self, name: str) -> str:
        """Make a namespace; return when its default ServiceAccount is there, which pods need."""
        self.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        wait_until(lambda: self.get(account) is not None)
        return name

    def define(self, *definitions: Any) -> None:
        """Make custom resources; return when they are served."""
        for each in definitions:
            self.send("POST", CRDS, each)
        for spec in (each["spec"] for each in definitions):
            version = spec["versions"][0]["name"]
            plurals = {spec["names"]["plural"]}
            self.control_plane.wait_until_served(spec["group"], plurals, version=version)

    def pod(
        self, namespace: str, name: str, labels: Mapping[str, str] | None = None, *, node: int = 0
    ) -> None:
        spec = {
            "nodeName": self.plan.nodes[node].name,
            "containers": [{"name": "main", "image": "x"}],
        }
        body = {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}
        self.send("POST", f"/api/v1/namespaces/{namespace}/pods", body)

    def custom(self, namespace: str, plural: str, name: str, spec: Mapping[str, Any]) -> None:
        kinds = {
            "azureidentities": "AzureIdentity",
            "azureidentitybindings": "AzureIdentityBinding",
            "azurepodidentityexceptions": "AzurePodIdentityException",
            "azureassignedidentities": "AzureAssignedIdentity",
        }
        body = {
            "apiVersion": "aadpodidentity.k8s.io/v1",
            "kind": kinds[plural],
            "metadata": {"name": name},
            "spec": spec,
        }
        self.send("POST", f"{CUSTOM}/namespaces/{namespace}/{plural}", body)

    def bind(self, role: str, namespace: str, account: str) -> str:
        """Give a service account a ClusterRole in the whole cluster; return the binding's path."""
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        name = f"{role}-{namespace}"
        subject = {"kind": "ServiceAccount", "namespace": namespace, "name": account}
        reference = {"apiGroup": path.split("/")[2], "kind": "ClusterRole", "name": role}
        body = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        if self.get(f"{path}/{name}") is None:
            self.send("POST", path, body)
        return f"{path}/{name}"


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _start(module: str, folder: Path, fds: Mapping[str, Sequence[int]]) -> subprocess.Popen[bytes]:
    """Start a part of the sandbox and return when it serves."""
    reader, writer = os.pipe()
    options = [f"--{name}={fd}" for name, numbers in fds.items() for fd in numbers]
    passed = [fd for numbers in fds.values() for fd in numbers]
    with (folder / f"{module}.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                f"podidentity_sandbox.{module}",
                f"--folder={folder}",
                *options,
                f"--ready-fd={writer}",
            ],
            pass_fds=(*passed, writer),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(writer)
    with os.fdopen(reader, "rb") as ready:
        said = ready.read()
    assert said == b"ready\n", (folder / f"{module}.log").read_text()
    return process


@contextlib.contextmanager
def running(
    folder: Path,
    pools: Sequence[Pool] = (),
    *,
    definitions: Sequence[Any] = (),
    programs: str = NEWEST_FOLDER,
) -> Iterator[World]:
    """Yield a world of two nodes, or of those of the pools, on this worker's control plane.

    It is a new cluster with these custom resources, whose nodes are ready.
    """
    plane = control_plane(programs)
    with contextlib.ExitStack() as stack:
        https, imds, proxy = (stack.enter_context(_listener()) for _ in range(3))
        dns = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        dns.bind(("127.0.0.1", 0))
        plan = draw_plan(
            "cli",
            folder,
            Shape(rootless=True, pools=pools),
            apiserver_port=plane.plan.apiserver_port,
            azure_proxy_port=proxy.getsockname()[1],
        )
        plan = replace(plan, admin_token=plane.plan.admin_token, aks_token=plane.plan.aks_token)
        plan.save()
        plane.lend(plan)
        write_kubeconfig(plan)
        sockets = {"https-fd": https, "imds-fd": imds, "dns-fd": dns, "proxy-fd": proxy}
        azure = _start("azure", folder, {name: [sock.fileno()] for name, sock in sockets.items()})
        stack.callback(azure.wait)
        stack.callback(azure.terminate)
        client = httpx2.Client(
            base_url=f"https://127.0.0.1:{plan.apiserver_port}",
            headers={"Authorization": f"Bearer {plan.admin_token}"},
            verify=ssl.create_default_context(cafile=str(plan.ca_certificate)),
            trust_env=False,
            timeout=60,
        )
        server = stack.enter_context(closing(Server(plan, "127.0.0.1", plan.apiserver_port)))
        world = World(plan, stack.enter_context(client), server, plane, [plane.beginning])
        world.put_back()
        for node in plan.nodes:
            labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
            metadata = {"name": node.name, "labels": labels}
            body = {"metadata": metadata, "spec": {"providerID": node.provider_id}}
            world.send("POST", "/api/v1/nodes", body)
            become_ready(world, node.name)
        world.define(*definitions)
        with world.kept():
            yield world


def become_ready(world: World, node: str) -> None:
    """Let a node have room and be ready, as its kubelet and a controller would."""
    room = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": room}
    world.send("PATCH", f"/api/v1/nodes/{node}/status", {"status": {**ready, "capacity": room}})
    world.send("PATCH", f"/api/v1/nodes/{node}", {"spec": {"taints": None}})


def nmi(world: World, node: int, name: str, *, ready: str) -> None:
    labels = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "nmi"}
    path = f"/api/v1/namespaces/kube-system/pods/{name}"
    if world.get(path) is None:
        world.pod("kube-system", name, labels, node=node)
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    world.send("PATCH", f"{path}/status", {"status": status})


def event(world: World, about: tuple[str, str, str], reason: str, message: str, ago: float) -> None:
    """Write an event as NMI does; it is about a pod: namespace, name and uid."""
    ns, name, uid = about
    at = (datetime.now(UTC) - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "metadata": {"name": f"{name}.{reason.lower()}"},
        "involvedObject": {"kind": "Pod", "namespace": ns, "name": name, "uid": uid},
        "reason": reason,
        "message": message,
        "type": "Warning",
        "source": {"component": "podidentity-nmi"},
        "firstTimestamp": at,
        "lastTimestamp": at,
    }
    world.send("POST", f"/api/v1/namespaces/{ns}/events", body)

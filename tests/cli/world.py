"""A cluster and an Azure of the sandbox for the commands: real servers, no nodes' processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2

from podidentity_sandbox.plan import MINORS, Plan, Pool
from podidentity_sandbox.world.authority import write_certificates
from podidentity_sandbox.world.blueprint import Shape, draw_plan, write_kubeconfig

CUSTOM = "/apis/aadpodidentity.k8s.io/v1"


class Server:
    """The API server as its administrator has it, on one connection of the standard library's.

    A request takes a third of what it takes httpx2's client, and there are ten thousands of them.
    """

    def __init__(self, plan: Plan) -> None:
        tls = ssl.create_default_context(cafile=str(plan.ca_certificate))
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", plan.apiserver_port, timeout=60, context=tls
        )
        self._token = plan.admin_token
        self._one = threading.Lock()

    def ask(
        self, method: str, path: str, params: Mapping[str, str], body: object, kind: str
    ) -> tuple[int, str]:
        """Return the status and the body of an answer."""
        query = f"?{urlencode(params)}" if params else ""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        sent = None if body is None else json.dumps(body)
        with self._one:
            known = self._connection.sock
            if known is not None and select.select([known], [], [], 0)[0]:
                self._connection.close()  # so has the server, to which nothing was sent meanwhile
            self._connection.request(method, f"{path}{query}", sent, headers)
            with self._connection.getresponse() as answer:
                return answer.status, answer.read().decode()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


@dataclass(frozen=True)
class World:
    """Where the two servers are, and the administrator's and operator's hands."""

    plan: Plan
    api: httpx2.Client
    server: Server

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
        self.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

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
    folder: Path, pools: Sequence[Pool] = (), *, kubernetes_minor: int = MINORS[0]
) -> Iterator[World]:
    """Yield a world of two nodes, or of those of the pools; nothing of it remains."""
    with contextlib.ExitStack() as stack:
        api, https, imds, proxy = (stack.enter_context(_listener()) for _ in range(4))
        dns = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        dns.bind(("127.0.0.1", 0))
        plan = draw_plan(
            "cli",
            folder,
            Shape(rootless=True, kubernetes_minor=kubernetes_minor, pools=pools),
            apiserver_port=api.getsockname()[1],
            azure_proxy_port=proxy.getsockname()[1],
        )
        plan.save()
        write_certificates(plan)
        write_kubeconfig(plan)
        sockets = {"https-fd": https, "imds-fd": imds, "dns-fd": dns, "proxy-fd": proxy}
        for process in (
            _start("cluster", folder, {"listen-fd": [api.fileno()]}),
            _start("azure", folder, {name: [sock.fileno()] for name, sock in sockets.items()}),
        ):
            stack.callback(process.wait)
            stack.callback(process.terminate)
        client = httpx2.Client(
            base_url=f"https://127.0.0.1:{plan.apiserver_port}",
            headers={"Authorization": f"Bearer {plan.admin_token}"},
            verify=ssl.create_default_context(cafile=str(plan.ca_certificate)),
            trust_env=False,
            timeout=60,
        )
        world = World(plan, stack.enter_context(client), stack.enter_context(closing(Server(plan))))
        for node in plan.nodes:
            labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
            metadata = {"name": node.name, "labels": labels}
            body = {"metadata": metadata, "spec": {"providerID": node.provider_id}}
            world.send("POST", "/api/v1/nodes", body)
        yield world


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

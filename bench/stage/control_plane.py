"""A cluster without kubelets: the sandbox's API server and Azure, and `podidentity mic` beside.

Each is a process as anywhere else, and they meet over TLS in a network namespace (`ENTER`); there
are no nodes but Node objects, and no pods but Pod objects, so that twenty thousand fit. The figures
are of whole processes, and the API server has its share in them: a control that asks it for the
same without a controller says how large that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import aiohttp

from podidentity import manifests
from podidentity_sandbox.azure.client import AzureOperator, Json
from podidentity_sandbox.plan import AZURE_ADDRESS, DNS_ADDRESS, Plan, Pool, PoolKind
from podidentity_sandbox.world.authority import write_certificates
from podidentity_sandbox.world.blueprint import Shape, draw_plan, write_kubeconfig
from podidentity_sandbox.world.network import listen_tcp, listen_udp

ENTER = (
    *("unshare", "--map-root-user", "--net", "--mount", "sh", "-ec"),
    f"""
ip link set lo up
ip address add {AZURE_ADDRESS}/32 dev lo
ip address add {DNS_ADDRESS}/32 dev lo
mount -t tmpfs tmpfs /mnt
echo nameserver {DNS_ADDRESS} > /mnt/resolv.conf
mount --bind /mnt/resolv.conf /etc/resolv.conf
exec "$@"
""",
    "sh",
)
"""The words before a command that is to run where Azure is the sandbox's."""
SETS, NODES_OF_SET = 30, 20
IDENTITIES = 20
"""In Azure, and as AzureIdentities with a binding in each namespace."""
CUSTOM = "/apis/aadpodidentity.k8s.io/v1"
RECORDS = f"{CUSTOM}/azureassignedidentities"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/aad-pod-identity-mic"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_WRITERS = 8
_LIMIT = 1 << 24
"""Bytes of a line of a watch."""


@contextlib.contextmanager
def _served(module: str, plan: Plan, **listeners: socket.socket) -> Iterator[None]:
    """Run a part of the sandbox on these sockets until the end of the context."""
    reader, writer = os.pipe()
    fds = [each.fileno() for each in listeners.values()]
    options = [
        word for name, each in listeners.items() for word in (f"--{name}-fd", f"{each.fileno()}")
    ]
    program = [sys.executable, "-m", module, "--folder", plan.folder, *options]
    process = subprocess.Popen(
        [*program, "--ready-fd", str(writer)], pass_fds=(*fds, writer), stderr=subprocess.DEVNULL
    )
    os.close(writer)
    try:
        if os.read(reader, 64) != b"ready\n":
            sys.exit(f"{module} did not start")
        yield
    finally:
        os.close(reader)
        process.terminate()
        process.wait()


@contextlib.contextmanager
def served() -> Iterator[Plan]:
    """Run an API server, and an Azure with one node in each of the scale sets."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())

        def listen() -> socket.socket:
            return stack.enter_context(listen_tcp("127.0.0.1", 0))

        apiserver, proxy = listen(), listen()
        plan = draw_plan(
            "bench",
            Path(folder),
            Shape(
                rootless=True,
                pools=[Pool(kind=PoolKind.UNIFORM, nodes=1) for _ in range(SETS)],
            ),
            apiserver_port=apiserver.getsockname()[1],
            azure_proxy_port=proxy.getsockname()[1],
        )
        plan.save()
        write_certificates(plan)
        write_kubeconfig(plan)
        stack.enter_context(_served("podidentity_sandbox.cluster", plan, listen=apiserver))
        azure = {
            "https": stack.enter_context(listen_tcp(AZURE_ADDRESS, 443)),
            "imds": listen(),
            "dns": stack.enter_context(listen_udp(DNS_ADDRESS, 53)),
            "proxy": proxy,
        }
        stack.enter_context(_served("podidentity_sandbox.azure", plan, **azure))
        yield plan


@dataclass
class Mic:
    """A process of `podidentity mic`."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    began: float
    """Monotonic."""

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used: proc_pid_schedstat(5)."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9

    def memory(self, which: str) -> float:
        """Return `VmRSS` or `VmHWM`, the most that was, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{which}:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) / 1024 if found else float("nan")

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send a signal that ends it, and wait for that."""
        self.process.send_signal(number)
        self.process.wait(30)


@dataclass
class ControlPlane:
    """The cluster, and what the benchmark does in it."""

    plan: Plan
    session: aiohttp.ClientSession
    namespaces: int
    mics: list[Mic] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    """Pods that have a record, and what it says."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def up(cls, namespaces: int) -> AsyncIterator[Self]:
        """Bring everything up that is there before the first pod."""
        with served() as plan:
            headers = {"Authorization": f"Bearer {plan.admin_token}"}
            connector = aiohttp.TCPConnector(
                ssl=ssl.create_default_context(cafile=str(plan.ca_certificate)), limit=0
            )
            base = f"https://127.0.0.1:{plan.apiserver_port}"
            timeout = aiohttp.ClientTimeout(total=None)
            async with aiohttp.ClientSession(
                base,
                headers=headers,
                connector=connector,
                timeout=timeout,
                read_bufsize=_LIMIT,
            ) as session:
                self = cls(plan, session, namespaces)
                try:
                    await self._prepare()
                    yield self
                finally:
                    for mic in self.mics:
                        mic.process.kill()
                        mic.process.wait()
                    for task in self._tasks:
                        task.cancel()
                    await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _prepare(self) -> None:
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for each in manifests.crds():
            await self.request("POST", crds, each)
        async with AzureOperator(self.plan) as azure:
            await azure.create_group("identities")
            made = [
                await azure.create_identity("identities", f"identity-{number}")
                for number in range(IDENTITIES)
            ]
        for number in range(SETS * NODES_OF_SET):
            scale_set = self.plan.nodes[number % SETS].provider_id.rpartition("/")[0]
            spec = {"providerID": f"{scale_set}/{number // SETS}"}
            body = {"metadata": {"name": f"node-{number}"}, "spec": spec}
            await self.request("POST", "/api/v1/nodes", body)
        await self._permit()
        for place in range(self.namespaces):
            space = f"team-{place}"
            await self.request("POST", "/api/v1/namespaces", {"metadata": {"name": space}})
            binding = [
                self._bind(space, f"identity-{number}", identity)
                for number, identity in enumerate(made)
            ]
            await asyncio.gather(*binding)
        while await self._accounts() < self.namespaces:  # noqa: ASYNC110 - a server is asked
            await asyncio.sleep(0.1)
        self._tasks.append(asyncio.create_task(self._follow()))

    async def _accounts(self) -> int:
        """Return how many namespaces of ours have their default account, without which no pod is.

        A controller of the API server makes it a moment after the namespace.
        """
        path = "/api/v1/serviceaccounts?fieldSelector=metadata.name%3Ddefault"
        found = (await self.request("GET", path))["items"]
        return sum(each["metadata"]["namespace"].startswith("team-") for each in found)

    async def _permit(self) -> None:
        """Permit everybody everything: what is asked is asked all the same."""
        group = "rbac.authorization.k8s.io"
        rule = {
            "apiGroups": ["aadpodidentity.k8s.io"],
            "resources": ["azureidentities"],
            "verbs": ["use"],
        }
        role = {"metadata": {"name": "use"}, "rules": [rule]}
        await self.request("POST", f"{_RBAC}/clusterroles", role)
        who = {"kind": "Group", "name": "system:serviceaccounts", "apiGroup": group}
        ref = {"kind": "ClusterRole", "name": "use", "apiGroup": group}
        body = {"metadata": {"name": "use"}, "subjects": [who], "roleRef": ref}
        await self.request("POST", f"{_RBAC}/clusterrolebindings", body)

    async def _bind(self, space: str, name: str, identity: dict[str, str]) -> None:
        head: dict[str, Any] = {
            "apiVersion": "aadpodidentity.k8s.io/v1",
            "metadata": {"name": name, "namespace": space},
        }
        spec: dict[str, Any] = {
            "type": 0,
            "resourceID": identity["id"],
            "clientID": identity["clientId"],
        }
        path = f"{CUSTOM}/namespaces/{space}"
        body = {**head, "kind": "AzureIdentity", "spec": spec}
        await self.request("POST", f"{path}/azureidentities", body)
        spec = {"azureIdentity": name, "selector": name}
        body = {**head, "kind": "AzureIdentityBinding", "spec": spec}
        await self.request("POST", f"{path}/azureidentitybindings", body)

    async def request(self, method: str, path: str, body: object = None) -> Json:
        """Send a request to the API server; return what comes back."""
        async with self.session.request(method, path, json=body) as answer:
            text = await answer.text()
            if answer.status >= 400:
                sys.exit(f"{method} {path} was refused: {text}")
            return json.loads(text)

    # Pods.

    async def pods(self, numbers: range, *, bound: Callable[[int], bool]) -> None:
        """Make pods; those that are not bound have the label of nobody's binding."""
        waiting = iter(numbers)

        async def write() -> None:
            for number in waiting:
                await self.pod(number, bound=bound(number))

        await asyncio.gather(*(write() for _ in range(_WRITERS)))

    async def pod(
        self,
        number: int,
        *,
        bound: bool = True,
        node: int | None = None,
        identity: int | None = None,
    ) -> None:
        """Make a pod, by its number on any node and with any identity."""
        chosen = number if identity is None else identity
        value = f"identity-{chosen % IDENTITIES}" if bound else "nobody"
        place = number % (SETS * NODES_OF_SET) if node is None else node
        body = {
            "metadata": {"name": f"pod-{number}", "labels": {"aadpodidbinding": value}},
            "spec": {
                "nodeName": f"node-{place}",
                "containers": [{"name": "main", "image": "busybox"}],
            },
        }
        space = f"team-{number % self.namespaces}"
        await self.request("POST", f"/api/v1/namespaces/{space}/pods", body)

    async def _follow(self) -> None:
        """Keep `states` equal to the records."""
        listed = await self.request("GET", RECORDS)
        version = listed["metadata"]["resourceVersion"]
        while True:
            params = {"watch": "true", "resourceVersion": version}
            async with self.session.get(RECORDS, params=params) as answer:
                async for line in answer.content:
                    event = json.loads(line)
                    version = event["object"]["metadata"]["resourceVersion"]
                    async with self._changed:
                        self._note(event)
                        self._changed.notify_all()

    def _note(self, event: dict[str, Any]) -> None:
        record = event["object"]
        if event["type"] == "DELETED":
            self.states.pop(record["spec"]["pod"], None)
        else:
            self.states[record["spec"]["pod"]] = record["status"]["status"]

    async def until(self, holds: Callable[[], bool], seconds: float = 300) -> float:
        """Return the monotonic time at which a change of the records made it hold."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(holds)
            return time.monotonic()

    async def hop(self, name: str) -> float:
        """Return the seconds in which an object is made, and seen on a watch."""
        path = "/api/v1/namespaces/default/configmaps"
        listed = await self.request("GET", path)
        version = listed["metadata"]["resourceVersion"]
        params = {"watch": "true", "resourceVersion": version}
        async with self.session.get(path, params=params) as answer:
            began = time.monotonic()
            made = asyncio.create_task(self.request("POST", path, {"metadata": {"name": name}}))
            await answer.content.readline()
            took = time.monotonic() - began
            await made
            return took

    async def drop_records(self, pods: Sequence[str]) -> None:
        """Delete the records of pods."""
        wanted = {*pods}
        for each in (await self.request("GET", RECORDS))["items"]:
            if each["spec"]["pod"] in wanted:
                meta = each["metadata"]
                path = f"{CUSTOM}/namespaces/{meta['namespace']}/azureassignedidentities"
                await self.request("DELETE", f"{path}/{meta['name']}")

    # Controllers.

    def start(self, name: str, *flags: str) -> Mic:
        """Start a controller, signed in as the operator."""
        with listen_tcp("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        variables = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(self.plan.kubeconfig),
            "SSL_CERT_FILE": str(self.plan.ca_bundle),
            "CLIENT_SECRET": self.plan.operator_secret,
        }
        log = (self.plan.path / f"{name}.log").open("ab")
        with log:
            process = subprocess.Popen(
                [
                    *("podidentity", "mic", "--own-namespace=kube-system"),
                    f"--leader-election-instance={name}",
                    f"--azure-client-id={self.plan.operator_id}",
                    f"--azure-tenant-id={self.plan.tenant_id}",
                    *(f"--http-probe-port={port}", "--prometheus-port=0"),
                    *flags,
                ],
                env=variables,
                stderr=log,
                stdout=log,
            )
        mic = Mic(name, process, port, time.monotonic())
        self.mics.append(mic)
        return mic

    async def said(self, mic: Mic) -> dict[str, Any]:
        """Return what `/readyz` says; nothing while nobody answers."""
        try:
            async with self.session.get(f"http://127.0.0.1:{mic.port}/readyz") as answer:
                return json.loads(await answer.read())  # type: ignore[no-any-return] # an object
        except aiohttp.ClientError:
            return {}

    async def ready(self, mic: Mic) -> None:
        """Return when a controller could lead."""
        while not (await self.said(mic)).get("ready"):
            if mic.process.poll() is not None:
                sys.exit((self.plan.path / f"{mic.name}.log").read_text()[-3000:])
            await asyncio.sleep(0.1)

    async def idle(self, mic: Mic) -> None:
        """Return when no call of a controller has been under way for two seconds."""
        quiet = 0
        while quiet < 10:
            await asyncio.sleep(0.2)
            quiet = quiet + 1 if (await self.said(mic)).get("under_way") == 0 else 0

    async def lease(self) -> tuple[str, float]:
        """Return who holds the Lease, and until when, in seconds since 1970."""
        spec = (await self.request("GET", LEASE))["spec"]
        renewed = datetime.fromisoformat(spec["renewTime"]).timestamp()
        return spec["holderIdentity"] or "", renewed + spec["leaseDurationSeconds"]

"""A sandbox of two nodes in which MIC runs, signed in by federation."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from podidentity import manifests
from podidentity_sandbox.azure.arm.roles import ROLES
from podidentity_sandbox.azure.client import App, AzureOperator
from podidentity_sandbox.demo.prepare import GROUP, SECRET, SECRET_VALUE, VAULT, Prepared, prepare
from podidentity_sandbox.node.client import execute
from podidentity_sandbox.plan import ISSUER, stable_guid
from podidentity_sandbox.weather import Weather
from podidentity_sandbox.world.api import MERGE_PATCH
from podidentity_sandbox.world.apply import Applier
from tests.acceptance.directory import bound, manifest, pod
from tests.acceptance.sandbox import WEATHER, Sandbox, change_machines, opened
from tests.sandboxes import own

TOKEN = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01"
VAULTS = "https://vault.azure.net"
CUSTOM = "/apis/aadpodidentity.k8s.io/v1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
API = "aadpodidentity.k8s.io/v1"
BLOCKED = (
    "--block-instance-metadata",
    *(f"--metadata-allow=/metadata/{name}" for name in ("versions", "instance", "unknown")),
)
"""Flags of NMI by which it passes metadata on, but for what says too much of the machine."""
EXEMPT = {"tier": "exempt"}
SECONDS = 300.0
"""A scale set takes up to a minute to change, and MIC may have two changes to make; the machine of
the tests is busy."""


@dataclass
class Managed:
    """A managed identity that the tests made."""

    name: str
    resource_id: str
    client_id: str
    principal_id: str = ""


@dataclass(frozen=True)
class Reply:
    """What the metadata service answered, as curl printed it."""

    status: int
    headers: dict[str, str]
    """By their names in lower case."""
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Controlled:
    """The sandbox, and what the tests do in it."""

    sandbox: Sandbox
    azure: AzureOperator
    loop: asyncio.Runner
    made: Prepared
    app: App
    """As which MIC signs in."""
    identities: dict[str, Managed] = field(default_factory=dict)
    _readers: list[str] = field(default_factory=list)

    # Azure

    def identity(self, name: str) -> Managed:
        """Return the managed identity of that name, a reader of the vault; make it if need be."""
        if name not in self.identities:
            self.identities[name] = self.loop.run(self._make(name))
        return self.identities[name]

    async def _make(self, name: str) -> Managed:
        found = await self.azure.create_identity(GROUP, name)
        self._readers.append(found["principalId"])
        await self.azure.create_vault(GROUP, VAULT, readers=self._readers)
        return Managed(name, found["id"], found["clientId"].lower(), found["principalId"])

    def on_host(self) -> dict[str, Any]:
        """Return the scale set's identities as Azure has them: id in lower case → its block."""
        found = self.loop.run(self.azure.arm("GET", self.sandbox.plan.scale_set_id))
        block = found.get("identity") or {}
        return {
            each.lower(): ids for each, ids in (block.get("userAssignedIdentities") or {}).items()
        }

    def machine(self) -> dict[str, Any]:
        """Return the identities of the scale set as Azure shows them."""
        found = self.loop.run(self.azure.arm("GET", self.sandbox.plan.scale_set_id))
        return dict(found.get("identity") or {})

    def has(self, identity: Managed) -> bool:
        return identity.resource_id.lower() in self.on_host()

    def attach(self, identity: Managed, *, system: bool = False) -> None:
        """Attach an identity as an operator does, beside MIC; `system`: the machine's own, too."""
        self._patch({identity.resource_id: {}}, system=system)

    def detach(self, identity: Managed) -> None:
        """Detach an identity as an operator does, beside MIC."""
        self._patch({identity.resource_id: None})

    def _patch(self, user: dict[str, Any], *, system: bool = False) -> None:
        has_system = system or "SystemAssigned" in str(self.machine().get("type", "None"))
        kind = "SystemAssigned, UserAssigned" if has_system else "UserAssigned"
        body = {"identity": {"type": kind, "userAssignedIdentities": user}}
        self.loop.run(change_machines(self.azure, self.sandbox.plan.scale_set_id, body))

    # The cluster

    def apply(self, *objects: str) -> None:
        """Apply objects; do not wait for pods."""
        applier = Applier(self.sandbox.api, "default")
        for each in objects:
            applier.apply(json.loads(each))

    def hollow_nodes(self, number: int) -> list[str]:
        """Make Nodes of the scale set that have no kubelet; return their names."""
        names = [f"hollow-{each}" for each in range(number)]
        for instance, name in enumerate(names, start=100):
            provider = f"azure://{self.sandbox.plan.scale_set_id}/virtualMachines/{instance}"
            node = {"metadata": {"name": name}, "spec": {"providerID": provider}}
            self.create("/api/v1/nodes", node)
        return names

    def delete(self, path: str) -> None:
        """Delete an object of ours, `azureidentities/NAME`, or a pod, `pods/NAME`, of default."""
        self.request("DELETE", path)

    def request(self, method: str, path: str, body: Any = None, namespace: str = "default") -> Any:
        """Send a request about `RESOURCE/NAME` of a namespace; return what comes back."""
        api = "/api/v1" if path.partition("/")[0] in {"pods", "secrets"} else CUSTOM
        url = f"{api}/namespaces/{namespace}/{path}"
        return self.sandbox.api.request(method, url, body, content_type=MERGE_PATCH)

    def create(self, path: str, body: Any) -> Any:
        """Create an object at a path of the API server."""
        return self.sandbox.api.request("POST", path, body)

    def get(self, path: str) -> Any:
        """Return what is at a path of the API server."""
        return self.sandbox.api.request("GET", path)

    def bind(
        self, name: str, identity: Managed, namespace: str = "default", label: str = ""
    ) -> None:
        """Let pods with the label (the name) use an identity; MIC is to attach it."""
        if namespace != "default":
            self.apply(
                json.dumps(
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
                )
            )
        spec = {"type": 0, "resourceID": identity.resource_id, "clientID": identity.client_id}
        self.grant(identity, namespace)
        self.apply(*bound(name, namespace, label=label or name, **spec))

    def grant(self, identity: Managed, namespace: str = "default") -> None:
        command = ("podidentity", "grant", "--namespace", namespace)
        self.sandbox.run(*command, "--identity", identity.client_id)
        self.sandbox.until_granted(namespace, identity.client_id)

    def pod(
        self, name: str, label: str, namespace: str = "default", node: int | None = None
    ) -> None:
        body = json.loads(pod(name, namespace, label))
        if node is not None:
            body["spec"]["nodeName"] = self.sandbox.plan.nodes[node].name
        self.apply(json.dumps(body))

    def records(self, pod: str = "", namespace: str = "") -> list[dict[str, Any]]:
        """Return the AzureAssignedIdentities, of a pod or all."""
        found = self.get(f"{CUSTOM}/azureassignedidentities")["items"]
        return [
            each
            for each in found
            if (not pod or each["spec"]["pod"] == pod)
            and (not namespace or each["spec"]["podNamespace"] == namespace)
        ]

    def condition(self, path: str, namespace: str = "default") -> dict[str, Any]:
        """Return the condition that MIC writes of `RESOURCE/NAME`; {} while it has none."""
        found = self.request("GET", path, namespace=namespace).get("status", {})
        told = [
            each for each in found.get("conditions", ()) if each["type"] in {"Ready", "Effective"}
        ]
        return dict(told[0]) if told else {}

    def states(self, pod: str = "", namespace: str = "") -> list[str]:
        return sorted(each["status"]["status"] for each in self.records(pod, namespace))

    def until(self, holds: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
        """Return when it holds; fail with what is there instead."""
        ends = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < ends, f"{what}\n{self.told()}"
            time.sleep(0.3)

    def assigned(self, *pods: str, namespace: str = "") -> None:
        """Return when all records of these pods say Assigned, and there are some."""

        def are() -> bool:
            found = [each for each in self.records("", namespace) if each["spec"]["pod"] in pods]
            states = {each.get("status", {}).get("status") for each in found}
            return {each["spec"]["pod"] for each in found} == set(pods) and states == {"Assigned"}

        self.until(are, f"{pods} are not Assigned")

    def told(self) -> str:
        """Return what a person would look at."""
        seen = [
            json.dumps([(each["metadata"]["name"], each["status"]) for each in self.records()]),
            json.dumps(sorted(self.on_host())),
            json.dumps(self.get(f"{CUSTOM}/azureidentityledgers")["items"])[:2000],
        ]
        for each in self.mics():
            name = each["metadata"]["name"]
            log = self.sandbox.run("kubectl", "logs", "-n", "kube-system", name, "--tail=40")
            seen.append(f"{name}: {log}")
        return "\n".join(seen)

    def pods_of(self, component: str) -> list[dict[str, Any]]:
        """Return all pods of MIC, or of NMI."""
        selector = f"labelSelector=app.kubernetes.io/component={component}"
        found: list[dict[str, Any]] = self.get(f"/api/v1/namespaces/kube-system/pods?{selector}")[
            "items"
        ]
        return found

    def mics(self) -> list[dict[str, Any]]:
        """Return MIC's pods that are not being stopped."""
        found = self.pods_of("mic")
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def leader(self) -> str:
        """Return the pod that holds the Lease."""
        lease = self.get(f"{LEASES}/aad-pod-identity-mic")
        return str(lease["spec"].get("holderIdentity", ""))

    def checked(self) -> set[str]:
        """Return the reasons of what `podidentity check` finds."""
        return {each["reason"] for each in self.sandbox.check()}

    def stop(self, mic: str, seconds: int = 15) -> None:
        """Delete a pod of MIC; without `seconds` it has no time to hand over."""
        path = f"/api/v1/namespaces/kube-system/pods/{mic}?gracePeriodSeconds={seconds}"
        self.sandbox.api.request("DELETE", path)

    def followers(self, leader: str) -> list[str]:
        """Stop a leader; return who holds the Lease after it, to the next one: "" is nobody."""
        lease = self.get(f"{LEASES}/aad-pod-identity-mic")
        version = lease["metadata"]["resourceVersion"]
        self.stop(leader)
        held: list[str] = []
        while not any(held):
            for _, each in self.sandbox.api.watch(LEASES, version, SECONDS):
                version = each["metadata"]["resourceVersion"]
                holder = each["spec"].get("holderIdentity", "")
                if each["metadata"]["name"] == lease["metadata"]["name"] and holder != leader:
                    held.append(holder)
                if any(held):
                    break
        return held

    def leads_another(self, than: str) -> bool:
        return self.leader() not in {"", than}

    # Pods

    def ask(
        self, pod: str, namespace: str = "default", seconds: int = 90, /, **by: str
    ) -> tuple[int, dict[str, Any]]:
        """Ask for a token in a pod; return status and body."""
        return _answer(self.inside(pod, _asking(seconds, by), namespace))

    def metadata(
        self, pod: str, path: str, namespace: str = "default", *, header: str = "Metadata:true"
    ) -> Reply:
        """Ask for a path below `/metadata/` in a pod; without `header` with none of ours."""
        headers = f"-H {header} " if header else ""
        said = self.inside(
            pod, f"curl -s -i -m 110 {headers}'http://169.254.169.254/metadata/{path}'", namespace
        )
        head, _, body = said.partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        return Reply(int(first.split()[1]), {name.lower(): text for name, _, text in pairs}, body)

    def ask_all(self, pods: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
        """Ask for a token in each of these pods of default, at once."""

        async def asked() -> list[str]:
            return await asyncio.gather(*(self._inside(each, _asking(90, {})) for each in pods))

        return [_answer(each) for each in self.loop.run(asked())]

    def works(self, pod: str, namespace: str = "default", **by: str) -> None:
        """Have the pod read the vault's secret with a token of its identity."""
        self.running(pod, namespace=namespace)
        status, body = self.ask(pod, namespace, 90, **by)
        assert status == 200, (body, self.told())
        read = f"https://{VAULT}.vault.azure.net/secrets/{SECRET}?api-version=7.4"
        token = body["access_token"]
        said = self.inside(
            pod, f"curl -s -m 60 -H 'Authorization: Bearer {token}' '{read}'", namespace
        )
        assert json.loads(said).get("value") == SECRET_VALUE, said

    def running(self, *pods: str, namespace: str = "default") -> None:
        wait = ("kubectl", "wait", "--for=condition=Ready", f"--timeout={SECONDS:g}s")
        self.sandbox.run(*wait, "-n", namespace, *(f"pod/{each}" for each in pods))

    def inside(self, pod: str, command: str, namespace: str = "default") -> str:
        return self.loop.run(self._inside(pod, command, namespace))

    async def _inside(self, pod: str, command: str, namespace: str = "default") -> str:
        shell = ["sh", "-c", command]
        ran = await execute(self.sandbox.plan, namespace, pod, shell, timeout=SECONDS)
        return ran.stdout.decode() + ran.stderr.decode()


def _asking(seconds: int, by: Mapping[str, str]) -> str:
    """Return the command that asks for a token."""
    more = "".join(f"&{name}={value}" for name, value in by.items())
    url = f"{TOKEN}&resource={VAULTS}{more}"
    return f"curl -s -m {seconds} -w '\\n%{{http_code}}' -H Metadata:true '{url}'"


def _answer(said: str) -> tuple[int, dict[str, Any]]:
    body, _, status = said.rpartition("\n")
    return int(status), json.loads(body or "{}")


async def give_roles(azure: AzureOperator, sandbox: Sandbox, principal: str) -> list[str]:
    """Let MIC change the node's machines and assign the identities of the group.

    Returns the ids of the role assignments.
    """
    machines = sandbox.plan.scale_set_id.partition("/providers/")[0]
    wanted = {
        "Managed Identity Operator": f"{azure.subscription}/resourceGroups/{GROUP}",
        "Virtual Machine Contributor": machines,
    }
    made = []
    for name, scope in wanted.items():
        (role,) = (each for each in ROLES if each.name == name)
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
        body = {"properties": {"roleDefinitionId": role.id, "principalId": principal}}
        made.append(f"{path}/{stable_guid(scope, principal)}")
        await azure.arm("PUT", made[-1], body)
    return made


@contextmanager
def prepared(name: str, *, nodes: int = 1, weather: Weather = WEATHER) -> Iterator[Controlled]:
    """Bring a sandbox up in which MIC may sign in as an application; it does not run yet."""
    with opened(own(name), nodes=nodes, weather=weather) as (sandbox, azure, loop):
        made = loop.run(prepare(sandbox.plan))
        app = loop.run(azure.make_app("mic"))
        loop.run(give_roles(azure, sandbox, app.principal_id))
        yield Controlled(sandbox, azure, loop, made, app)


@contextmanager
def controlled(
    name: str,
    *flags: str,
    nmi: Sequence[str] = (),
    nodes: int = 2,
    weather: Weather = WEATHER,
) -> Iterator[Controlled]:
    """Bring a sandbox up in which MIC runs with these flags, signed in by federation.

    `nmi` are flags of NMI.

    The identity `kept` is one that MIC must never detach (`--immutable-user-msis`).
    """
    with prepared(name, nodes=nodes, weather=weather) as found:
        azure, app = found.azure, found.app
        subject = f"system:serviceaccount:{manifests.NAMESPACE}:podidentity-mic"
        found.loop.run(azure.add_federated_credential(app, "mic", issuer=ISSUER, subject=subject))
        sign_in = (
            f"--azure-client-id={app.client_id}",
            f"--azure-tenant-id={found.sandbox.plan.tenant_id}",
        )
        immutable = f"--immutable-user-msis={found.identity('kept').client_id}"
        install(found.sandbox, *sign_in, immutable, *flags, nmi=nmi)
        yield found


def install(
    sandbox: Sandbox, *flags: str, nmi: Sequence[str] = (), options: Sequence[str] = ()
) -> None:
    """Enable pod identity with MIC; `nmi` are all flags of NMI, `options` more of `enable`."""
    sandbox.run(
        *("podidentity", "enable", "--mic", "--forget=nmi-arg", *options),
        *(f"--mic-arg={flag}" for flag in flags),
        *(f"--nmi-arg={flag}" for flag in nmi),
    )


def exempt(namespace: str) -> list[str]:
    """Return an AzurePodIdentityException and a pod that it is about, `exempt`."""
    containers = {"containers": [{"name": "main", "image": "idle"}]}
    labels = {"labels": EXEMPT}
    spec = {"podLabels": EXEMPT}
    return [
        manifest(API, "AzurePodIdentityException", "exempt", namespace, spec=spec),
        manifest("v1", "Pod", "exempt", namespace, metadata=labels, spec=containers),
    ]


def of_type_0(name: str, resource_id: str, identity: Managed) -> str:
    """Return an AzureIdentity of namespace default with this resource id."""
    spec = {"type": 0, "resourceID": resource_id, "clientID": identity.client_id}
    return manifest(API, "AzureIdentity", name, spec=spec)


def names(objects: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(each["metadata"]["name"] for each in objects)


__all__ = [
    "API",
    "BLOCKED",
    "Controlled",
    "Managed",
    "controlled",
    "exempt",
    "give_roles",
    "install",
    "manifest",
    "names",
    "of_type_0",
    "prepared",
]

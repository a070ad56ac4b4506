"""A sandbox in which NMI is restarted with other flags, for the archived suite's scenarios."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import GROUP, SECRET, VAULT, Prepared, prepare
from tests.acceptance.directory import manifest
from tests.acceptance.sandbox import Sandbox, change_machines

API = "aadpodidentity.k8s.io/v1"
TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
READ = (
    f"curl -s -m 60 -H 'Authorization: Bearer {{token}}' "
    f"'https://{VAULT}.vault.azure.net/secrets/{SECRET}?api-version=7.4'"
)
CURL = "curl -s -i -m 110 {header} 'http://169.254.169.254{path}'"


@dataclass(frozen=True)
class Reply:
    """What curl printed, taken apart."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Scenario:
    """The sandbox, and what was made in its Azure before."""

    place: Sandbox
    azure: AzureOperator
    made: Prepared
    other: str
    """Client id of a second identity."""
    other_id: str
    """Its resource id."""

    @property
    def node(self) -> str:
        return self.place.plan.nodes[0].name

    def enable(self, *flags: str) -> None:
        """Restart NMI with these flags after its usual ones; return when it is ready."""
        given = [f"--nmi-arg={flag}" for flag in flags]
        self.place.run("podidentity", "enable", "--forget=nmi-arg", *given)

    async def give_node_its_own(self) -> None:
        """Give the node's machine an identity of its own beside those of its pods."""
        kind = {"identity": {"type": "SystemAssigned, UserAssigned"}}
        await change_machines(self.azure, self.place.plan.scale_set_id, kind)

    def bind(self, namespace: str, name: str, resource_id: str) -> None:
        """Let pods of a namespace with this label use an identity, which comes to the node."""
        if namespace != "default":
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            self.apply(json.dumps(made))
        self.place.add(namespace, name, "--identity-resource-id", resource_id)

    def apply(self, *objects: str) -> None:
        self.place.apply(*objects)

    def delete(self, *what: str) -> None:
        self.place.run("kubectl", "delete", *what)

    def record(self, pod: str, identity: str, state: str) -> str:
        """Return the controller's word about a pod of namespace default."""
        return manifest(
            API,
            "AzureAssignedIdentity",
            f"{pod}-default-{identity}",
            metadata={"labels": {"nodename": self.node}},
            spec={
                "pod": pod,
                "podNamespace": "default",
                "nodename": self.node,
                "azureIdentityRef": {
                    "apiVersion": API,
                    "kind": "AzureIdentity",
                    "metadata": {"name": identity, "namespace": "default"},
                },
            },
            status={"status": state, "availableReplicas": 1},
        )

    def with_init(self, name: str, command: str) -> str:
        """Return a pod whose init container runs a shell command; it shares /kept with the pod."""
        mount = [{"name": "kept", "mountPath": "/kept"}]
        return manifest(
            "v1",
            "Pod",
            name,
            metadata={"labels": {"aadpodidbinding": "orders"}},
            spec={
                "initContainers": [
                    {
                        "name": "first",
                        "image": "curl",
                        "command": ["sh", "-c", command],
                        "volumeMounts": mount,
                    }
                ],
                "containers": [{"name": "main", "image": "idle", "volumeMounts": mount}],
                "volumes": [{"name": "kept", "emptyDir": {}}],
            },
        )

    async def read(self, token: str) -> str:
        """Read the vault's secret in a pod; return its value."""
        value: str = json.loads(await self.inside("app", READ.format(token=token)))["value"]
        return value

    async def inside(self, pod: str, command: str, namespace: str = "default") -> str:
        ran = await self.place.shell(command, 115, pod=pod, namespace=namespace)
        return ran.stdout.decode() + ran.stderr.decode()

    async def ask(
        self,
        path: str = TOKEN,
        *,
        pod: str = "app",
        namespace: str = "default",
        header: str = "-H Metadata:true",
    ) -> Reply:
        """Ask for a path of the metadata service in a pod."""
        said = await self.inside(pod, CURL.format(header=header, path=path), namespace)
        head, _, body = said.partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        return Reply(int(first.split()[1]), {name.lower(): text for name, _, text in pairs}, body)


async def set_scene(place: Sandbox, azure: AzureOperator) -> Scenario:
    """Make what the scenarios need in Azure; pod identity is enabled, nothing is bound."""
    made = await prepare(place.plan)
    place.run("podidentity", "enable")
    second = await azure.create_identity(GROUP, "second")
    return Scenario(place, azure, made, second["clientId"].lower(), second["id"])

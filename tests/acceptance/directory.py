"""A sandbox in which identities of every type read one vault."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from podidentity.manifests import account_tokens
from podidentity_sandbox.azure.client import App, AzureOperator
from podidentity_sandbox.demo.prepare import GROUP, SECRET, VAULT, prepare
from podidentity_sandbox.plan import ISSUER
from tests.acceptance.sandbox import PATIENCE, Sandbox
from tests.principals import certificate_of, pem_of, pfx_of, rsa_key

URL = (
    "http://169.254.169.254/metadata/identity/oauth2/token"
    "?api-version=2018-02-01&resource={resource}&client_id={client_id}"
)
ASK = "curl -s -m 60 -w '\\n%{{http_code}}' -H Metadata:true '{url}'"
READ = (
    f"curl -s -m 60 -H 'Authorization: Bearer {{token}}' "
    f"'https://{VAULT}.vault.azure.net/secrets/{SECRET}?api-version=7.4'"
)
PASSWORD = b"pass-word"
ACCOUNTS = "podidentity-identities"
"""The namespace of the service accounts of identities with a subject of their own."""


def manifest(api: str, kind: str, name: str, namespace: str = "default", **more: Any) -> str:
    """Return an object as JSON, which is YAML."""
    metadata = {"name": name, "namespace": namespace, **more.pop("metadata", {})}
    return json.dumps({"apiVersion": api, "kind": kind, "metadata": metadata, **more})


def secret(name: str, namespace: str = "default", /, **entries: bytes) -> str:
    data = {key: b64encode(value).decode() for key, value in entries.items()}
    return manifest("v1", "Secret", name, namespace, data=data)


def bound(name: str, namespace: str = "default", *, label: str = "bound", **spec: Any) -> list[str]:
    """Return an AzureIdentity and its binding to pods with the label."""
    api = "aadpodidentity.k8s.io/v1"
    names = {"azureIdentity": name, "selector": label}
    return [
        manifest(api, "AzureIdentity", name, namespace, spec=spec),
        manifest(api, "AzureIdentityBinding", name, namespace, spec=names),
    ]


def pod(name: str, namespace: str = "default", label: str = "bound", account: str = "") -> str:
    spec: dict[str, Any] = {"containers": [{"name": "main", "image": "idle"}]}
    spec |= {"serviceAccountName": account} if account else {}
    labels = {"labels": {"aadpodidbinding": label}} if label else {}
    return manifest("v1", "Pod", name, namespace, metadata=labels, spec=spec)


@dataclass
class Directory:
    """The sandbox and what was registered in its Entra, by the identity's name."""

    place: Sandbox
    azure: AzureOperator
    apps: dict[str, App] = field(default_factory=dict)
    client_ids: dict[str, str] = field(default_factory=dict)
    readers: list[str] = field(default_factory=list)
    managed: str = ""
    """Resource id of the identity that is on the node."""

    def apply(self, *objects: str) -> None:
        self.place.apply(*objects)

    def grant(self, namespace: str, identity: str) -> None:
        """Grant it, and return when the API server counts it: real ones take a moment."""
        self.place.run(*("podidentity", "grant", "--namespace", namespace, "--identity", identity))
        self.place.until_granted(namespace, identity)

    async def inside(self, pod: str, command: str, namespace: str = "default") -> str:
        ran = await self.place.shell(command, pod=pod, namespace=namespace)
        return ran.stdout.decode() + ran.stderr.decode()

    async def token(
        self,
        client_id: str,
        *,
        pod: str = "app",
        namespace: str = "default",
        resource: str = "https://vault.azure.net",
    ) -> tuple[int, dict[str, Any]]:
        """Ask for a token in a pod; return status and body."""
        url = URL.format(resource=resource, client_id=client_id)
        said = await self.inside(pod, ASK.format(url=url), namespace)
        body, _, status = said.rpartition("\n")
        return int(status), json.loads(body)

    async def read(self, client_id: str, *, pod: str = "app") -> Any:
        """Read the vault's secret in a pod, with a token that it asked for; return its value."""
        status, body = await self.token(client_id, pod=pod)
        assert status == 200, body
        return await self.read_with(body["access_token"], pod=pod)

    async def read_with(self, token: str, *, pod: str = "app") -> Any:
        return json.loads(await self.inside(pod, READ.format(token=token)))["value"]

    async def app(self, name: str) -> App:
        """Register an application that may read the vault."""
        made = self.apps[name] = await self.azure.make_app(name)
        self.client_ids[name] = made.client_id
        self.readers.append(made.principal_id)
        return made

    async def trust(self, owner: App | str, name: str, namespace: str, account: str) -> None:
        """Let the cluster's tokens for a service account sign in an app or an identity."""
        subject = f"system:serviceaccount:{namespace}:{account}"
        await self.azure.add_federated_credential(owner, name, issuer=ISSUER, subject=subject)

    def let_nmi_ask_for(self, name: str) -> None:
        """Let NMI ask for tokens of the identity's own account: it may not ask for every one."""
        self.apply(
            *map(json.dumps, account_tokens(own_account("default", name), accounts=ACCOUNTS))
        )

    async def until_known(self, *names: str) -> None:
        """Return when no one refuses these: Entra knows a credential later, the cluster a right."""
        async with asyncio.timeout(PATIENCE):
            for name in names:
                pod = "annotated" if name == "annotated" else "app"
                while await self._refused(name, pod):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(1)

    async def _refused(self, name: str, pod: str) -> bool:
        told = str(await self.token(self.client_ids[name], pod=pod))
        return "AADSTS" in told or "does not let NMI" in told

    async def entra_calls(self, client_id: str) -> list[dict[str, Any]]:
        """Return what reached Entra of a client."""
        found = await self.azure.entra_requests()
        return [each for each in found if each["client_id"] == client_id]


async def register(
    place: Sandbox, azure: AzureOperator, *, unserved: Collection[str] = ()
) -> Directory:
    """Make identities of every type, bound to the pods labelled `bound` of namespace default.

    Those that NMI cannot serve yet are not asked for.
    """
    prepared = await prepare(place.plan)
    found = Directory(place, azure, managed=prepared.identity_id)
    home = azure.tenants.home.id
    objects: list[str] = []
    own = certificate_of(rsa_key(), "orders", starts=0, ends=4_000_000_000)
    kept = await azure.add_secret(await found.app("by-secret"))
    entries = {
        "by-secret": {"clientSecret": kept.value.encode()},
        "by-pfx": {"certificate": pfx_of(rsa_key(), own, password=PASSWORD), "password": PASSWORD},
        "by-pem": {"orders.pem": pem_of(rsa_key(), own)},
    }
    for number, name in enumerate(entries):
        app = found.apps.get(name) or await found.app(name)
        if number:
            await azure.add_certificate(app, pem_of(rsa_key(), own))
        objects.append(secret(name, **entries[name]))
        objects += bound(
            name,
            type=1 if not number else 2,
            clientID=app.client_id,
            objectID=app.principal_id,
            tenantID=home,
            clientPassword={"name": name},
        )
    objects += await _federated(found)
    await azure.create_vault(GROUP, VAULT, readers=[*found.readers])
    found.apply(*objects)
    for client_id in found.client_ids.values():
        found.grant("default", client_id)
    if "by-identity" not in unserved:
        found.let_nmi_ask_for("by-identity")
    found.apply(pod("app"), pod("annotated", label="", account="annotated"))
    federated = ("by-pod", "by-identity", "via", "annotated")
    await found.until_known(*(name for name in federated if name not in unserved))
    return found


async def _federated(found: Directory) -> list[str]:
    azure, home = found.azure, found.azure.tenants.home.id
    objects = []
    by_pod, by_identity = await found.app("by-pod"), await found.app("by-identity")
    await found.trust(by_pod, "pod", "default", "default")
    account = own_account("default", "by-identity")
    await found.trust(by_identity, "identity", ACCOUNTS, account)
    objects.append(json.dumps(_namespace(ACCOUNTS)))
    objects.append(manifest("v1", "ServiceAccount", account, ACCOUNTS))
    for app, federation in ((by_pod, {}), (by_identity, {"subject": "identity"})):
        more: dict[str, Any] = {"federation": federation} if federation else {}
        objects += bound(app.name, type=3, clientID=app.client_id, tenantID=home, **more)
    objects += await _via(found)
    wi = await azure.create_identity(GROUP, "annotated")
    found.client_ids["annotated"] = wi["clientId"]
    found.readers.append(wi["principalId"])
    await found.trust(wi["id"], "annotated", "default", "annotated")
    told = {"azure.workload.identity/client-id": wi["clientId"]}
    told["azure.workload.identity/tenant-id"] = home
    objects.append(manifest("v1", "ServiceAccount", "annotated", metadata={"annotations": told}))
    return objects


async def _via(found: Directory) -> list[str]:
    """Let the managed identity of the node sign in an application of the partner's tenant."""
    azure, managed = found.azure, found.managed
    app = found.apps["via"] = await azure.make_app("via", multi_tenant=True)
    found.client_ids["via"] = app.client_id
    await azure.provision(app, azure.tenants.partner)
    identity = await azure.arm("GET", managed, version="2024-11-30")
    await azure.add_federated_credential(
        app,
        "managed",
        issuer=azure.tenants.home.issuer_v2,
        subject=identity["properties"]["principalId"],
    )
    found.place.add("default", "managed", "--identity-resource-id", managed)
    found.grant("default", managed)
    return bound(
        "via",
        type=3,
        clientID=app.client_id,
        tenantID=azure.tenants.partner.id,
        federation={"via": managed},
    )


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def own_account(namespace: str, name: str) -> str:
    """Return the service account of an identity's own, as docs/reference/nmi.md says it."""
    return f"podidentity-{sha256(f'{namespace}/{name}'.encode()).hexdigest()[:32]}"

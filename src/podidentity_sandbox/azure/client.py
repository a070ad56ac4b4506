"""A small client of the sandbox's Azure, for the demo and tests: the operator, by the proxy.

Each arrangement of the story is one call; everything else is `arm`. It speaks to ARM and Key
Vault as any client does, with the operator's own token, and to the control socket.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from podidentity_sandbox import weather
from podidentity_sandbox.azure.arm.roles import BLOB_CONTRIBUTOR
from podidentity_sandbox.azure.arm.versions import newest, type_of
from podidentity_sandbox.azure.control import SOCKET
from podidentity_sandbox.azure.seed import operator_object_id
from podidentity_sandbox.azure.tenants import EXCHANGE, Tenant, tenants_of
from podidentity_sandbox.plan import Plan, stable_guid

ARM = "https://management.azure.com"
VAULT = "https://vault.azure.net"
STORAGE = "https://storage.azure.com"
_TRIES, _PAUSE = 5, 0.5
_BLOB_VERSION = {"x-ms-version": "2021-12-02"}
_SKU = {"name": "Standard_LRS"}
_CREDENTIALS = "federatedIdentityCredentials"

Json: TypeAlias = Any
"""The value of json.loads: callers know which fields are there."""


class AzureError(Exception):
    """Azure refused: its status, code and words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A successful answer."""

    status: int
    headers: Mapping[str, str]
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An app registration."""

    name: str
    client_id: str
    object_id: str
    """Of the registration."""
    principal_id: str
    """Object id of its service principal at home."""
    tenant: Tenant
    """Its home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSecret:
    """A new secret of an application."""

    value: str = field(repr=False)


class AzureOperator:
    """The owner of the sandbox's subscription. An async context manager."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._proxy = f"http://127.0.0.1:{plan.azure_proxy_port}"
        self._trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
        self.tenants = tenants_of(plan)
        self._tokens: dict[tuple[str, str], str] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        connector = aiohttp.UnixConnector(path=str(self._plan.path / SOCKET))
        self._control = aiohttp.ClientSession("http://azure.sandbox", connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._control.close()

    # Resources and what they hold

    @property
    def subscription(self) -> str:
        return f"/subscriptions/{self._plan.subscription_id}"

    async def arm(self, method: str, path: str, body: object = None, *, version: str = "") -> Json:
        """Call ARM and wait until the operation has ended; return the body. Raises AzureError.

        `version` is the api-version, by default the newest one of the resource's type.
        """
        dated = version or newest(type_of(path.partition("?")[0]))
        url = f"{ARM}{path}{'&' if '?' in path else '?'}api-version={dated}"
        begun = answer = await self._call(method, url, body, resource=f"{ARM}/")
        while where := begun.headers.get("Azure-AsyncOperation"):
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
            answer = await self._call("GET", where, resource=f"{ARM}/")
            if (status := answer.body["status"]) == "Succeeded":
                break
            if status != "InProgress":
                raise AzureError(answer.status, status, str(answer.body.get("error", "")))
        return begun.body

    def _path(self, group: str, kind: str, name: str) -> str:
        return f"{self.subscription}/resourceGroups/{group}/providers/{kind}/{name}"

    async def create_group(self, name: str) -> str:
        path = f"{self.subscription}/resourcegroups/{name}"
        return str((await self.arm("PUT", path, {"location": self._plan.location}))["id"])

    async def create_identity(self, group: str, name: str) -> dict[str, str]:
        """Make a user-assigned identity; return its id, clientId, principalId and tenantId."""
        path = self._path(group, "Microsoft.ManagedIdentity/userAssignedIdentities", name)
        made = await self.arm("PUT", path, {"location": self._plan.location})
        return {"id": made["id"], **made["properties"]}

    async def create_vault(self, group: str, name: str, readers: Sequence[str] = ()) -> str:
        """Make a key vault, or set its policies; return its URI.

        The operator may do everything with its secrets, the principals of the object ids in
        `readers` may get them.
        """
        grants = {operator_object_id(self._plan): ["all"]} | {who: ["get"] for who in readers}
        tenant = self._plan.tenant_id
        policies = [
            {"tenantId": tenant, "objectId": who, "permissions": {"secrets": what}}
            for who, what in grants.items()
        ]
        properties = {
            "tenantId": tenant,
            "sku": {"family": "A", "name": "standard"},
            "accessPolicies": policies,
            "enableRbacAuthorization": False,
        }
        path = self._path(group, "Microsoft.KeyVault/vaults", name)
        body = {"location": self._plan.location, "properties": properties}
        return str((await self.arm("PUT", path, body))["properties"]["vaultUri"])

    async def create_account(self, group: str, name: str, writers: Sequence[str] = ()) -> str:
        """Make a storage account, or find it; return its id.

        The principals of the object ids in `writers`, and the operator, may do everything with its
        blobs.
        """
        account = self._path(group, "Microsoft.Storage/storageAccounts", name)
        body = {"location": self._plan.location, "kind": "StorageV2", "sku": _SKU}
        await self.arm("PUT", account, body)
        for who in (operator_object_id(self._plan), *writers):
            assignment = stable_guid(account, who)
            path = f"{account}/providers/Microsoft.Authorization/roleAssignments/{assignment}"
            role = {"roleDefinitionId": BLOB_CONTRIBUTOR.id, "principalId": who}
            await self.arm("PUT", path, {"properties": role})
        return account

    async def create_container(self, account: str, name: str) -> None:
        url = f"https://{account}.blob.core.windows.net/{name}?restype=container"
        await self._call("PUT", url, resource=STORAGE)

    async def put_secret(self, vault: str, name: str, value: str) -> None:
        url = f"https://{vault}.vault.azure.net/secrets/{name}?api-version=7.4"
        await self._call("PUT", url, {"value": value}, resource=VAULT)

    # App registrations and federated credentials

    async def make_app(
        self, name: str, *, tenant: Tenant | None = None, multi_tenant: bool = False
    ) -> App:
        """Register an application, with its service principal; at home unless `tenant` says else.

        `tenants` has them all: home, partner, government, china.
        """
        where = tenant or self.tenants.home
        audience = "AzureADMultipleOrgs" if multi_tenant else "AzureADMyOrg"
        wanted = {"displayName": name, "signInAudience": audience}
        made = await self.graph("POST", "applications", wanted, tenant=where)
        principal = await self.graph(
            "POST", "servicePrincipals", {"appId": made["appId"]}, tenant=where
        )
        return App(
            name=name,
            client_id=made["appId"],
            object_id=made["id"],
            principal_id=principal["id"],
            tenant=where,
        )

    async def provision(self, app: App, tenant: Tenant) -> str:
        """Make the service principal of an app in another tenant; return its object id there."""
        body = {"appId": app.client_id}
        return str((await self.graph("POST", "servicePrincipals", body, tenant=tenant))["id"])

    async def add_secret(self, app: App) -> AppSecret:
        """Give an app one more secret, which holds from now on for two years."""
        asked = {"displayName": app.name}
        made = await self._on(app, "POST", "/addPassword", {"passwordCredential": asked})
        return AppSecret(value=made["secretText"])

    async def add_certificate(self, app: App, pem: bytes) -> None:
        """Register a certificate, PEM, of an app; those that it has stay."""
        der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        have = (await self._on(app, "GET", ""))["keyCredentials"]
        new = {"type": "AsymmetricX509Cert", "usage": "Verify"}
        new["key"] = base64.b64encode(der).decode()
        await self._on(app, "PATCH", "", {"keyCredentials": [*have, new]})

    async def add_federated_credential(
        self, owner: App | str, name: str, *, issuer: str, subject: str
    ) -> None:
        """Let tokens of `issuer` for `subject` sign in an app, or an identity by its resource id.

        Of the sandbox's cluster the issuer is `plan.ISSUER`, a subject
        `system:serviceaccount:NAMESPACE:NAME`. A credential of an identity is replaced by one of
        the same name. Raises AzureError.
        """
        wanted = {"issuer": issuer, "subject": subject, "audiences": [EXCHANGE]}
        if isinstance(owner, App):
            await self._on(owner, "POST", f"/{_CREDENTIALS}", {"name": name, **wanted})
        else:
            await self.arm("PUT", f"{owner}/{_CREDENTIALS}/{name}", {"properties": wanted})

    async def graph(
        self, method: str, path: str, body: object = None, *, tenant: Tenant | None = None
    ) -> Json:
        """Call Graph in a tenant; `path` is below /v1.0/. Raises AzureError."""
        where = tenant or self.tenants.home
        host = f"https://{where.cloud.graph}"
        url = f"{host}/v1.0/{path}"
        return (await self._call(method, url, body, resource=host, tenant=where)).body

    async def _on(self, app: App, method: str, below: str, body: object = None) -> Json:
        path = f"applications/{app.object_id}{below}"
        return await self.graph(method, path, body, tenant=app.tenant)

    # The control socket: what Azure does not offer

    async def imds_requests(self) -> list[dict[str, Any]]:
        """Return every request that reached IMDS since the journal was cleared.

        Each has time, node, source, method, target, headers (names in lower case) and status.
        """
        return await self._requests("/imds/requests")

    async def clear_imds_requests(self) -> None:
        await self._order("DELETE", "/imds/requests")

    def weather(self, *settings: str) -> None:
        """Change the weather: `roles=120`, `imds=[{effect: hang}]`; it holds from now on."""
        weather.write(self._plan.path, weather.changed(weather.read(self._plan.path), settings))

    async def entra_requests(self) -> list[dict[str, Any]]:
        """Return every request for a token that reached Entra since the journal was cleared.

        Each has time, source, host, tenant, grant_type, client_id, credential (secret, assertion or
        ""), scope, status and code (of AADSTS; 0 where there is none). The operator's are there,
        too.
        """
        return await self._requests("/entra/requests")

    async def clear_entra_requests(self) -> None:
        await self._order("DELETE", "/entra/requests")

    async def roll_keys(self) -> None:
        """Let Entra sign with new keys; what the old ones signed holds as long as it would."""
        await self._order("POST", "/entra/keys")

    async def withdraw_old_keys(self) -> None:
        """Let Entra publish only the keys that it signs with: what others signed is worthless."""
        await self._order("DELETE", "/entra/keys")

    # Requests, with the operator's own tokens: one for each resource and tenant

    async def _requests(self, path: str) -> list[dict[str, Any]]:
        async with self._control.get(path) as response:
            entries: list[dict[str, Any]] = await response.json()
            return entries

    async def _order(self, method: str, path: str) -> None:
        async with self._control.request(method, path) as response:
            if response.status != 204:
                raise AzureError(response.status, "Control", await response.text())

    async def _call(
        self,
        method: str,
        url: str,
        body: object = None,
        *,
        resource: str,
        tenant: Tenant | None = None,
    ) -> Answer:
        where = tenant or self.tenants.home
        key = (where.id, resource)
        if key not in self._tokens:
            self._tokens[key] = await self._token(where, resource)
        version = _BLOB_VERSION if resource == STORAGE else {}
        headers = {"Authorization": f"Bearer {self._tokens[key]}", **version}
        return await self._request(method, url, headers=headers, json=body)

    async def _token(self, tenant: Tenant, resource: str) -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._plan.operator_id,
            "client_secret": self._plan.operator_secret,
            "scope": f"{resource}/.default",
        }
        url = f"https://{tenant.cloud.logins[0]}/{tenant.id}/oauth2/v2.0/token"
        answer = await self._request("POST", url, data=form)
        return str(answer.body["access_token"])

    async def _request(self, method: str, url: str, **more: Json) -> Answer:
        for left in reversed(range(_TRIES)):
            try:
                return await self._sent(method, url, **more)
            except (AzureError, aiohttp.ClientConnectionError) as error:
                if not left or not _passes(error):
                    raise
            await asyncio.sleep(_PAUSE)
        raise AssertionError

    async def _sent(self, method: str, url: str, **more: Json) -> Answer:
        # `await` inside the context: the body is read before the connection goes back.
        async with self._session.request(
            method, url, proxy=self._proxy, ssl=self._trust, **more
        ) as response:
            xml = response.content_type == "application/xml"
            text = await response.text()
            body = text if xml else json.loads(text) if text else None
            if response.status >= 400:
                raise _refusal(response.status, body)
            return Answer(status=response.status, headers=response.headers, body=body)


def _passes(error: Exception) -> bool:
    """Whether the weather may have refused, so that the same request is worth another try."""
    if not isinstance(error, AzureError):
        return True
    hindered = error.code in {"ScopeLocked", "DenyAssignmentAuthorizationFailed"}
    return hindered or error.status in {429, 500, 502, 503}


def _refusal(status: int, body: Json) -> AzureError:
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return AzureError(status, str(error.get("code")), str(error.get("message")))
    if isinstance(body, str):
        return AzureError(status, "Blob", body)
    description = body.get("error_description", "") if isinstance(body, dict) else ""
    return AzureError(status, str(error), description)

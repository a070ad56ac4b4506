"""A small client of the sandbox's Azure, for the demo and tests: the operator, by the proxy.

What a story needs to arrange is one call each; everything else is `arm`. It speaks to ARM and Key
Vault as any client does, with the operator's own token, and to the control socket.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import aiohttp

from podidentity_sandbox.azure.arm.roles import BLOB_CONTRIBUTOR
from podidentity_sandbox.azure.control import SOCKET
from podidentity_sandbox.azure.seed import operator_object_id
from podidentity_sandbox.plan import Plan, stable_guid

ARM = "https://management.azure.com"
LOGIN = "https://login.microsoftonline.com"
VAULT = "https://vault.azure.net"
ARM_VERSION = "2024-11-01"
STORAGE = "https://storage.azure.com"
_SKU = {"name": "Standard_LRS"}
_BLOB_VERSION = {"x-ms-version": "2021-12-02"}


Json: TypeAlias = Any
"""What json.loads returns: a caller picks what it knows to be there."""


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


class AzureOperator:
    """The owner of the sandbox's subscription. An async context manager."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._proxy = f"http://127.0.0.1:{plan.azure_proxy_port}"
        self._trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
        self._tokens: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        connector = aiohttp.UnixConnector(path=str(self._plan.path / SOCKET))
        self._control = aiohttp.ClientSession("http://azure.sandbox", connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._control.close()

    @property
    def subscription(self) -> str:
        """ARM id of the subscription."""
        return f"/subscriptions/{self._plan.subscription_id}"

    async def arm(
        self, method: str, path: str, body: object = None, *, version: str = ARM_VERSION
    ) -> Json:
        """Call ARM and wait for the end of what it starts; return the body. Raises AzureError."""
        url = f"{ARM}{path}{'&' if '?' in path else '?'}api-version={version}"
        answer = await self._call(method, url, body, resource=f"{ARM}/")
        while answer.status == 202 and "Azure-AsyncOperation" not in answer.headers:
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
            answer = await self._call("GET", answer.headers["Location"], resource=f"{ARM}/")
        await self.wait(answer)
        return answer.body

    async def wait(self, answer: Answer) -> None:
        """Return when the operation that `answer` names by Azure-AsyncOperation has succeeded."""
        where = answer.headers.get("Azure-AsyncOperation")
        while where:
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
            answer = await self._call("GET", where, resource=f"{ARM}/")
            status = answer.body["status"]
            if status == "Succeeded":
                return
            if status != "InProgress":
                raise AzureError(answer.status, status, str(answer.body.get("error", "")))

    async def create_group(self, name: str) -> str:
        """Make a resource group; return its id."""
        path = f"{self.subscription}/resourcegroups/{name}"
        return str((await self.arm("PUT", path, {"location": self._plan.location}))["id"])

    async def create_identity(self, group: str, name: str) -> dict[str, str]:
        """Make a user-assigned identity; return its id, clientId, principalId and tenantId."""
        path = (
            f"{self.subscription}/resourceGroups/{group}"
            f"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        )
        made = await self.arm("PUT", path, {"location": self._plan.location}, version="2024-11-30")
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
        }
        path = (
            f"{self.subscription}/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/{name}"
        )
        body = {"location": self._plan.location, "properties": properties}
        return str((await self.arm("PUT", path, body))["properties"]["vaultUri"])

    async def create_account(self, group: str, name: str, writers: Sequence[str] = ()) -> str:
        """Make a storage account, or find it; return its id.

        The principals of the object ids in `writers`, and the operator, may do everything with its
        blobs.
        """
        account = (
            f"{self.subscription}/resourceGroups/{group}"
            f"/providers/Microsoft.Storage/storageAccounts/{name}"
        )
        body = {"location": self._plan.location, "kind": "StorageV2", "sku": _SKU}
        await self.arm("PUT", account, body, version="2025-08-01")
        for who in (operator_object_id(self._plan), *writers):
            assignment = stable_guid(account, who)
            path = f"{account}/providers/Microsoft.Authorization/roleAssignments/{assignment}"
            role = {"roleDefinitionId": BLOB_CONTRIBUTOR.id, "principalId": who}
            await self.arm("PUT", path, {"properties": role}, version="2022-04-01")
        return account

    async def create_container(self, account: str, name: str) -> None:
        """Make a container of a storage account."""
        url = f"https://{account}.blob.core.windows.net/{name}?restype=container"
        await self._call("PUT", url, resource=STORAGE)

    async def put_secret(self, vault: str, name: str, value: str) -> None:
        """Set a secret of a vault."""
        url = f"https://{vault}.vault.azure.net/secrets/{name}?api-version=7.4"
        await self._call("PUT", url, {"value": value}, resource=VAULT)

    async def imds_requests(self) -> list[dict[str, Any]]:
        """Return every request that reached IMDS since the journal was cleared.

        Each has time, node, source, method, target, headers (names in lower case) and status.
        """
        async with self._control.get("/imds/requests") as response:
            entries: list[dict[str, Any]] = await response.json()
            return entries

    async def clear_imds_requests(self) -> None:
        """Forget the requests that reached IMDS."""
        await self._order("DELETE", "/imds/requests")

    async def imds_fault(self, mode: str = "none", *, seconds: float = 0) -> None:
        """Make IMDS fail in one of the ways of `imds.faults.Mode`; `none` heals it."""
        await self._order("PUT", "/imds/fault", {"mode": mode, "seconds": seconds})

    async def arm_delay(self, seconds: float) -> None:
        """Set how long a change of a scale set takes."""
        await self._order("PUT", "/arm/delay", {"seconds": seconds})

    async def role_delay(self, seconds: float) -> None:
        """Set how long a role assignment takes until it holds: minutes in Azure."""
        await self._order("PUT", "/roles/delay", {"seconds": seconds})

    async def identity_cache(self, seconds: float) -> None:
        """Set for how long a node's IMDS goes on with the identities that it saw last."""
        await self._order("PUT", "/imds/cache", {"seconds": seconds})

    async def _order(self, method: str, path: str, body: object = None) -> None:
        async with self._control.request(method, path, json=body) as response:
            if response.status != 204:
                raise AzureError(response.status, "Control", await response.text())

    async def _call(self, method: str, url: str, body: object = None, *, resource: str) -> Answer:
        if resource not in self._tokens:
            self._tokens[resource] = await self._token(resource)
        version = _BLOB_VERSION if resource == STORAGE else {}
        headers = {"Authorization": f"Bearer {self._tokens[resource]}", **version}
        return await self._request(method, url, headers=headers, json=body)

    async def _token(self, resource: str) -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._plan.operator_id,
            "client_secret": self._plan.operator_secret,
            "scope": f"{resource}/.default",
        }
        url = f"{LOGIN}/{self._plan.tenant_id}/oauth2/v2.0/token"
        answer = await self._request("POST", url, data=form)
        return str(answer.body["access_token"])

    async def _request(self, method: str, url: str, **more: Json) -> Answer:
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


def _refusal(status: int, body: Json) -> AzureError:
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return AzureError(status, str(error.get("code")), str(error.get("message")))
    if isinstance(body, str):
        return AzureError(status, "Blob", body)
    description = body.get("error_description", "") if isinstance(body, dict) else ""
    return AzureError(status, str(error), description)

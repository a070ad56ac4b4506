"""A small client of the sandbox's Azure, for the demo and tests: the operator, by the proxy.

What a story needs to arrange is one call each; everything else is `arm`. It speaks to ARM and Key
Vault as any client does, with the operator's own token, and to the control socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from podidentity_sandbox.azure.arm.roles import BLOB_CONTRIBUTOR
from podidentity_sandbox.azure.connection import ARM, STORAGE, Answer, AzureError, Json
from podidentity_sandbox.azure.orders import Orders
from podidentity_sandbox.azure.registrations import Registrations
from podidentity_sandbox.azure.seed import operator_object_id
from podidentity_sandbox.plan import stable_guid

__all__ = ["ARM", "VAULT", "Answer", "AzureError", "AzureOperator"]

VAULT = "https://vault.azure.net"
ARM_VERSION = "2024-11-01"
_SKU = {"name": "Standard_LRS"}


class AzureOperator(Registrations, Orders):
    """The owner of the sandbox's subscription. An async context manager."""

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

"""How the operator's clients reach the sandbox's Azure: by the proxy, as any client does.

With the operator's own tokens, one for each resource and tenant; and the control socket.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import aiohttp

from podidentity_sandbox.azure.control import SOCKET
from podidentity_sandbox.azure.tenants import Tenant, tenants_of
from podidentity_sandbox.plan import Plan

ARM = "https://management.azure.com"
STORAGE = "https://storage.azure.com"
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


class Connection:
    """An open way to Azure. An async context manager."""

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

    async def _order(self, method: str, path: str, body: object = None) -> None:
        async with self._control.request(method, path, json=body) as response:
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

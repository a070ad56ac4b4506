"""Microsoft Graph, for `check --azure`: applications and their principals, which are read only.

It takes a right of the directory to read applications, which no role of Azure gives.

https://learn.microsoft.com/graph/use-the-api
"""

from __future__ import annotations

from typing import Self

import httpx2

from podidentity.bounded_answers import TooLong, body_of
from podidentity.core.ports import Login
from podidentity.core.resources import ClientId
from podidentity.wire import arm
from podidentity.wire.arm import LONGEST_ANSWER, ArmError, FederatedCredential


class Graph:
    """Graph of one cloud, as one user: one request a question. An async context manager."""

    def __init__(self, login: Login, *, url: str, transport: httpx2.AsyncBaseTransport) -> None:
        """`url`: where it is, and the audience of its tokens; `transport`: the way there."""
        self._login = login
        self._scope = f"{url}/.default"
        self._client = httpx2.AsyncClient(
            base_url=url,
            timeout=httpx2.Timeout(60, connect=10),
            trust_env=False,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def principal(self, client: ClientId) -> str:
        """Return the object id of an application's service principal; raise ArmError."""
        return arm.parse_principal(await self._get(f"/v1.0/servicePrincipals(appId='{client}')"))

    async def federated_credentials(self, client: ClientId) -> list[FederatedCredential]:
        """Return what Entra trusts for an application; raise ArmError."""
        place = f"/v1.0/applications(appId='{client}')/federatedIdentityCredentials"
        return arm.parse_credentials_of_application(await self._get(place))

    async def _get(self, path: str) -> bytes:
        headers = {"Authorization": f"Bearer {await self._login.token(self._scope)}"}
        try:
            async with self._client.stream("GET", path, headers=headers) as answer:
                body = await body_of(answer, LONGEST_ANSWER)
        except TooLong as error:
            raise ArmError(
                "BadAnswer", f"Graph sent more than {LONGEST_ANSWER >> 20} MiB"
            ) from error
        except (httpx2.HTTPError, OSError) as error:
            what = str(error) or type(error).__name__
            raise ArmError("Unreachable", f"Graph cannot be asked: {what}") from error
        if not answer.is_success:
            raise arm.parse_error(body, answer.status_code)
        return body

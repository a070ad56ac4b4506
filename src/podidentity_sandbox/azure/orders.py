"""The control socket as methods: what a test asks of Azure that Azure does not offer."""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.azure.connection import Connection


class Orders(Connection):
    """Journals, faults and delays."""

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

    async def imds_fault(
        self, mode: str = "none", *, seconds: float = 0, times: int | None = None
    ) -> None:
        """Make IMDS fail in one of the ways of `faults.Mode`; `none` heals it.

        `times`: so many requests only.
        """
        body = {"mode": mode, "seconds": seconds, "times": times}
        await self._order("PUT", "/imds/fault", body)

    async def arm_delay(self, seconds: float) -> None:
        """Set how long a change of a scale set takes."""
        await self._order("PUT", "/arm/delay", {"seconds": seconds})

    async def role_delay(self, seconds: float) -> None:
        """Set how long a role assignment takes until it holds: minutes in Azure."""
        await self._order("PUT", "/roles/delay", {"seconds": seconds})

    async def identity_cache(self, seconds: float) -> None:
        """Set for how long a node's IMDS goes on with the identities that it saw last."""
        await self._order("PUT", "/imds/cache", {"seconds": seconds})

    async def entra_requests(self) -> list[dict[str, Any]]:
        """Return every request for a token that reached Entra since the journal was cleared.

        Each has time, source, host, tenant, grant_type, client_id, credential (secret, assertion or
        ""), scope, status and code (of AADSTS; 0 where there is none). The operator's are there,
        too.
        """
        async with self._control.get("/entra/requests") as response:
            entries: list[dict[str, Any]] = await response.json()
            return entries

    async def clear_entra_requests(self) -> None:
        """Forget the requests that reached Entra."""
        await self._order("DELETE", "/entra/requests")

    async def entra_fault(
        self, mode: str = "none", *, seconds: float = 0, times: int | None = None
    ) -> None:
        """Make Entra's token endpoints fail in one of the ways of `faults.Mode`."""
        body = {"mode": mode, "seconds": seconds, "times": times}
        await self._order("PUT", "/entra/fault", body)

    async def token_lifetime(self, seconds: int) -> None:
        """Set how long an application's token lives."""
        await self._order("PUT", "/entra/lifetime", {"seconds": seconds})

    async def credential_delay(self, seconds: float) -> None:
        """Set how long Entra does not know a new federated credential: minutes in Azure."""
        await self._order("PUT", "/credentials/delay", {"seconds": seconds})

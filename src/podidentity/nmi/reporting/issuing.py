"""Whoever issues tokens, each for its types of identity, as one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from podidentity.core.ports import TokenIssuer
from podidentity.core.resources import IdentityType
from podidentity.core.tokens import AccessToken, Grant


class Issuers:
    """A core.ports.TokenIssuer for all types."""

    def __init__(self, by_type: Mapping[IdentityType, TokenIssuer]) -> None:
        self._by_type = by_type

    def credential(self, grant: Grant) -> Hashable | None:
        """Return what decides which token it is; None where it must be read first."""
        return self._by_type[grant.identity.type].credential(grant)

    async def ready(self, grant: Grant) -> Hashable:
        """Return the same, after reading what it takes; raise a TokenUnavailable."""
        return await self._by_type[grant.identity.type].ready(grant)

    async def issue(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> AccessToken:
        """Return a new token; raise a TokenUnavailable."""
        issuer = self._by_type[grant.identity.type]
        return await issuer.issue(grant, resource, bypass_cache=bypass_cache)

"""Token requests, grants and access tokens.

Anyone with the text of a token can use it, so no `repr` shows it, and only the answer contains it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from podidentity.core.authorities import Tenant
from podidentity.core.ids import ClientId, ObjectId, ResourceId
from podidentity.core.resources import AzureIdentity, Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A pod's request, parsed; at most one of the three ids is given."""

    resource: str
    """The audience exactly as requested, with or without a slash at its end: it is echoed."""
    client_id: ClientId | None = None
    object_id: ObjectId | None = None
    resource_id: ResourceId | None = None
    bypass_cache: bool = False
    tenant: Tenant | None = None
    """One of the identity's auxiliary tenants, named by IMDS's parameter `authority`."""

    @property
    def asked(self) -> ClientId | ObjectId | ResourceId | None:
        """The requested id, if any."""
        return self.client_id or self.object_id or self.resource_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The result of the rules: a token of `identity` may be fetched for `pod`."""

    identity: AzureIdentity
    pod: Pod
    """The pod that requests the token; the subject of a federated identity's assertion."""
    tenant: Tenant | None = None
    """An auxiliary tenant; None: the identity's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A token and its lifetime. Times are whole seconds since 1970."""

    value: str = field(repr=False)
    client_id: ClientId | None
    expires_on: int
    not_before: int
    resource: str
    ext_expires_in: int = 0
    """Seconds that it may be used beyond `expires_on` in an outage; 0 if the issuer names none."""
    token_type: str = "Bearer"  # noqa: S105 - a type of token, not a token

    def life(self, now: float) -> int:
        """Return the whole seconds left at `now`, never negative."""
        return max(0, self.expires_on - int(now))

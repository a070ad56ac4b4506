"""Tokens of the identities that ARM attached to a node, and the caches that IMDS keeps of both."""

from __future__ import annotations

from dataclasses import dataclass, field

from podidentity_sandbox.azure.entra.answers import unknown_resource
from podidentity_sandbox.azure.imds.rules import ChosenIdentity, ImdsError, choose, token_query
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.state import (
    IdentityBlock,
    Machines,
    Principal,
    UserAssignedIdentity,
    World,
)
from podidentity_sandbox.azure.tokens import CLOCK_SKEW, MANAGED_LIFETIME, Grant, Issuer, SignedInBy
from podidentity_sandbox.plan import NodePlan

RENEWED_BELOW = MANAGED_LIFETIME // 2
"""Seconds left at which IMDS fetches a new token for the next request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedToken:
    """A token that IMDS gave before, and may give again."""

    token: str = field(repr=False)
    expires_on: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownIdentities:
    """The identities of a node as IMDS saw them last."""

    until: float
    """Seconds since 1970 at which it looks again."""
    block: IdentityBlock
    alive: tuple[UserAssignedIdentity, ...]


class Tokens:
    """Answers /metadata/identity/oauth2/token."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._issuer = issuer
        self._cache: dict[tuple[str, str, str], CachedToken] = {}
        """By node, object id and resource."""
        self._seen: dict[str, KnownIdentities] = {}
        """By node."""

    def answer(self, request: Request, node: NodePlan) -> Reply:
        """Return the requested token; raise ImdsError."""
        ask = token_query(request)
        now = self._world.clock()
        machines = self._world.machines_of(node)
        if machines is None:
            raise ImdsError(400, "invalid_request", "Identity not found")
        seen = self._identities(node, machines, now)
        chosen = choose(ask, seen.block, alive=seen.alive, machine=machines.id)
        if not self._issuer.tenant.cloud.has_resource(ask.resource):
            refusal = unknown_resource(ask.resource, self._world.plan.tenant_id)
            raise ImdsError(refusal.status, refusal.error, str(refusal))
        key = (node.name, chosen.object_id, ask.resource)
        cached = self._cache.get(key)
        if cached is None or ask.bypass_cache or cached.expires_on - now < RENEWED_BELOW:
            cached = self._cache[key] = self._minted(chosen, ask.resource, now)
        return _success(cached, chosen, ask.resource, now)

    def _identities(self, node: NodePlan, machines: Machines, now: float) -> KnownIdentities:
        seen = self._seen.get(node.name)
        if seen is None or now >= seen.until:
            until = now + self._world.weather.seconds("identities", node.name)
            alive = tuple(self._world.all(UserAssignedIdentity))
            seen = KnownIdentities(until=until, block=machines.in_force(now), alive=alive)
            self._seen[node.name] = seen
        return seen

    def _minted(self, chosen: ChosenIdentity, resource: str, now: float) -> CachedToken:
        token = self._issuer.mint(
            Grant(
                principal=Principal(
                    object_id=chosen.object_id,
                    app_id=chosen.client_id,
                    name="",
                    tenant_id=self._issuer.tenant.id,
                ),
                audience=resource,
                signed_in_by=SignedInBy.ASSERTION,
                managed_identity=chosen.resource_id,
            ),
            now=now,
            lifetime=MANAGED_LIFETIME,
        )
        return CachedToken(token=token, expires_on=int(now) + MANAGED_LIFETIME)


def _success(cached: CachedToken, chosen: ChosenIdentity, resource: str, now: float) -> Reply:
    return Reply.json(
        {
            "access_token": cached.token,
            "client_id": chosen.client_id,
            "expires_in": str(cached.expires_on - int(now) - 1),
            "expires_on": str(cached.expires_on),
            "ext_expires_in": str(MANAGED_LIFETIME - 1),
            "not_before": str(cached.expires_on - MANAGED_LIFETIME - CLOCK_SKEW),
            "resource": resource,
            "token_type": "Bearer",
        }
    )

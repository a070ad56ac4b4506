"""Entra's signing keys and the access tokens that it signs.

The claims of a v1 token of an application are what ARM, Key Vault and Storage get whichever
endpoint is asked; a v2.0 token is what the token exchange gets:
https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from podidentity_sandbox.azure.state import Principal
from podidentity_sandbox.azure.tenants import EXCHANGE, EXCHANGE_APP, Tenant, Tenants

CLOCK_SKEW = 300
"""Seconds by which Entra dates `iat` and `nbf` back."""
MANAGED_LIFETIME = 86_400
"""Seconds that the token of a managed identity lives, however it was got."""


class SignedInBy(StrEnum):
    """How the client proved itself: the claims appidacr and azpacr."""

    SECRET = "1"  # noqa: S105 - the name of the way, not a secret
    ASSERTION = "2"
    """A certificate, or a federated credential; managed identities as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The contents of a token."""

    principal: Principal
    audience: str
    """As it was asked for."""
    signed_in_by: SignedInBy = SignedInBy.SECRET
    managed_identity: str = ""
    """The resource id that becomes the claim xms_mirid."""


class Key:
    """A signing key: each cloud has one, for as long as the process lives."""

    def __init__(self) -> None:
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self._private.public_key()
        spki = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._id = base64.urlsafe_b64encode(hashlib.sha256(spki).digest()).decode().rstrip("=")
        published: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public))
        self._jwk = {"kty": "RSA", "use": "sig", "kid": self._id, "x5t": self._id}
        self._jwk |= {"n": published["n"], "e": published["e"]}

    def jwk(self, issuer: str) -> dict[str, str]:
        """Return the key as it is published for tokens of `issuer`."""
        return {**self._jwk, "issuer": issuer}

    def sign(self, claims: dict[str, Any]) -> str:
        """Return the token of these claims."""
        headers = {"kid": self._id, "x5t": self._id}
        return jwt.encode(claims, self._private, algorithm="RS256", headers=headers)

    def signed(self, token: str, issuers: Sequence[str]) -> bool:
        """Return whether a token was signed by this key, in the name of one of the issuers."""
        never = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud")}
        public, options = self._private.public_key(), cast("Any", never)
        try:
            jwt.decode(token, public, algorithms=["RS256"], issuer=issuers, options=options)
        except jwt.InvalidTokenError:
            return False
        return True


class Issuer:
    """The signing keys of one tenant."""

    def __init__(self, tenant: Tenant, key: Key | None = None) -> None:
        self.tenant = tenant
        self.issuer = tenant.issuer
        self._key = key or Key()

    def jwks(self) -> dict[str, Any]:
        """Return the published keys."""
        return {"keys": [self._key.jwk(self.issuer)]}

    def signed(self, token: str) -> bool:
        """Return whether this tenant's key signed the token, in its own name."""
        return self._key.signed(token, (self.issuer, self.tenant.issuer_v2))

    def mint(self, grant: Grant, *, now: float, lifetime: int) -> str:
        """Sign a token that lives `lifetime` seconds from `now` (seconds since 1970)."""
        who = grant.principal
        claims = {
            "iat": int(now) - CLOCK_SKEW,
            "nbf": int(now) - CLOCK_SKEW,
            "exp": int(now) + lifetime,
            "idtyp": "app",
            "oid": who.object_id,
            "sub": who.object_id,
            "tid": self.tenant.id,
            "uti": secrets.token_urlsafe(16),
        }
        of_version = self._v2 if grant.audience.removesuffix("/") == EXCHANGE else self._v1
        mirid = {"xms_mirid": grant.managed_identity} if grant.managed_identity else {}
        return self._key.sign({**of_version(grant), **claims, **mirid})

    def _v1(self, grant: Grant) -> dict[str, Any]:
        return {
            "aud": grant.audience,
            "iss": self.issuer,
            "appid": grant.principal.app_id,
            "appidacr": grant.signed_in_by.value,
            "idp": self.issuer,
            "ver": "1.0",
        }

    def _v2(self, grant: Grant) -> dict[str, Any]:
        # The resource wants v2.0 tokens, whose audience is an application id and no URI.
        return {
            "aud": EXCHANGE_APP,
            "iss": self.tenant.issuer_v2,
            "azp": grant.principal.app_id,
            "azpacr": grant.signed_in_by.value,
            "ver": "2.0",
        }


def new_keys(tenants: Tenants) -> dict[str, Key]:
    """Make a key for each cloud."""
    return {tenant.cloud.name: Key() for tenant in tenants.all}


class Issuers:
    """The issuers of all tenants; tenants of one cloud share its key."""

    def __init__(self, tenants: Tenants, keys: Mapping[str, Key] | None = None) -> None:
        """`keys`: of each cloud, by its name; by default new ones."""
        of = keys or new_keys(tenants)
        self._issuers = {one.id: Issuer(one, of[one.cloud.name]) for one in tenants.all}
        self.home = self._issuers[tenants.home.id]
        """Signs for the subscription's tenant, managed identities included."""

    def of(self, tenant: Tenant) -> Issuer:
        """Return the issuer of a tenant."""
        return self._issuers[tenant.id]

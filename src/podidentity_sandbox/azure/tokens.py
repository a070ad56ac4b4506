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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from podidentity_sandbox.azure.state import Principal
from podidentity_sandbox.azure.tenants import EXCHANGE, EXCHANGE_APP, Tenant, Tenants
from podidentity_sandbox.azure.verification import signed_claims

CLOCK_SKEW = 300
"""Seconds by which Entra dates `iat` and `nbf` back."""
MANAGED_LIFETIME = 86_400
"""Seconds that the token of a managed identity lives, however it was got."""
APPLICATION_LIFETIME = 3600
"""Seconds that an application's token lives."""


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
    """A signing key."""

    def __init__(self, pem: bytes = b"") -> None:
        """Take the private key of `pem`, or make one."""
        if pem:
            # It is one that we made; to check it again takes a quarter of a second.
            loaded = serialization.load_pem_private_key(
                pem, password=None, unsafe_skip_rsa_key_validation=True
            )
            self._private = cast("rsa.RSAPrivateKey", loaded)
        else:
            self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.pem = pem or self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        """The private key, for the sandbox's own folder."""
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
        headers = {"kid": self._id, "x5t": self._id}
        return jwt.encode(claims, self._private, algorithm="RS256", headers=headers)

    def signed(self, token: str, issuers: Sequence[str]) -> bool:
        """Return whether a token was signed by this key, in the name of one of the issuers."""
        try:
            claims = signed_claims(token, self._private.public_key(), "RS256")
        except jwt.InvalidTokenError:
            return False
        return claims.get("iss") in issuers


class KeyRing:
    """The keys of a cloud: the newest signs, and all of them are published.

    Entra publishes a new key before it signs, and the old one for as long as its tokens live:
    https://learn.microsoft.com/entra/identity-platform/signing-key-rollover
    """

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        """`keys`: the newest first; by default a new one, made when it is asked for.

        It takes a twentieth of a second, and most worlds ask one cloud alone.
        """
        self._keys = list(keys)
        self.keep: Callable[[], None] = lambda: None
        """Called with a first key, before anybody sees it: an error makes it no key."""

    @property
    def keys(self) -> list[Key]:
        if not self._keys:
            self._keys = [Key()]
            try:
                self.keep()
            except BaseException:
                self._keys = []
                raise
        return self._keys

    @property
    def pems(self) -> tuple[bytes, ...]:
        """The private keys that are made."""
        return tuple(key.pem for key in self._keys)

    def roll(self) -> None:
        """Sign with a new key from now on."""
        self.keys.insert(0, Key())

    def withdraw(self) -> None:
        """Publish the newest key only: what others signed is worth nothing any more."""
        del self.keys[1:]


class Issuer:
    """The signing keys of one tenant."""

    def __init__(self, tenant: Tenant, ring: KeyRing | None = None) -> None:
        self.tenant = tenant
        self.issuer = tenant.issuer
        self._ring = ring or KeyRing()

    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.jwk(self.issuer) for key in self._ring.keys]}

    def signed(self, token: str) -> bool:
        """Return whether a key of this tenant signed the token, in its own name."""
        issuers = (self.issuer, self.tenant.issuer_v2)
        return any(key.signed(token, issuers) for key in self._ring.keys)

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
        return self._ring.keys[0].sign({**of_version(grant), **claims, **mirid})

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


def new_rings(tenants: Tenants) -> dict[str, KeyRing]:
    """Make a key for each cloud, by its name."""
    return {name: KeyRing() for name in {tenant.cloud.name for tenant in tenants.all}}


class Issuers:
    """The issuers of all tenants; tenants of one cloud share its keys."""

    def __init__(self, tenants: Tenants, rings: Mapping[str, KeyRing] | None = None) -> None:
        """`rings`: of each cloud, by its name; by default with new keys."""
        self.rings = rings or new_rings(tenants)
        self._issuers = {one.id: Issuer(one, self.rings[one.cloud.name]) for one in tenants.all}
        self.home = self._issuers[tenants.home.id]
        """Signs for the subscription's tenant, managed identities included."""

    def of(self, tenant: Tenant) -> Issuer:
        return self._issuers[tenant.id]

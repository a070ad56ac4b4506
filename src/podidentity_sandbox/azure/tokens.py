"""Entra's signing key and the access tokens it signs.

The claims are those of a v1 access token of an application, which is what ARM, Key Vault and
Storage get whichever endpoint is asked:
https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

CLOCK_SKEW = 300
"""Seconds by which Entra dates `iat` and `nbf` back."""

RESOURCES = (
    "https://management.core.windows.net",
    "https://management.azure.com",
    "https://vault.azure.net",
    "https://graph.microsoft.com",
    "https://storage.azure.com",
    "https://database.windows.net",
    "api://AzureADTokenExchange",
)
"""What the tenant has service principals for, without the slash that may follow."""
_ACCOUNT = re.compile(r"https://[a-z0-9]{3,24}\.blob\.core\.windows\.net")


def is_resource(name: str) -> bool:
    """Return whether the tenant knows the resource; one slash at its end is part of its name.

    A storage account's own name is one too:
    https://learn.microsoft.com/azure/storage/blobs/authorize-access-azure-active-directory#microsoft-authentication-library-msal
    """
    resource = name.removesuffix("/")
    return resource in RESOURCES or _ACCOUNT.fullmatch(resource) is not None


class Issuer:
    """Entra's key of this sandbox: it lives as long as the process."""

    def __init__(self, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        self.issuer = f"https://sts.windows.net/{tenant_id}/"
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self._key.public_key()
        spki = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._kid = base64.urlsafe_b64encode(hashlib.sha256(spki).digest()).decode().rstrip("=")
        published: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public))
        self._jwk = {
            "kty": "RSA",
            "use": "sig",
            "kid": self._kid,
            "x5t": self._kid,
            "n": published["n"],
            "e": published["e"],
            "issuer": self.issuer,
        }

    def jwks(self) -> dict[str, Any]:
        """Return the published keys."""
        return {"keys": [dict(self._jwk)]}

    def mint(
        self,
        *,
        app_id: str,
        object_id: str,
        audience: str,
        now: float,
        lifetime: int,
        managed_identity: str = "",
    ) -> str:
        """Sign a token that lives `lifetime` seconds from `now` (seconds since 1970).

        `managed_identity` is the resource id that becomes the claim xms_mirid.
        """
        claims = {
            "aud": audience,
            "iss": self.issuer,
            "iat": int(now) - CLOCK_SKEW,
            "nbf": int(now) - CLOCK_SKEW,
            "exp": int(now) + lifetime,
            "appid": app_id,
            "appidacr": "2" if managed_identity else "1",
            "idp": self.issuer,
            "idtyp": "app",
            "oid": object_id,
            "sub": object_id,
            "tid": self.tenant_id,
            "uti": secrets.token_urlsafe(16),
            "ver": "1.0",
        }
        if managed_identity:
            claims["xms_mirid"] = managed_identity
        headers = {"kid": self._kid, "x5t": self._kid}
        return jwt.encode(claims, self._key, algorithm="RS256", headers=headers)

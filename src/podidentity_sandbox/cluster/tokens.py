"""The cluster's own key, and the service-account tokens that it signs.

Whoever trusts the cluster as an issuer (a federated credential) reads its key from the discovery
documents, as OpenID Connect has it:
https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Resolves, in the sandbox's world, to the API server, which serves the discovery documents."""
JWKS_PATH = "/openid/v1/jwks"
CONFIGURATION_PATH = "/.well-known/openid-configuration"
ALGORITHM = "RS256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a token is bound to: (name, uid) pairs."""

    account: tuple[str, str]
    namespace: str
    pod: tuple[str, str] | None = None
    node: tuple[str, str] | None = None
    secret: tuple[str, str] | None = None


def load_key(path: Path) -> rsa.RSAPrivateKey:
    """Return the key in that file, made there if there is none; readable by its owner only."""
    if not path.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise TypeError(f"{path} holds no RSA key; remove it to have a new one made")
    return loaded


class TokenIssuer:
    """Signs tokens, and knows its own again."""

    def __init__(
        self, key: rsa.RSAPrivateKey, now: Callable[[], datetime], issuer: str = ISSUER
    ) -> None:
        self.issuer = issuer
        self._key = key
        self._public = key.public_key()
        self.now = now
        spki = self._public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        # As kube-apiserver names its keys: the digest of the public key.
        digest = hashlib.sha256(spki).digest()
        self._key_id = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def issue(self, bound: Bound, audiences: Sequence[str], seconds: int) -> tuple[str, datetime]:
        """Return a token that lives so many seconds, and when it ends."""
        issued = int(self.now().timestamp())
        name, uid = bound.account
        private: dict[str, Any] = {
            "namespace": bound.namespace,
            "serviceaccount": {"name": name, "uid": uid},
        }
        for field in ("pod", "node", "secret"):
            if pair := getattr(bound, field):
                private[field] = {"name": pair[0], "uid": pair[1]}
        claims = {
            "aud": list(audiences),
            "exp": issued + seconds,
            "iat": issued,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": private,
            "nbf": issued,
            "sub": f"system:serviceaccount:{bound.namespace}:{name}",
        }
        headers = {"kid": self._key_id}
        token = jwt.encode(claims, self._key, algorithm=ALGORITHM, headers=headers)
        return token, datetime.fromtimestamp(issued + seconds, tz=self.now().tzinfo)

    def claims(self, token: str, audiences: Sequence[str]) -> dict[str, Any] | None:
        """Return the claims of a token of ours that holds now for one of the audiences."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._public,
                algorithms=[ALGORITHM],
                audience=list(audiences),
                issuer=self.issuer,
                options={
                    "verify_exp": False,  # by our clock, below
                    "verify_nbf": False,
                    "verify_iat": False,
                    "require": ["exp", "nbf", "sub", "kubernetes.io"],
                },
            )
        except jwt.InvalidTokenError:
            return None
        return claims if claims["nbf"] <= self.now().timestamp() < claims["exp"] else None

    def configuration(self) -> dict[str, Any]:
        """Return the OpenID discovery document."""
        return {
            "issuer": self.issuer,
            "jwks_uri": self.issuer + JWKS_PATH,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
        }

    def keys(self) -> dict[str, Any]:
        """Return the JSON Web Key Set of the public key."""
        numbers = self._public.public_numbers()
        key = {
            "use": "sig",
            "kty": "RSA",
            "kid": self._key_id,
            "alg": ALGORITHM,
            "n": _number(numbers.n),
            "e": _number(numbers.e),
        }
        return {"keys": [key]}


def _number(value: int) -> str:
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

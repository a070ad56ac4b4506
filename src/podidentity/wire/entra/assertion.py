"""The assertion by which a client proves that it has the key of its certificate.

Entra takes PS256 with the SHA-256 thumbprint, AD FS the older RS256 with SHA-1. The certificate
itself goes along (`x5c`), so that an application which trusts by subject name and issuer works.

https://learn.microsoft.com/entra/identity-platform/certificate-credentials
"""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha1, sha256
from typing import Any

from podidentity.wire.entra.exchange import Client

SECONDS = 600
"""How long an assertion is good: Entra's advice is five to ten minutes."""


def signing_input(client: Client, chain: Sequence[bytes], *, now: float, unique: str) -> bytes:
    """Return what is to be signed: RSA PSS with SHA-256, and PKCS#1 v1.5 where `client.adfs`.

    `chain` is DER, the client's own certificate first; `unique` is in no other assertion.
    """
    issued = int(now)
    claims = {
        "aud": client.url,
        "iss": str(client.client_id),
        "sub": str(client.client_id),
        "jti": unique,
        "nbf": issued,
        "iat": issued,
        "exp": issued + SECONDS,
    }
    return f"{_part(_header(client, chain))}.{_part(claims)}".encode()


def signed(signing_input: bytes, signature: bytes) -> str:
    """Return the assertion."""
    return f"{signing_input.decode()}.{_base64url(signature)}"


def _header(client: Client, chain: Sequence[bytes]) -> Mapping[str, Any]:
    own = chain[0]
    if client.adfs:
        thumbprint = {"alg": "RS256", "x5t": _base64url(sha1(own, usedforsecurity=False).digest())}
    else:
        thumbprint = {"alg": "PS256", "x5t#S256": _base64url(sha256(own).digest())}
    return {**thumbprint, "typ": "JWT", "x5c": [b64encode(each).decode() for each in chain]}


def _part(value: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()

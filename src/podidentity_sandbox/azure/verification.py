"""Verification of tokens by a resource server (ARM, Key Vault): with Entra's published keys only.

It shares no code with the signing side, so that it accepts what a real service would accept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jwt


def signed_claims(token: str, key: object, algorithm: str) -> dict[str, Any]:
    """Return the claims of a token that the key's other half signed; raise jwt.InvalidTokenError.

    Of times and names nothing is checked: callers do, with the sandbox's clock and Azure's words.
    """
    names = ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
    options: Any = {f"verify_{name}": False for name in names}
    return jwt.decode(token, key, algorithms=[algorithm], options=options)  # type: ignore[arg-type]


class TokenFault(StrEnum):
    """Why a token is worth nothing."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"


class TokenRefused(Exception):
    """The token is worth nothing; `detail` is the claim at fault, never the token."""

    def __init__(self, fault: TokenFault, detail: str = "") -> None:
        super().__init__(f"{fault} {detail}".rstrip())
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whom a valid token names."""

    app_id: str
    object_id: str
    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """The demands of one resource server on a token."""

    keys: Callable[[], dict[str, Any]]
    """Reads the published JSON Web Key Set."""
    issuer: str
    audiences: Sequence[str]

    def verify(self, token: str, now: float) -> Caller:
        """Return the caller; raise TokenRefused. `now` is seconds since 1970."""
        claims = self._signed_claims(token)
        if claims.get("iss") != self.issuer:
            raise TokenRefused(TokenFault.ISSUER, str(claims.get("iss")))
        if claims.get("aud") not in self.audiences:
            raise TokenRefused(TokenFault.AUDIENCE, str(claims.get("aud")))
        if not isinstance(claims.get("exp"), int) or not isinstance(claims.get("nbf"), int):
            raise TokenRefused(TokenFault.MALFORMED, "exp and nbf are not numbers")
        if now >= claims["exp"]:
            raise TokenRefused(TokenFault.EXPIRED, str(claims["exp"]))
        if now < claims["nbf"]:
            raise TokenRefused(TokenFault.NOT_YET_VALID, str(claims["nbf"]))
        return Caller(
            app_id=str(claims.get("appid")),
            object_id=str(claims.get("oid")),
            issuer=str(claims["iss"]),
        )

    def _signed_claims(self, token: str) -> dict[str, Any]:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            published = [key for key in self.keys()["keys"] if key["kid"] == kid]
            if not published:
                raise TokenRefused(TokenFault.UNKNOWN_KEY, str(kid))
            return signed_claims(token, jwt.PyJWK(published[0], algorithm="RS256"), "RS256")
        except jwt.InvalidSignatureError as error:
            raise TokenRefused(TokenFault.SIGNATURE) from error
        except jwt.InvalidTokenError as error:
            raise TokenRefused(TokenFault.MALFORMED) from error

"""A client assertion: what it says, and its signature, whoever signed it.

https://learn.microsoft.com/entra/identity-platform/certificate-credentials
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from podidentity_sandbox.azure.entra.errors import EntraError
from podidentity_sandbox.azure.messages import moment
from podidentity_sandbox.azure.tokens import CLOCK_SKEW

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
"""RSA only: https://github.com/AzureAD/microsoft-identity-web/issues/3467."""
CERTIFICATES = "https://learn.microsoft.com/entra/identity-platform/certificate-credentials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """An assertion that can be read; nothing in it is proved."""

    text: str = field(repr=False)
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    def said(self, name: str) -> str:
        """Return a claim that is a string; "" where it is none."""
        value = self.claims.get(name)
        return value if isinstance(value, str) else ""

    @property
    def audiences(self) -> tuple[str, ...]:
        """For whom it is."""
        value = self.claims.get("aud")
        found = value if isinstance(value, list) else [value]
        return tuple(one for one in found if isinstance(one, str))

    def signed_by(self, key: object) -> bool:
        """Return whether the key's other half signed it."""
        never = dict.fromkeys(("exp", "nbf", "iat", "aud", "sub", "jti"), False)
        options: Any = {f"verify_{name}": on for name, on in never.items()}
        try:
            jwt.decode(self.text, key, algorithms=[self.header["alg"]], options=options)  # type: ignore[arg-type]
        except (jwt.InvalidTokenError, TypeError, ValueError):
            return False
        return True


def read(text: str) -> Assertion:
    """Read an assertion; raise EntraError where it is no JWT, or of an algorithm without RSA."""
    try:
        header = jwt.get_unverified_header(text)
        claims = jwt.decode(text, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        words = "JWT token is invalid or malformed."
        raise EntraError(400, "invalid_request", 50027, words) from error
    if header.get("alg") not in ALGORITHMS:
        # Its words, with what was supported then: https://github.com/search?q=AADSTS5002738
        raise EntraError(
            400,
            "invalid_request",
            5002738,
            f"Invalid JWT token. '{header.get('alg')}' is not a supported signature algorithm."
            f" Supported signing algorithms are: '{', '.join(ALGORITHMS)}'",
        )
    return Assertion(text=text, header=header, claims=claims)


def check_time(assertion: Assertion, now: float, *, longest: float = float("inf")) -> None:
    """Raise EntraError unless the assertion holds at `now`; `longest` is the life it may have.

    A clock that is ahead is forgiven as far as Entra dates its own tokens back; one that is behind
    is not.
    """
    ends = _seconds(assertion, "exp")
    starts = _seconds(assertion, "nbf") or 0.0
    begins = _seconds(assertion, "nbf") or _seconds(assertion, "iat") or now
    if ends is not None and starts - CLOCK_SKEW <= now < ends and ends - begins <= longest:
        return
    raise EntraError(
        401,
        "invalid_client",
        700024,
        "Client assertion is not within its valid time range. Current time:"
        f" {_stamp(now)}, assertion valid from {_stamp(starts)}, expiry time of assertion"
        f" {_stamp(ends or 0.0)}. Review the documentation at {CERTIFICATES} .",
    )


def _seconds(assertion: Assertion, name: str) -> float | None:
    value = assertion.claims.get(name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < 2**40 else None  # type: ignore[operator, arg-type]


def _stamp(seconds: float) -> str:
    return f"{moment(seconds):%Y-%m-%dT%H:%M:%S.%f}0Z"

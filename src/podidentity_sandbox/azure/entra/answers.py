"""What is asked for, and the answer that holds the token: by the rules of v1 and of v2.0.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

from collections.abc import Mapping

from podidentity_sandbox.azure.entra.errors import EntraError, missing
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.tokens import CLOCK_SKEW

LONG = 7200
"""Seconds from which on Entra says when a token is best renewed: halfway."""
_HEADERS = {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"}
_SUFFIX = "/.default"


def resource_of(form: Mapping[str, str], *, v2: bool) -> str:
    """Return the resource that the form asks a token for; raise EntraError."""
    name = "scope" if v2 else "resource"
    asked = form.get(name, "")
    if not asked:
        raise missing(name)
    if not v2:
        return asked
    if sum(scope.endswith(_SUFFIX) for scope in asked.split()) > 1:
        raise EntraError(
            400,
            "invalid_scope",
            70011,
            "The provided value for the input parameter 'scope' is not valid. One or more scopes in"
            f" '{asked}' are not compatible with each other.",
        )
    if not asked.endswith(_SUFFIX) or " " in asked:
        raise EntraError(
            400,
            "invalid_scope",
            1002012,
            f"The provided value for scope {asked} is not valid. Client credential flows must have"
            " a scope value with /.default suffixed to the resource identifier (application ID"
            " URI).",
        )
    # Everything before the last segment is the resource: `https://x//.default` keeps its slash.
    return asked.removesuffix(_SUFFIX)


def v2_answer(token: str, lifetime: int) -> Reply:
    """Return a token as v2.0 does: numbers are numbers, and few."""
    left = lifetime - 1
    body: dict[str, object] = {
        "token_type": "Bearer",
        "expires_in": left,
        "ext_expires_in": left,
    }
    if lifetime >= LONG:
        body["refresh_in"] = left // 2
    return Reply.json({**body, "access_token": token}, headers=_HEADERS)


def v1_answer(token: str, lifetime: int, *, resource: str, now: float) -> Reply:
    """Return a token as v1 does: everything is a string."""
    left = lifetime - 1
    body = {
        "token_type": "Bearer",
        "expires_in": str(left),
        "ext_expires_in": str(left),
        "expires_on": str(int(now) + lifetime),
        "not_before": str(int(now) - CLOCK_SKEW),
        "resource": resource,
    }
    if lifetime >= LONG:
        body["refresh_in"] = str(left // 2)
    return Reply.json({**body, "access_token": token}, headers=_HEADERS)

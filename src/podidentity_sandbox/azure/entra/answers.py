"""Answers of the token endpoint: a token by the rules of v1 and of v2.0, or a refusal.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.tokens import CLOCK_SKEW

# ---- Refusals: an OAuth error, an AADSTS number, words, and the ids that support asks for
#
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes


_OF_CLIENTS = {
    *(70025, 700021, 700023, 700024, 700027, 700211, 700212, 700213, 7002138, 700222, 700226),
    *(7000215, 7000218, 7000222, 7000232),
}
_ERRORS = {
    **dict.fromkeys(_OF_CLIENTS, "invalid_client"),
    70003: "unsupported_grant_type",
    70011: "invalid_scope",
    90033: "temporarily_unavailable",
    90055: "temporarily_unavailable",
    500011: "invalid_resource",
    700016: "unauthorized_client",
    1002012: "invalid_scope",
}
"""The OAuth error of each number, where it is not invalid_request."""


class EntraError(Exception):
    """A refusal: AADSTS number and words, and the OAuth error and HTTP status of that number."""

    def __init__(self, code: int, text: str, *, status: int = 0) -> None:
        """`status` is given of faults alone, which have several."""
        super().__init__(f"AADSTS{code}: {text}")
        self.code = code
        self.error = _ERRORS.get(code, "invalid_request")
        self.status = status or (401 if self.error == "invalid_client" else 400)

    def reply(self, now: float) -> Reply:
        """Return the answer that says so; `now` is seconds since 1970."""
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        return Reply.json(
            {
                "error": self.error,
                "error_description": f"{self} Trace ID: {trace} Correlation ID: {correlation}"
                f" Timestamp: {stamp}",
                "error_codes": [self.code],
                "timestamp": stamp,
                "trace_id": trace,
                "correlation_id": correlation,
                "error_uri": f"https://login.microsoftonline.com/error?code={self.code}",
            },
            status=self.status,
            headers={"x-ms-request-id": trace},
        )


def missing(name: str) -> EntraError:
    """Return what Entra says of a form without that field."""
    return EntraError(
        900144,
        f"The request body must contain the following parameter: '{name}'.",
    )


def doubled(name: str) -> EntraError:
    """Return what Entra says of a form that has a field twice.

    https://github.com/AzureAD/microsoft-authentication-library-for-android/issues/688
    """
    return EntraError(
        9000411,
        f"The request is not properly formatted. The parameter '{name}' is duplicated.",
    )


def unknown_resource(resource: str, tenant: str) -> EntraError:
    """Return what Entra says of a resource that the tenant has no principal for."""
    return EntraError(
        500011,
        f"The resource principal named {resource} was not found in the tenant named {tenant}. This"
        " can happen if the application has not been installed by the administrator of the tenant"
        " or consented to by any user in the tenant. You might have sent your authentication"
        " request to the wrong tenant.",
    )


_TRANSIENT = (90033, "A transient error has occurred. Please try again.")
_FAULTS = {
    410: (90036, "An unexpected, non-retryable error stemmed from the directory service."),
    # The body of a throttled answer is nowhere published: the status and Retry-After are what
    # clients go by.
    429: (90055, "The server is terminating a request due to too many requests."),
    500: _TRANSIENT,
    503: _TRANSIENT,
}


def refusal(status: int, now: float) -> Reply:
    """Return an error that a test asks for."""
    return EntraError(*_FAULTS[status], status=status).reply(now)


# ---- Tokens

LONG = 7200
"""Seconds from which on Entra says when a token is best renewed: halfway."""
_HEADERS = {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"}
_SUFFIX = "/.default"
_OF_USERS = frozenset({"openid", "offline_access", "profile"})
"""Scopes that concern users, and here nobody. MSAL for Go and Java adds them to each request, and
there is neither an id token nor a refresh token for them.

https://github.com/AzureAD/microsoft-authentication-library-for-go/blob/main/apps/internal/oauth/ops/accesstokens/accesstokens.go
"""


def resource_of(form: Mapping[str, str], *, v2: bool) -> str:
    """Return the resource that the form asks a token for; raise EntraError."""
    name = "scope" if v2 else "resource"
    asked = form.get(name, "")
    if not asked:
        raise missing(name)
    if not v2:
        return asked
    scopes = [scope for scope in asked.split() if scope not in _OF_USERS]
    if sum(scope.endswith(_SUFFIX) for scope in scopes) > 1:
        raise EntraError(
            70011,
            "The provided value for the input parameter 'scope' is not valid. One or more scopes in"
            f" '{asked}' are not compatible with each other.",
        )
    if len(scopes) != 1 or not scopes[0].endswith(_SUFFIX):
        raise EntraError(
            1002012,
            f"The provided value for scope {asked} is not valid. Client credential flows must have"
            " a scope value with /.default suffixed to the resource identifier (application ID"
            " URI).",
        )
    # Everything before the last segment is the resource: `https://x//.default` keeps its slash.
    return scopes[0].removesuffix(_SUFFIX)


def answer(token: str, lifetime: int, resource: str, now: float, *, v2: bool) -> Reply:
    """Return a token: with few members that are numbers as v2.0 does, or with strings as v1."""
    left = lifetime - 1
    times = {"expires_in": left, "ext_expires_in": left}
    if lifetime >= LONG:
        times["refresh_in"] = left // 2
    more: dict[str, object] = {**times}
    if not v2:
        times |= {"expires_on": int(now) + lifetime, "not_before": int(now) - CLOCK_SKEW}
        more = {"resource": resource, **{name: str(value) for name, value in times.items()}}
    body = {"token_type": "Bearer", **more, "access_token": token}
    return Reply.json(body, headers=_HEADERS)

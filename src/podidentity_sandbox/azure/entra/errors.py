"""How Entra refuses: an OAuth error, an AADSTS number, words, and what support asks for.

https://learn.microsoft.com/entra/identity-platform/reference-error-codes
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from podidentity_sandbox.azure.messages import Reply


class EntraError(Exception):
    """A refusal: HTTP status, OAuth error, AADSTS number and words."""

    def __init__(self, status: int, error: str, code: int, text: str) -> None:
        super().__init__(f"AADSTS{code}: {text}")
        self.status = status
        self.error = error
        self.code = code

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
        400,
        "invalid_request",
        900144,
        f"The request body must contain the following parameter: '{name}'.",
    )


def unknown_resource(resource: str, tenant: str) -> EntraError:
    """Return what Entra says of a resource that the tenant has no principal for."""
    return EntraError(
        400,
        "invalid_resource",
        500011,
        f"The resource principal named {resource} was not found in the tenant named {tenant}. This"
        " can happen if the application has not been installed by the administrator of the tenant"
        " or consented to by any user in the tenant. You might have sent your authentication"
        " request to the wrong tenant.",
    )


_FAULTS = {
    410: (
        "invalid_request",
        90036,
        "An unexpected, non-retryable error stemmed from the directory service.",
    ),
    # The body of a throttled answer is nowhere published: the status and Retry-After are what
    # clients go by.
    429: (
        "temporarily_unavailable",
        90055,
        "The server is terminating a request due to too many requests.",
    ),
    500: ("server_error", 90033, "A transient error has occurred. Please try again."),
    503: ("temporarily_unavailable", 90033, "A transient error has occurred. Please try again."),
}


def refusal(status: int, now: float) -> Reply:
    """Return an error that a test asks for."""
    return EntraError(status, *_FAULTS[status]).reply(now)

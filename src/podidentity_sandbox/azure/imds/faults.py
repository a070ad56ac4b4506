"""How IMDS words the errors that a test asks it for.

https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling
"""

from __future__ import annotations

from podidentity_sandbox.azure.messages import Reply

_WORDS = {
    410: ("gone", "IMDS is being updated"),
    429: ("too_many_requests", "Too many requests"),
    500: ("server_error", "Failed to retrieve token from the Active directory."),
    503: ("service_unavailable", "The service is unavailable"),
}


def refusal(status: int) -> Reply:
    """Return the answer of that status."""
    error, description = _WORDS[status]
    return Reply.json({"error": error, "error_description": description}, status=status)

"""In a storm a test is green, or ends with a refusal that names its cause.

What the weather did to a sandbox stands in its journal. A refusal names that by the words of the
service that was struck, which each program in between must have passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from podidentity_sandbox.weather import JOURNAL

_BROKEN = ("cannot be asked", "onnection reset", "isconnected", "EOF")
WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "arm": {
        "429": ("SubscriptionRequestsThrottled", "OperationNotAllowed"),
        "500": ("InternalServerError",),
        "503": ("ServiceUnavailable",),
        "reset": _BROKEN,
        "locked": ("ScopeLocked",),
        "denied": ("DenyAssignmentAuthorizationFailed",),
        "InternalExecutionError": ("InternalExecutionError",),
        "OperationPreempted": ("OperationPreempted",),
    },
    "entra": {
        "429": ("AADSTS90055",),
        "500": ("AADSTS90033",),
        "503": ("AADSTS90033",),
        "reset": _BROKEN,
    },
    "imds": {
        "410": ("IMDS is being updated",),
        "429": ("Too many requests",),
        "500": ("Failed to retrieve token from the Active directory",),
        "503": ("The service is unavailable",),
        "reset": _BROKEN,
    },
    "apiserver": {
        "429": ("Too many requests", "too many requests"),
        "500": ("etcdserver: request timed out",),
        "503": ("unable to handle the request",),
        "reset": _BROKEN,
    },
}
"""By service and effect: how who was refused says so."""


def journal(folder: Path) -> list[str]:
    """Return what the weather did to the sandbox of a folder, line by line."""
    path = folder / JOURNAL
    return path.read_text().splitlines() if path.exists() else []


def cause(text: str, lines: list[str]) -> str:
    """Return the line of a journal that the text names; "" if it names none."""
    for line in lines:
        service, _, _, effect = line.split("\t")
        if any(word in text for word in WORDS[service].get(effect, ())):
            return line
    return ""

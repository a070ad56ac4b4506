"""In a storm a test is green, or ends with a refusal that names its cause.

What the weather did to a sandbox stands in its journal. A refusal names that by the words of the
service that was struck, which each program in between must have passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from podidentity_sandbox.weather import Struck

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
        "500": ("etcdserver: request timed out", "API server cannot be asked"),
        "503": ("unable to handle the request",),
        "reset": _BROKEN,
    },
}
"""By service and effect: how who was refused says so."""


_THROTTLED = 10.0
"""The longest Retry-After of a storm, in seconds."""


def cause(text: str, struck: Iterable[Struck], since: float = 0) -> Struck | None:
    """Return what the weather did that the text names; None if it names nothing.

    What struck before `since` (seconds since the epoch) is a cause only if the text names the
    object, too: a condition on it may have stayed. Who was throttled says so until its Retry-After.
    Of several it is one whose object is named, then one with more words of the same line (who
    asked, how, for what), then the last.
    """
    found = []
    for each in struck:
        lines = [line for line in text.splitlines() if names(line, each) and _asked(line, each)]
        if not lines:
            continue
        name = each.about.rstrip("/").rpartition("/")[2].lower()
        about = bool(name) and _is_about(text, name)
        if about or each.at + (_THROTTLED if each.effect == "429" else 0) >= since:
            alike = max(len(_words(line) & _words(each.kind)) for line in lines)
            found.append((about, alike, each.at, each))
    return max(found, key=lambda each: each[:3])[-1] if found else None


def _asked(line: str, struck: Struck) -> bool:
    """Whether a line may come of what was struck: commands of people are no service account's."""
    said_by_command = line.lstrip().lower().startswith("error")
    return not (said_by_command and struck.kind.startswith("system:serviceaccount:"))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{3,}", text.lower()))


def names(text: str, struck: Struck) -> bool:
    """Whether a text says what befell, in the words of the service."""
    return any(word in text for word in WORDS[struck.service].get(struck.effect, ()))


def _is_about(text: str, name: str) -> bool:
    """Whether a text names an object, and none whose name is longer."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text.lower()) is not None

"""Tell a refusal that lasts from a refusal by an API server that starts.

RBAC of a kube-apiserver that starts is empty for 0.3 to 3 s. Meanwhile every client gets 403, and
a SubjectAccessReview says `allowed: false`, mostly without `evaluationError`. So NMI and MIC ask
again 5 s later. Only the second refusal ends a permission or is called a missing right.
"""

from __future__ import annotations

ASK_AGAIN = 5.0
"""Seconds from the first refusal to the second."""

STARTING = "the API server answers 403, as one that starts does"
"""What is said of a 403 until it lasts."""


class Lasting:
    """The refusals of one thing, in a row. Times are in seconds of one clock."""

    def __init__(self) -> None:
        self.since: float | None = None
        """When the first refusal came; None after any other answer."""

    def refused(self, now: float) -> bool:
        """Take a refusal; return whether it lasts."""
        if self.since is None:
            self.since = now
        return now - self.since >= ASK_AGAIN

    def passed(self) -> None:
        """Take any other answer, or none."""
        self.since = None

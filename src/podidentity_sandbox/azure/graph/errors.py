"""How Graph refuses: https://learn.microsoft.com/graph/errors."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from podidentity_sandbox.azure.messages import Reply


class GraphError(Exception):
    """A refusal in Graph's envelope."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def reply(self, now: float) -> Reply:
        """Return the answer that says so."""
        tracking = str(uuid.uuid4())
        inner = {
            "date": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": tracking,
            "client-request-id": tracking,
        }
        error = {"code": self.code, "message": str(self), "innerError": inner}
        return Reply.json({"error": error}, status=self.status)


def unknown(name: str) -> GraphError:
    """Return what is said of an object that is not there."""
    return GraphError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{name}' does not exist or one of its queried reference-property objects are"
        " not present.",
    )


def bad(message: str) -> GraphError:
    """Return what is said of a request that makes no sense."""
    return GraphError(400, "Request_BadRequest", message)

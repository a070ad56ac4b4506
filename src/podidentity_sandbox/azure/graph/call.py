"""A request to one tenant's directory, authorized, for its handler; refusals; and `$filter`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from podidentity_sandbox.azure.messages import BadBody, Reply, Request
from podidentity_sandbox.azure.state import Principal, World
from podidentity_sandbox.azure.tenants import Tenant

# ---- Refusals: https://learn.microsoft.com/graph/errors


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
    """Return the error for an object that does not exist."""
    return GraphError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{name}' does not exist or one of its queried reference-property objects are"
        " not present.",
    )


def bad(message: str) -> GraphError:
    """Return the error for an invalid request."""
    return GraphError(400, "Request_BadRequest", message)


# ---- The request


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCall:
    """One request."""

    world: World
    tenant: Tenant
    """Of the caller: nobody sees another tenant's directory."""
    request: Request

    @property
    def principals(self) -> list[Principal]:
        """The tenant's service principals."""
        everybody = self.world.principals.values()
        return [one for one in everybody if one.tenant_id == self.tenant.id]

    def body(self) -> dict[str, Any]:
        """Return the JSON object that was sent; raise GraphError."""
        try:
            return self.request.json_object()
        except BadBody as error:
            raise GraphError(400, "BadRequest", str(error)) from error

    def collection(self, kind: str, value: list[dict[str, Any]]) -> Reply:
        """Return a list of objects."""
        context = f"https://{self.tenant.cloud.graph}/v1.0/$metadata#{kind}"
        return Reply.json({"@odata.context": context, "value": value})


# ---- `$filter` as far as it is served: one clause, of those that a kind of object has.
#
# https://learn.microsoft.com/graph/filter-query-parameter

_T = TypeVar("_T")
Rules = Mapping[str, Callable[[_T, str], bool]]
"""Clauses as patterns, with QUOTED for the value; and what each admits, the value in lower case."""


def admitted(call: GraphCall, found: Iterable[_T], rules: Rules[_T]) -> list[_T]:
    """Return those of `found` that the request asks for; raise GraphError."""
    asked = call.request.parameter("$filter").strip()
    if not asked:
        return list(found)
    for clause, admits in rules.items():
        pattern = clause.replace("QUOTED", "'(?P<value>[^']*)'")
        if match := re.fullmatch(pattern, asked, re.IGNORECASE):
            return [one for one in found if admits(one, match["value"].lower())]
    message = f"Unsupported or invalid query filter clause specified: {asked}."
    raise GraphError(400, "Request_UnsupportedQuery", message)

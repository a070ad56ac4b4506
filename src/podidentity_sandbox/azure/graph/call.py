"""What a handler of Graph gets: one authorized request to one tenant's directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from podidentity_sandbox.azure.directory import Principal
from podidentity_sandbox.azure.graph.errors import GraphError
from podidentity_sandbox.azure.messages import BadBody, Reply, Request
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
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

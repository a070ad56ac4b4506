"""A request to ARM, taken apart for its handler, and the refusals.

The envelope and codes: https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from podidentity_sandbox.azure.arm.roles import Role
from podidentity_sandbox.azure.messages import Reply, Request, ServiceError
from podidentity_sandbox.azure.state import Group, L, Located, RoleAssignment, World
from podidentity_sandbox.azure.verification import Caller


class ArmError(ServiceError):
    """A refusal of ARM."""


def _unreadable(why: str) -> ArmError:
    message = f"The request content was invalid and could not be deserialized: '{why}'."
    return ArmError(400, "InvalidRequestContent", message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCall:
    """One authorized request to ARM."""

    world: World
    request: Request
    caller: Caller
    params: Mapping[str, str]
    """The groups of the route's pattern, in the case of the request's path."""
    now: float
    """Seconds since 1970."""

    @property
    def id(self) -> str:
        """Id of what the path addresses, or whose action it is."""
        path = self.request.path.rstrip("/")
        return path.rpartition("/")[0] if self.request.method == "POST" else path

    @property
    def resource_id(self) -> str:
        """Id of the resource in a group that the path leads to, or to a part of."""
        return "/".join(self.request.path.split("/")[:9])

    def body(self) -> dict[str, Any]:
        return self.request.json_object(_unreadable)

    @property
    def subscription(self) -> str:
        """ARM id of the subscription of the path; the cluster's where it has none."""
        named = self.params.get("subscription")
        return f"/subscriptions/{named.lower()}" if named else self.world.subscription

    def group(self) -> Group:
        """Return the resource group of the path; raise ArmError."""
        name = self.params["group"]
        group = self.world.find(Group, f"{self.subscription}/resourceGroups/{name}")
        if group is None:
            message = f"Resource group '{name}' could not be found."
            raise ArmError(404, "ResourceGroupNotFound", message)
        return group

    def find(self, record: type[L]) -> L | None:
        """Return the resource of the path, or None; raise ArmError where its group is not there."""
        self.group()
        return self.world.find(record, self.resource_id)

    def existing(self, record: type[L]) -> L:
        """Return the resource of the path; raise ArmError where it or its group is not there."""
        found = self.find(record)
        if found is None:
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource '{record.TYPE}/{self.params['name']}' under resource group"
                f" '{self.params['group']}' was not found. For more details please go to"
                " https://aka.ms/ARMResourceNotFoundFix",
            )
        return found

    def removed(self, record: type[Located]) -> Reply:
        """Delete the resource of the path, with all below it, and answer; raise ArmError."""
        if self.find(record) is None:
            return Reply(status=204)
        self.world.remove(self.resource_id)
        return Reply(status=200)

    def listed(self, record: type[L]) -> list[L]:
        """Return the resources of the path's group or subscription that the caller may read.

        A caller with a role at one resource alone is shown just that one; without any, refused.
        """
        below = self.group().id if "group" in self.params else self.subscription
        mine, read = self.caller.object_id, f"{record.TYPE}/read"
        if not any(
            assignment.principal_id == mine
            and (inside(assignment.scope, below) or inside(below, assignment.scope))
            for assignment in self.world.all(RoleAssignment)
        ):
            self.require(read, below)
        found = self.world.all(record, below)
        return [one for one in found if allows(self.world, mine, read, one.id)]

    def require(self, action: str, scope: str) -> None:
        """Raise ArmError unless the caller may do `action` at `scope`."""
        mine = self.caller.object_id
        if not allows(self.world, mine, action, scope):
            raise ArmError(
                403,
                "AuthorizationFailed",
                f"The client '{self.caller.app_id}' with object id '{mine}' does not have"
                f" authorization to perform action '{action}' over scope '{scope}' or the scope is"
                " invalid. If access was recently granted, please refresh your credentials.",
            )


Handler = Callable[[ArmCall], Reply]


def allows(world: World, object_id: str, action: str, scope: str) -> bool:
    return any(role.allows(action) for role in roles_at(world, object_id, scope))


def roles_at(world: World, object_id: str, scope: str) -> Iterator[Role]:
    """Return the roles that the principal has at `scope` or above, as far as they hold by now."""
    for assignment in world.counting(RoleAssignment):
        role = world.role(assignment.role_id)
        if role and assignment.principal_id == object_id and inside(scope, assignment.scope):
            yield role


def inside(scope: str, other: str) -> bool:
    return f"{scope.lower()}/".startswith(f"{other.lower()}/")


def location_of(body: Mapping[str, Any]) -> str:
    """Return the location that a new resource names; raise ArmError."""
    location = body.get("location")
    if not isinstance(location, str) or not location:
        message = "The location property is required for this definition."
        raise ArmError(400, "LocationRequired", message)
    return location.replace(" ", "").lower()


def tags_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a resource; raise ArmError."""
    tags = body.get("tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        message = "The tags must be an object of strings."
        raise ArmError(400, "InvalidRequestContent", message)
    return tags

"""Role definitions and role assignments, at any scope.

https://learn.microsoft.com/rest/api/authorization/role-assignments
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, inside
from podidentity_sandbox.azure.arm.roles import ROLES, Role, role_of
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import RoleAssignment, RoleDefinition

_NAME_FILTER = re.compile(r"\s*roleName\s+eq\s+'(?P<name>[^']*)'\s*", re.IGNORECASE)
_WHO_FILTER = re.compile(
    r"(?:\s*atScope\(\)\s+and\s+)?\s*(?:assignedTo\('(?P<to>[^']*)'\)"
    r"|principalId\s+eq\s+'(?P<id>[^']*)')\s*",
    re.IGNORECASE,
)


def list_definitions(call: ArmCall) -> Reply:
    """List the roles, all or the one that `$filter=roleName eq '…'` names."""
    asked = call.request.parameter("$filter")
    match = _NAME_FILTER.fullmatch(asked)
    if asked and match is None:
        raise _bad_filter(asked)
    name = match["name"].lower() if match else ""
    every = [*ROLES, *(one.role for one in call.world.all(RoleDefinition))]
    here = [role for role in every if role.assignable(call.params["scope"])]
    found = [role for role in here if name in ("", role.name.lower())]
    return Reply.json({"value": [_shown_role(call, role) for role in found]})


def get_definition(call: ArmCall) -> Reply:
    role = call.world.role(call.params["name"])
    if role is None:
        raise _no_such_role(404, call.params["name"])
    return Reply.json(_shown_role(call, role))


def put_definition(call: ArmCall) -> Reply:
    """Make or change a custom role.

    https://learn.microsoft.com/rest/api/authorization/role-definitions/create-or-update
    """
    if role_of(call.params["name"]) is not None:
        raise ArmError(403, "CannotUpdateBuiltInRole", "A built in role cannot be changed.")
    asked = _asked_role(call)
    for other in call.world.all(RoleDefinition):
        if other.role.name == asked.name and other.role.id != asked.id:
            message = f"A custom role with the same name already exists: {asked.name}."
            raise ArmError(409, "RoleDefinitionWithSameNameExists", message)
    call.world.put(RoleDefinition(id=_definition_id(call, asked.id), role=asked))
    return Reply.json(_shown_role(call, asked), status=201)


def delete_definition(call: ArmCall) -> Reply:
    found = call.world.find(RoleDefinition, _definition_id(call, call.params["name"]))
    if found is None:
        return Reply(status=204)
    if any(each.role_id == found.role.id for each in call.world.all(RoleAssignment)):
        message = "There are existing role assignments that reference the role."
        raise ArmError(400, "RoleDefinitionHasAssignments", message)
    call.world.remove(found.id)
    return Reply.json(_shown_role(call, found.role))


def list_assignments(call: ArmCall) -> Reply:
    """List the assignments that hold at the scope and, without `atScope()`, those below it."""
    asked = call.request.parameter("$filter")
    match = _WHO_FILTER.fullmatch(asked)
    only_here = asked.strip().lower().startswith("atscope()")
    if asked and match is None and asked.strip().lower() != "atscope()":
        raise _bad_filter(asked)
    who = (match["to"] or match["id"]).lower() if match else ""
    here = call.params["scope"]
    found = [
        one
        for one in call.world.all(RoleAssignment)
        if who in ("", one.principal_id)
        and (inside(here, one.scope) or (not only_here and inside(one.scope, here)))
    ]
    return Reply.json({"value": [_json(call, one) for one in found]})


def put_assignment(call: ArmCall) -> Reply:
    asked = _asked(call)
    old = call.world.find(RoleAssignment, call.id)
    if old and _grant(old) == _grant(asked):
        return Reply.json(_json(call, old))
    if old:
        message = (
            "Tenant ID, application ID, principal ID, and scope are not allowed to be updated."
        )
        raise ArmError(400, "RoleAssignmentUpdateNotPermitted", message)
    for other in call.world.all(RoleAssignment):
        if _grant(other) == _grant(asked):
            raise ArmError(409, "RoleAssignmentExists", "The role assignment already exists.")
    call.world.put(asked)
    return Reply.json(_json(call, asked), status=201)


def delete_assignment(call: ArmCall) -> Reply:
    assignment = call.world.find(RoleAssignment, call.id)
    if assignment is None:
        return Reply(status=204)
    call.world.remove(assignment.id)
    return Reply.json(_json(call, assignment))


def _asked(call: ArmCall) -> RoleAssignment:
    properties = _properties(call)
    role_id = str(properties.get("roleDefinitionId", "")).rpartition("/")[2]
    role = call.world.role(role_id)
    if role is None or not role.assignable(call.params["scope"]):
        raise _no_such_role(400, role_id)
    principal = str(properties.get("principalId", "")).lower()
    if principal not in call.world.principals:
        raise ArmError(
            400,
            "PrincipalNotFound",
            f"Principal {principal.replace('-', '')} does not exist in the directory"
            f" {call.world.plan.tenant_id}. Check that you have the correct principal ID. If you"
            " are creating this principal and then immediately assigning a role, this error might"
            " be related to a replication delay. In this case, set the role assignment"
            " principalType property to a value, such as ServicePrincipal, User, or Group.  See"
            " https://aka.ms/docs-principaltype",
        )
    return RoleAssignment(
        id=f"{call.params['scope']}/providers/Microsoft.Authorization/roleAssignments/{_name(call)}",
        name=_name(call),
        scope=call.params["scope"],
        role_id=role.id,
        principal_id=principal,
        since=call.now + call.world.weather.seconds("roles"),
    )


def _properties(call: ArmCall) -> dict[str, Any]:
    properties = call.body().get("properties")
    if not isinstance(properties, dict):
        raise ArmError(400, "InvalidRequestContent", "The properties are required.")
    return properties


def _no_such_role(status: int, role_id: str) -> ArmError:
    message = f"The specified role definition with ID '{role_id}' does not exist."
    return ArmError(status, "RoleDefinitionDoesNotExist", message)


def _name(call: ArmCall) -> str:
    try:
        return str(uuid.UUID(call.params["name"]))
    except ValueError as error:
        message = f"The role assignment ID '{call.params['name']}' is not valid. The role"
        raise ArmError(
            400, "InvalidRoleAssignmentId", f"{message} assignment ID must be a GUID."
        ) from error


def _asked_role(call: ArmCall) -> Role:
    properties = _properties(call)
    permissions, scopes = properties.get("permissions"), properties.get("assignableScopes")
    if not isinstance(scopes, list) or not scopes:
        message = "The role definition needs at least one assignable scope."
        raise ArmError(400, "MissingAssignableScopes", message)
    if not isinstance(permissions, list) or len(permissions) != 1:
        message = "The role definition needs one set of permissions."
        raise ArmError(400, "InvalidRoleDefinitionPermissions", message)

    def listed(name: str) -> tuple[str, ...]:
        return tuple(map(str, permissions[0].get(name) or ()))

    return Role(
        id=_name(call),
        name=str(properties.get("roleName", "")),
        actions=listed("actions"),
        not_actions=listed("notActions"),
        data_actions=listed("dataActions"),
        scopes=tuple(map(str, scopes)),
    )


def _grant(one: RoleAssignment) -> tuple[str, str, str]:
    return one.role_id, one.principal_id, one.scope.lower()


def _bad_filter(text: str) -> ArmError:
    return ArmError(400, "UnsupportedFilter", f"The filter '{text}' is not supported.")


def _definition_id(call: ArmCall, role_id: str) -> str:
    base = f"{call.subscription}/providers/Microsoft.Authorization"
    return f"{base}/roleDefinitions/{role_id}"


def _shown_role(call: ArmCall, role: Role) -> dict[str, Any]:
    permissions = {
        "actions": list(role.actions),
        "notActions": list(role.not_actions),
        "dataActions": list(role.data_actions),
        "notDataActions": [],
    }
    return {
        "id": _definition_id(call, role.id),
        "name": role.id,
        "type": "Microsoft.Authorization/roleDefinitions",
        "properties": {
            "roleName": role.name,
            "type": "BuiltInRole" if role_of(role.id) else "CustomRole",
            "assignableScopes": list(role.scopes),
            "permissions": [permissions],
        },
    }


def _json(call: ArmCall, assignment: RoleAssignment) -> dict[str, Any]:
    return {
        "id": assignment.id,
        "name": assignment.name,
        "type": "Microsoft.Authorization/roleAssignments",
        "properties": {
            "roleDefinitionId": _definition_id(call, assignment.role_id),
            "principalId": assignment.principal_id,
            "principalType": "ServicePrincipal",
            "scope": assignment.scope,
        },
    }

"""Role definitions and assignments, at any scope."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from podidentity_sandbox.azure.arm.roles import ROLES
from podidentity_sandbox.azure.state import UserAssignedIdentity
from tests.sandbox.azure.direct import Direct

AUTHORIZATION = "providers/Microsoft.Authorization"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
OWN = "Microsoft.ManagedIdentity/userAssignedIdentities"


@pytest.mark.parametrize(
    ("role", "action", "allowed"),
    [
        ("Owner", "Microsoft.Authorization/roleAssignments/write", True),
        ("Contributor", "Microsoft.Authorization/roleAssignments/write", False),
        ("Contributor", "Microsoft.Authorization/roleAssignments/read", True),
        ("Contributor", "Microsoft.Compute/virtualMachineScaleSets/write", True),
        ("Reader", "Microsoft.Compute/virtualMachineScaleSets/read", True),
        ("Reader", "Microsoft.Compute/virtualMachineScaleSets/write", False),
        ("Managed Identity Operator", f"{OWN}/assign/action", True),
        ("Managed Identity Operator", f"{OWN}/read", True),
        ("Managed Identity Operator", f"{OWN}/write", False),
        ("Virtual Machine Contributor", "Microsoft.Compute/virtualMachineScaleSets/write", True),
        ("Virtual Machine Contributor", f"{OWN}/assign/action", False),
    ],
)
def test_a_role_allows_what_azure_says_it_does(role: str, action: str, allowed: bool) -> None:
    found = next(one for one in ROLES if one.name == role)
    assert found.allows(action) is allowed
    assert found.allows(action.upper()) is allowed


@pytest.fixture
def mine(direct: Direct) -> UserAssignedIdentity:
    return direct.identity("mine")


def grant(principal: str, role: str = READER) -> dict[str, object]:
    where = f"/subscriptions/x/{AUTHORIZATION}/roleDefinitions/{role}"
    return {"properties": {"roleDefinitionId": where, "principalId": principal}}


TAKEN, NEW = (str(uuid.UUID(int=number)) for number in (1, 2))


@pytest.mark.parametrize(
    ("name", "body", "refusal"),
    [
        (NEW, {}, (409, "RoleAssignmentExists")),  # the same grant under another name
        (TAKEN, {"role": ROLES[0].id}, (400, "RoleAssignmentUpdateNotPermitted")),
        ("x", {}, (400, "InvalidRoleAssignmentId")),
        (NEW, {"principal": NEW}, (400, "PrincipalNotFound")),
        (NEW, {"role": "x"}, (400, "RoleDefinitionDoesNotExist")),
        (NEW, [], (400, "InvalidRequestContent")),  # no properties
        (NEW, None, (400, "InvalidRequestContent")),  # no JSON
    ],
)
def test_an_assignment_that_cannot_be_is_refused(
    direct: Direct, mine: UserAssignedIdentity, name: str, body: Any, refusal: tuple[int, str]
) -> None:
    base = f"{mine.id}/{AUTHORIZATION}/roleAssignments"
    direct.made("PUT", f"{base}/{TAKEN}", grant(mine.principal_id))
    if isinstance(body, dict):
        body = grant(**{"principal": mine.principal_id, **body})
    elif body is not None:
        body = {}
    assert direct.refused("PUT", f"{base}/{name}", body) == refusal


def custom(direct: Direct, *actions: str, scope: str = "") -> dict[str, Any]:
    permissions = [{"actions": list(actions), "notActions": []}]
    scopes = [scope or direct.world.subscription]
    named = {"roleName": "mine", "type": "CustomRole", "permissions": permissions}
    return {"properties": {**named, "assignableScopes": scopes}}


def test_a_custom_role_grants_what_it_names_and_nothing_else(
    direct: Direct, mine: UserAssignedIdentity
) -> None:
    role = str(uuid.uuid4())
    base = f"{direct.world.subscription}/{AUTHORIZATION}/roleDefinitions"
    who = direct.principal_of(mine)
    made = direct.made("PUT", f"{base}/{role}", custom(direct, f"{OWN}/read"))
    assert (made["properties"]["type"], made["properties"]["roleName"]) == ("CustomRole", "mine")
    path = f"{mine.id}/{AUTHORIZATION}/roleAssignments/{uuid.uuid4()}"
    direct.made("PUT", path, grant(mine.principal_id, role))
    assert direct.arm("GET", mine.id, principal=who)[0] == 200
    assert direct.refused("DELETE", mine.id, principal=who) == (403, "AuthorizationFailed")
    refused = direct.arm("DELETE", f"{base}/{role}")[1]["error"]["code"]
    assert refused == "RoleDefinitionHasAssignments"
    direct.made("DELETE", path)
    assert [direct.arm("DELETE", f"{base}/{role}")[0] for _ in range(2)] == [200, 204]
    assert direct.arm("GET", f"{base}/{role}")[0] == 404


def test_a_custom_role_is_assigned_within_its_scopes_alone(
    direct: Direct, mine: UserAssignedIdentity
) -> None:
    role = str(uuid.uuid4())
    base = f"{direct.world.subscription}/{AUTHORIZATION}/roleDefinitions"
    direct.made("PUT", f"{base}/{role}", custom(direct, "*/read", scope=mine.id))
    body = grant(mine.principal_id, role)
    where = f"{AUTHORIZATION}/roleAssignments"
    wider = direct.arm("PUT", f"{direct.world.subscription}/{where}/{uuid.uuid4()}", body)
    assert wider[1]["error"]["code"] == "RoleDefinitionDoesNotExist"
    assert direct.arm("PUT", f"{mine.id}/{where}/{uuid.uuid4()}", body)[0] == 201


def test_no_built_in_role_is_changed_no_name_used_twice_and_no_half_role_made(
    direct: Direct,
) -> None:
    base = f"{direct.world.subscription}/{AUTHORIZATION}/roleDefinitions"
    body = custom(direct, "*/read")
    for left_out, code in (
        ("assignableScopes", "MissingAssignableScopes"),
        ("permissions", "InvalidRoleDefinitionPermissions"),
    ):
        half = {"properties": {**body["properties"], left_out: []}}
        assert direct.refused("PUT", f"{base}/{uuid.uuid4()}", half) == (400, code)
    assert direct.arm("PUT", f"{base}/{READER}", body)[0] == 403
    direct.made("PUT", f"{base}/{uuid.uuid4()}", body)
    again = direct.arm("PUT", f"{base}/{uuid.uuid4()}", body)[1]["error"]["code"]
    assert again == "RoleDefinitionWithSameNameExists"
    query = "api-version=2022-04-01&$filter=roleName%20eq%20'mine'"
    (found,) = direct.made("GET", f"{base}?{query}")["value"]
    assert found["properties"]["roleName"] == "mine"

from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.core.hosts import HostIdentities
from podidentity.core.resources import ResourceId
from podidentity.wire import arm
from podidentity.wire.arm import ArmError, RolePermission

ID = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/Group.(1)/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/one"
)
OTHER = ID.replace("/one", "/two")
WANTED = ResourceId.parse(ID)
LOWER = ID.lower()
CLIENT = "11111111-1111-1111-1111-111111111111"
OBJECT = "22222222-2222-2222-2222-222222222222"


def host(block: dict[str, Any] | None) -> HostIdentities:
    return arm.parse_host(json.dumps({"name": "x", "identity": block}).encode())


def user(kind: str, *ids: str) -> dict[str, Any]:
    known = {"principalId": OBJECT, "clientId": CLIENT}
    return {"type": kind, "userAssignedIdentities": dict.fromkeys(ids, known)}


# What ARM does with a PATCH: https://learn.microsoft.com/rest/api/compute/virtual-machine-scale-sets/update
# (ids that are not listed stay; null removes; the last one goes with the type alone).
@pytest.mark.parametrize(
    ("before", "body"),
    [
        (None, {"type": "UserAssigned", "userAssignedIdentities": {ID: {}}}),
        ({"type": "None"}, {"type": "UserAssigned", "userAssignedIdentities": {ID: {}}}),
        (
            {"type": "SystemAssigned", "principalId": OBJECT},
            {"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {ID: {}}},
        ),
        (
            user("UserAssigned", OTHER),
            {"type": "UserAssigned", "userAssignedIdentities": {ID: {}}},
        ),
        (
            user("systemassigned,userassigned", OTHER),
            {"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {ID: {}}},
        ),
        (user("UserAssigned", OTHER, LOWER), None),
        (user("UserAssigned", ID.upper()), None),
    ],
)
def test_attaching_sends_the_difference_and_keeps_the_system_half(
    before: dict[str, Any] | None, body: dict[str, Any] | None
) -> None:
    expected = None if body is None else {"identity": body}
    assert arm.attach(host(before), WANTED) == expected


@pytest.mark.parametrize(
    ("state", "again"), [("Failed", True), ("Succeeded", False), ("Updating", False), ("", False)]
)
def test_after_a_change_that_failed_what_is_listed_is_sent_again(state: str, again: bool) -> None:
    listed = {"identity": user("UserAssigned", LOWER), "properties": {"provisioningState": state}}
    found = arm.parse_host(json.dumps(listed).encode())
    assert found.state == state.lower()
    body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {ID: {}}}}
    assert arm.attach(found, WANTED) == (body if again else None)


@pytest.mark.parametrize(
    ("before", "body"),
    [
        (None, None),
        ({"type": "SystemAssigned"}, None),
        (user("UserAssigned", OTHER), None),
        (user("UserAssigned", LOWER), {"type": "None"}),
        (user("SystemAssigned, UserAssigned", LOWER), {"type": "SystemAssigned"}),
        (
            user("UserAssigned", LOWER, OTHER),
            {"type": "UserAssigned", "userAssignedIdentities": {LOWER: None}},
        ),
        (
            user("SystemAssigned, UserAssigned", OTHER, ID.upper()),
            {"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {ID.upper(): None}},
        ),
    ],
)
def test_detaching_removes_one_id_as_azure_spells_it(
    before: dict[str, Any] | None, body: dict[str, Any] | None
) -> None:
    expected = None if body is None else {"identity": body}
    assert arm.detach(host(before), WANTED) == expected


def test_a_managed_identity_is_read_with_its_ids() -> None:
    body = {
        "id": ID.replace("resourceGroups", "resourcegroups"),
        "name": "one",
        "properties": {"tenantId": CLIENT, "principalId": OBJECT, "clientId": CLIENT.upper()},
    }
    found = arm.parse_identity(json.dumps(body).encode())
    assert (found.resource_id, str(found.client_id), str(found.object_id)) == (
        WANTED,
        CLIENT,
        OBJECT,
    )


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (arm.parse_identity, b"<html>"),
        (arm.parse_identity, b"\xff"),
        (arm.parse_identity, b"{}"),
        (arm.parse_identity, b'{"id": "x", "properties": {"clientId": 1, "principalId": "y"}}'),
        (arm.parse_identity, b'{"id": "x", "properties": {"clientId": "x", "principalId": "y"}}'),
        (arm.parse_host, b"[]"),
        (arm.parse_host, b'{"identity": {"userAssignedIdentities": []}}'),
        (arm.parse_operation, b"{}"),
    ],
)
def test_rubbish_is_called_rubbish(parse: Any, body: bytes) -> None:
    with pytest.raises(ArmError, match=r"^BadAnswer: Azure"):
        parse(body)


@pytest.mark.parametrize(
    ("state", "done"),
    [("Succeeded", True), ("succeeded", True), ("InProgress", False), ("Updating", False)],
)
def test_an_operation_is_done_or_not(state: str, done: bool) -> None:
    assert arm.parse_operation(json.dumps({"status": state}).encode()) is done


@pytest.mark.parametrize(
    ("body", "code", "conflict"),
    [
        ({"status": "Failed", "error": {"code": "X", "message": "m"}}, "X", False),
        ({"status": "Failed"}, "Failed", False),
        ({"status": "Canceled"}, "Canceled", True),
        ({"status": "Failed", "error": {"code": "OperationPreempted"}}, "OperationPreempted", True),
    ],
)
def test_an_operation_that_failed_raises_its_error(
    body: dict[str, Any], code: str, conflict: bool
) -> None:
    with pytest.raises(ArmError) as caught:
        arm.parse_operation(json.dumps(body).encode())
    assert (caught.value.code, caught.value.conflict) == (code, conflict)


# The second envelope is what compute sends when it throttles.
@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b'{"error": {"code": "C", "message": "m", "details": []}}', 403, "C", "m"),
        (b'{"code": "OperationNotAllowed", "message": "m"}', 429, "OperationNotAllowed", "m"),
        (b'{"error": null}', 500, "HTTP500", "no message"),
        (b'{"error": "text"}', 500, "HTTP500", "no message"),
        (b"", 502, "HTTP502", "no message"),
        (b"<html>\xff", 502, "HTTP502", "no message"),
    ],
)
def test_an_error_is_read_from_either_envelope(
    body: bytes, status: int, code: str, message: str
) -> None:
    error = arm.parse_error(body, status)
    assert (error.code, error.message, error.status) == (code, message, status)


@pytest.mark.parametrize(
    ("code", "status", "conflict"),
    [
        ("Conflict", 409, True),
        ("AnyOther", 409, True),
        ("ScopeLocked", 409, False),
        ("Conflict", 0, True),
        ("OperationNotAllowed", 0, True),
        ("OperationPreempted", 0, True),
        ("Canceled", 0, True),
        ("InternalExecutionError", 0, True),
        ("InternalOperationError", 0, True),
        ("InternalServerError", 0, True),
        ("InternalServerError", 500, False),
        ("AuthorizationFailed", 0, False),
        ("ScopeLocked", 0, False),
    ],
)
def test_a_change_is_sent_again_after_what_passes_by_itself(
    code: str, status: int, conflict: bool
) -> None:
    assert ArmError(code, "m", status=status).conflict is conflict


def test_throttling_is_no_conflict_though_compute_gives_it_the_same_code() -> None:
    body = b'{"code": "OperationNotAllowed", "message": "too many requests"}'
    assert not arm.parse_error(body, 429).conflict
    assert arm.parse_error(body, 409).conflict


OF_OPERATOR = RolePermission(
    actions=(
        "Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
        "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
    )
)
OF_CONTRIBUTOR = RolePermission(actions=("*",), not_actions=("Microsoft.Authorization/*/Write",))


@pytest.mark.parametrize(
    ("permission", "action", "allowed"),
    [
        (OF_OPERATOR, "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", True),
        (OF_OPERATOR, "microsoft.managedidentity/userassignedidentities/READ", True),
        (OF_OPERATOR, "Microsoft.ManagedIdentity/userAssignedIdentities/write", False),
        (OF_OPERATOR, "Microsoft.Compute/virtualMachines/read", False),
        (OF_CONTRIBUTOR, "Microsoft.Compute/virtualMachines/write", True),
        (OF_CONTRIBUTOR, "Microsoft.Authorization/roleAssignments/write", False),
        (OF_CONTRIBUTOR, "Microsoft.Authorization/roleAssignments/read", True),
        (
            RolePermission(actions=("Microsoft.Compute/virtual.achines/read",)),
            "Microsoft.Compute/virtualMachines/read",
            False,
        ),
        (RolePermission(actions=()), "Microsoft.Compute/virtualMachines/read", False),
    ],
)
def test_a_role_allows_what_its_actions_match_and_its_exceptions_do_not(
    permission: RolePermission, action: str, allowed: bool
) -> None:
    assert permission.allows(action) is allowed


@pytest.mark.parametrize("body", [b"", b"null", b" null\n", b'{"name": "vm"}'])
def test_an_operation_that_ended_with_nothing_or_with_a_result_has_succeeded(body: bytes) -> None:
    arm.parse_end(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"code": "Preempted", "message": "by another"}}',
        b'{"code": "Preempted", "message": "by another"}',
    ],
)
def test_an_operation_that_ended_with_an_error_has_failed_in_its_words(body: bytes) -> None:
    with pytest.raises(ArmError, match="Preempted: by another"):
        arm.parse_end(body)

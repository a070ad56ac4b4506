from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.resources import ResourceId
from podidentity.wire import arm
from podidentity.wire.arm import BEING_DELETED, ArmError, FederatedCredential, RolePermission

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


SET = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/Nodes/providers/"
    "Microsoft.Compute/virtualMachineScaleSets/pool"
)
SHOWN = {
    "id": SET.upper(),
    "etag": '"7"',
    "identity": {
        "type": "UserAssigned,  systemAssigned ",
        "principalId": "of the machine",
        "userAssignedIdentities": {
            ID: {"principalId": OBJECT, "clientId": CLIENT.upper().replace("1", "A")},
            OTHER: {"principalId": OBJECT},
            ID + "3": None,
            ID + "4": {"clientId": CLIENT},
        },
    },
    "properties": {"provisioningState": "Succeeded"},
}


def test_a_host_is_read_with_its_identities_as_azure_spells_them() -> None:
    found = arm.parse_host(json.dumps(SHOWN).encode(), Host.parse(SET))
    assert found == HostIdentities(
        state="succeeded",
        system=True,
        user={each.lower(): each for each in (ID, OTHER, ID + "3", ID + "4")},
        clients={LOWER: CLIENT.replace("1", "a"), f"{LOWER}4": CLIENT},
        etag='"7"',
    )


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"identity": None, "etag": None, "properties": {"provisioningState": None}},
        {"identity": {"type": None, "userAssignedIdentities": None}},
    ],
)
def test_a_host_of_which_nothing_is_said_has_no_identities(shown: dict[str, Any]) -> None:
    body = json.dumps(shown).encode()
    assert arm.parse_host(body) == HostIdentities()
    assert arm.parse_principals(body) == {}


@pytest.mark.parametrize("named", [{}, {"id": None}, {"id": ""}, {"id": SET + "2"}])
def test_an_answer_about_something_else_is_not_taken_for_the_host(named: dict[str, Any]) -> None:
    with pytest.raises(ArmError, match=f"^BadAnswer: Azure sent something else than {SET}$"):
        arm.parse_host(json.dumps({**SHOWN, "id": None, **named}).encode(), Host.parse(SET))


def test_of_a_list_the_hosts_are_read_and_the_next_page() -> None:
    others = [{"id": None}, {"id": ID}, {}]
    page = {"value": [*others, SHOWN], "nextLink": "https://next"}
    hosts, following = arm.parse_host_list(json.dumps(page).encode())
    assert hosts == {Host.parse(SET.upper()): arm.parse_host(json.dumps(SHOWN).encode())}
    assert following == "https://next"
    for last in (b'{"value": []}', b'{"value": [], "nextLink": null}'):
        assert arm.parse_host_list(last) == ({}, "")


def test_the_principals_of_a_host_are_those_of_which_both_ids_are_known() -> None:
    found = arm.parse_principals(json.dumps(SHOWN).encode())
    assert found == {CLIENT.replace("1", "a"): OBJECT, "": "of the machine"}
    without = {"identity": user("UserAssigned", ID)}
    assert arm.parse_principals(json.dumps(without).encode()) == {CLIENT: OBJECT}


def test_role_assignments_name_the_guids_of_their_roles_and_the_next_page() -> None:
    role = "/subscriptions/s/providers/Microsoft.Authorization/roleDefinitions/guid"
    page: dict[str, Any] = {"value": [{"properties": {"roleDefinitionId": role}}]}
    assert arm.parse_assignments(json.dumps(page).encode()) == (["guid"], "")
    page["nextLink"] = "https://next"
    assert arm.parse_assignments(json.dumps(page).encode()) == (["guid"], "https://next")


def test_a_role_is_read_with_what_it_takes_out() -> None:
    permissions = [{"actions": ["a"], "notActions": ["b"]}, {}]
    assert arm.parse_role(json.dumps({"properties": {"permissions": permissions}}).encode()) == (
        RolePermission(actions=("a",), not_actions=("b",)),
        RolePermission(actions=()),
    )


def test_federated_credentials_are_read_in_the_forms_of_azure_and_of_graph() -> None:
    said = {"issuer": "https://i", "subject": "s", "audiences": ["a", "b"]}
    expected = [
        FederatedCredential(name="n", issuer="https://i", subject="s", audiences=("a", "b"))
    ]
    of_azure = {"value": [{"name": "n", "properties": said}]}
    assert arm.parse_credentials(json.dumps(of_azure).encode()) == expected
    of_graph = {"value": [{"name": "n", **said}]}
    assert arm.parse_credentials_of_application(json.dumps(of_graph).encode()) == expected
    assert arm.parse_principal(b'{"id": "of a principal"}') == "of a principal"


def test_the_identities_that_azure_refuses_are_found_in_its_words() -> None:
    said = f"Failed: '{ID.upper()},{OTHER}' and '{ID}'; not {ID}, nor '{SET}'."
    assert arm.refused_identities(said) == (LOWER, OTHER.lower())
    assert arm.refused_identities("nothing") == ()
    abroad = ID.replace("/resourceGroups/", "/resourceGroups/größe-")
    assert arm.refused_identities(f"Failed: '{abroad}'.") == (abroad.lower(),)


@pytest.mark.parametrize(
    ("code", "gone"),
    [
        ("ResourceNotFound", True),
        ("ResourceGroupNotFound", True),
        (BEING_DELETED, True),
        ("NotFound", False),
    ],
)
def test_a_host_is_gone_where_azure_does_not_find_it_or_deletes_it(code: str, gone: bool) -> None:
    assert ArmError(code, "m", status=404).gone is gone


def test_an_error_says_when_to_come_again_and_whether_it_may_be_done() -> None:
    plain = ArmError("C", "m")
    assert (plain.status, plain.retry_after, plain.sent) == (0, 0.0, False)
    lost = ArmError("C", "m", retry_after=7.0, sent=True)
    assert (lost.retry_after, lost.sent) == (7.0, True)
    assert arm.parse_error(b"", 429, 3.0).retry_after == 3.0


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
    said = body.get("error", {}).get("message", "Azure gives no reason")
    assert str(caught.value) == f"{code}: {said}"


NAMELESS = {"message": "not today"}
WORDLESS = {"code": "Throttled"}
BOTH = {"code": "Throttled", "message": "not today"}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (NAMELESS, "BadAnswer: not today"),
        (WORDLESS, "Throttled: Azure gives no reason"),
        (BOTH, "Throttled: not today"),
    ],
)
@pytest.mark.parametrize(
    ("parse", "good"),
    [
        (arm.parse_host, {"name": "x"}),
        (arm.parse_host_list, {"value": []}),
        (arm.parse_operation, {"status": "Succeeded"}),
    ],
)
def test_what_comes_with_an_error_shows_nothing(
    parse: Any, good: dict[str, Any], fault: dict[str, str], said: str
) -> None:
    parse(json.dumps({**good, "error": None}).encode())
    parse(json.dumps({**good, "error": {}}).encode())
    with pytest.raises(ArmError) as caught:
        parse(json.dumps({**good, "error": fault}).encode())
    assert str(caught.value) == said


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

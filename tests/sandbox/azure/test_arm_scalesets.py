"""What a PATCH makes of the identities of a scale set, as a table; and how a scale set goes."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.azure.arm.call import ArmError
from podidentity_sandbox.azure.arm.scalesets import patched, rendered
from podidentity_sandbox.azure.state import IdentityBlock, Principal, UserAssignedIdentity
from tests.sandbox.azure.direct import ASK, TOKEN, Direct, ask

PREFIX = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity"


def identity(name: str) -> UserAssignedIdentity:
    return UserAssignedIdentity(
        id=f"{PREFIX}/userAssignedIdentities/{name}",
        name=name,
        location="westeurope",
        tags={},
        client_id=f"client-{name}",
        principal_id=f"principal-{name}",
    )


A, B = identity("a"), identity("b")
OLD = Principal(object_id="old", app_id="old-app", name="vmss", tenant_id="t")
NEW = Principal(object_id="new", app_id="new-app", name="vmss", tenant_id="t")
KNOWN = {one.id.lower(): one for one in (A, B)}
USER = "UserAssigned"
BOTH = "SystemAssigned, UserAssigned"


def patch(current: IdentityBlock, body: Any) -> IdentityBlock:
    return patched(
        current,
        body,
        scale_set="/the/vmss",
        find=lambda name: KNOWN.get(name.lower()),
        system=NEW,
    )


def block(*user: UserAssignedIdentity, system: Principal | None = None) -> IdentityBlock:
    return IdentityBlock(system=system, user=user)


@pytest.mark.parametrize(
    ("because", "before", "kind", "named", "after"),
    [
        ("what is not named stays", block(A), USER, {B.id: {}}, block(A, B)),
        ("null removes", block(A, B), USER, {A.id: None}, block(B)),
        ("add and remove mix", block(A), USER, {A.id: None, B.id: {}}, block(B)),
        ("case does not count", block(A), USER, {A.id.upper(): {}}, block(A)),
        ("removing what is not there", block(A), USER, {B.id: None}, block(A)),
        ("no change", block(A), USER, None, block(A)),
        ("UserAssigned drops the system half", block(A, system=OLD), USER, {}, block(A)),
        ("both keeps it", block(A, system=OLD), BOTH, {B.id: {}}, block(A, B, system=OLD)),
        ("both makes it", block(A), "systemassigned,userassigned", {}, block(A, system=NEW)),
        ("SystemAssigned drops users", block(A, system=OLD), "SystemAssigned", None,
         block(system=OLD)),
        ("None drops all", block(A, system=OLD), "None", None, block()),
    ],
)  # fmt: skip
def test_a_patch_changes_what_it_names_and_the_type_decides_on_the_halves(
    because: str, before: IdentityBlock, kind: str, named: Any, after: IdentityBlock
) -> None:
    body = {"type": kind} if named is None else {"type": kind, "userAssignedIdentities": named}
    assert patch(before, body) == after, because


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (None, "InvalidParameter", "identity.type"),
        ({"userAssignedIdentities": {A.id: {}}}, "InvalidParameter", "identity.type"),
        ({"type": "User"}, "InvalidParameter", "'User'"),
        ({"type": USER, "userAssignedIdentities": []}, "InvalidParameter", "userAssigned"),
        ({"type": USER, "userAssignedIdentities": {"x": {}}}, "LinkedInvalidPropertyId", "'x'"),
        ({"type": USER, "userAssignedIdentities": {A.id: 1}}, "InvalidParameter", "null"),
        ({"type": USER, "userAssignedIdentities": {A.id: None}}, "InvalidParameter", "at least"),
        ({"type": "None", "userAssignedIdentities": {A.id: {}}}, "InvalidParameter", "cannot be"),
        (
            {"type": USER, "userAssignedIdentities": {f"{A.id}x": {}}},
            "FailedIdentityOperation",
            f"Resource '{A.id}x' was not found.",
        ),
    ],
)
def test_a_patch_that_cannot_be_is_refused_with_its_reason(
    body: Any, code: str, words: str
) -> None:
    with pytest.raises(ArmError) as refusal:
        patch(block(A), body)
    assert (refusal.value.status, refusal.value.code) == (400, code)
    assert words in str(refusal.value)


def test_compute_writes_ids_in_a_case_of_its_own_and_says_nothing_where_there_is_none() -> None:
    assert rendered(block(), "t") is None
    written = rendered(block(A, system=OLD), "t")
    assert written == {
        "type": "SystemAssigned, UserAssigned",
        "principalId": "old",
        "tenantId": "t",
        "userAssignedIdentities": {
            A.id.replace("resourcegroups", "resourceGroups"): {
                "principalId": "principal-a",
                "clientId": "client-a",
            }
        },
    }


# ---- Machines that are being deleted.


async def test_a_scale_set_is_deleting_until_it_is_gone_takes_no_change_and_has_its_identities(
    direct: Direct,
) -> None:
    mine, scale_set = direct.identity("mine"), direct.plan.scale_set_id
    asked = f"{TOKEN}?{ASK}&client_id={mine.client_id}"
    direct.attach(mine)
    direct.weather("scale-sets=30")
    status, _, headers = direct.arm("DELETE", scale_set)
    where = headers["Azure-AsyncOperation"].removeprefix("https://management.azure.com")
    assert (status, direct.made("GET", where)["status"]) == (202, "InProgress")
    found = direct.made("GET", scale_set)
    assert found["properties"]["provisioningState"] == "Deleting"
    status, answer, _ = direct.arm("PATCH", scale_set, {"identity": {"type": "SystemAssigned"}})
    assert (status, answer["error"]["code"]) == (409, "OperationNotAllowed")
    assert "since it is marked for deletion" in answer["error"]["message"]
    assert (await ask(direct, asked))[0].status == 200
    direct.clock.now += 30
    assert direct.made("GET", where)["status"] == "Succeeded"
    assert (await ask(direct, asked))[1]["error_description"] == "Identity not found"
    kinds = scale_set.rpartition("/")[0]
    assert direct.made("GET", kinds)["value"] == []
    assert direct.arm("GET", scale_set)[1]["error"]["code"] == "ResourceNotFound"
    assert direct.arm("DELETE", scale_set)[0] == 204

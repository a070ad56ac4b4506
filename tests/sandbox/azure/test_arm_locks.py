"""Locks, deny assignments and deletions: what a change of machines meets beside missing roles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podidentity_sandbox.azure.aks.profile import ManagedCluster
from podidentity_sandbox.azure.state import Principal
from tests.sandbox.azure.direct import ASK, TOKEN, Direct, ask

BODY = {"identity": {"type": "SystemAssigned"}}
LOCKS = "providers/Microsoft.Authorization/locks"


def lock(direct: Direct, scope: str, level: str, name: str = "mine") -> str:
    """Lock a scope; return the id of the lock."""
    made = direct.made("PUT", f"{scope}/{LOCKS}/{name}", {"properties": {"level": level}})
    return str(made["id"])


def group(direct: Direct) -> str:
    return f"{direct.world.subscription}/resourceGroups/{direct.plan.node_group}"


def outcome(
    direct: Direct,
    method: str,
    path: str,
    body: object = None,
    *,
    principal: Principal | None = None,
) -> tuple[int, str]:
    status, answer, _ = direct.arm(method, path, body, principal=principal)
    return status, answer["error"]["code"] if answer and "error" in answer else ""


@pytest.mark.parametrize("where", ["scale set", "group", "subscription"])
def test_a_lock_holds_at_its_scope_and_below_for_everybody(direct: Direct, where: str) -> None:
    scopes = {"scale set": direct.plan.scale_set_id, "group": group(direct)}
    scope = scopes.get(where, direct.world.subscription)
    made = lock(direct, scope, "ReadOnly")
    assert direct.arm("GET", direct.plan.scale_set_id)[0] == 200
    status, answer, _ = direct.arm("PATCH", direct.plan.scale_set_id, BODY)
    assert (status, answer["error"]["code"]) == (409, "ScopeLocked")
    assert answer["error"]["message"] == (
        f"The scope '{direct.plan.scale_set_id}' cannot perform write operation because following"
        f" scope(s) are locked: '{scope}'. Please remove the lock and try again."
    )
    assert direct.arm("DELETE", made)[0] == 200
    assert direct.arm("PATCH", direct.plan.scale_set_id, BODY)[0] == 202


def test_a_lock_against_deletion_lets_changes_through_and_keeps_what_holds_it(
    direct: Direct,
) -> None:
    lock(direct, direct.plan.scale_set_id, "CanNotDelete")
    assert outcome(direct, "DELETE", direct.plan.scale_set_id) == (409, "ScopeLocked")
    assert outcome(direct, "DELETE", group(direct)) == (409, "ScopeLocked")
    assert direct.arm("PATCH", direct.plan.scale_set_id, BODY)[0] == 202


def test_a_lock_elsewhere_hinders_nobody(direct: Direct) -> None:
    elsewhere = f"{direct.world.subscription}/resourceGroups/{direct.plan.cluster_group}"
    lock(direct, elsewhere, "ReadOnly")
    lock(direct, f"{direct.plan.scale_set_id}-2", "ReadOnly")
    assert direct.arm("PATCH", direct.plan.scale_set_id, BODY)[0] == 202


def test_locks_are_listed_where_they_hold_and_changed_by_their_level(direct: Direct) -> None:
    lock(direct, direct.world.subscription, "CanNotDelete", "all")
    mine = lock(direct, group(direct), "CanNotDelete")
    lock(direct, group(direct), "ReadOnly")
    listed = direct.made("GET", f"{direct.plan.scale_set_id}/{LOCKS}")["value"]
    assert [(one["name"], one["properties"]["level"]) for one in listed] == [
        ("all", "CanNotDelete"),
        ("mine", "ReadOnly"),
    ]
    assert direct.made("GET", mine)["type"] == "Microsoft.Authorization/locks"
    wrong = {"properties": {"level": "Shut"}}
    assert outcome(direct, "PUT", mine, wrong) == (400, "LockLevelNotValid")
    assert [direct.arm("DELETE", mine)[0] for _ in range(2)] == [200, 204]
    assert outcome(direct, "GET", mine) == (404, "LockNotFound")


def test_a_contributor_makes_no_lock_and_who_has_no_role_learns_of_none(direct: Direct) -> None:
    made = direct.identity("contributor")
    direct.grant("Contributor", made.principal_id, direct.world.subscription)
    who = direct.world.principals[made.principal_id]
    where, body = f"{group(direct)}/{LOCKS}/mine", {"properties": {"level": "ReadOnly"}}
    assert outcome(direct, "PUT", where, body, principal=who) == (403, "AuthorizationFailed")
    lock(direct, group(direct), "ReadOnly")
    stranger, path = direct.world.new_principal("stranger"), direct.plan.scale_set_id
    assert outcome(direct, "PATCH", path, BODY, principal=stranger) == (403, "AuthorizationFailed")


# ---- Deny assignments: AKS makes one when a cluster locks its node group down.


def lock_down(direct: Direct, level: str) -> None:
    plan = direct.plan
    path = (
        f"{direct.world.subscription}/resourceGroups/{plan.cluster_group}"
        f"/providers/Microsoft.ContainerService/managedClusters/{plan.cluster_name}"
    )
    document = direct.made("GET", path)
    document["properties"]["nodeResourceGroupProfile"] = {"restrictionLevel": level}
    answer = direct.made("PUT", path, document)
    profile = {"restrictionLevel": "ReadOnly"} if level == "ReadOnly" else None
    assert answer["properties"].get("nodeResourceGroupProfile") == profile
    cluster = direct.world.find(ManagedCluster, path)
    assert cluster is not None
    direct.world.put(replace(cluster, state="Succeeded"))  # as AKS does when it has nothing to do


def test_a_node_group_that_is_locked_down_is_changed_by_its_cluster_alone(direct: Direct) -> None:
    scale_set = direct.plan.scale_set_id
    lock_down(direct, "ReadOnly")
    assert direct.arm("GET", scale_set)[0] == 200
    status, answer, _ = direct.arm("PATCH", scale_set, BODY)
    assert (status, answer["error"]["code"]) == (403, "DenyAssignmentAuthorizationFailed")
    assert "has permission to perform action" in answer["error"]["message"]
    where = f"{scale_set}/providers/Microsoft.Authorization/denyAssignments"
    (denial,) = direct.made("GET", where)["value"]
    assert denial["name"] in answer["error"]["message"]
    assert f"at scope '{group(direct)}'" in answer["error"]["message"]
    (spared,) = denial["properties"]["excludePrincipals"]
    cluster = direct.world.principals[spared["id"]]
    assert outcome(direct, "PATCH", scale_set, BODY, principal=cluster)[0] == 202


def test_a_node_group_is_opened_again(direct: Direct) -> None:
    lock_down(direct, "ReadOnly")
    lock_down(direct, "Unrestricted")
    assert direct.arm("PATCH", direct.plan.scale_set_id, BODY)[0] == 202


def test_to_whom_no_role_grants_it_nothing_is_said_of_a_deny_assignment(direct: Direct) -> None:
    lock_down(direct, "ReadOnly")
    stranger, path = direct.world.new_principal("stranger"), direct.plan.scale_set_id
    assert outcome(direct, "PATCH", path, BODY, principal=stranger) == (403, "AuthorizationFailed")


# ---- Machines that are being deleted.


async def test_a_node_has_its_identities_until_its_machines_are_gone(direct: Direct) -> None:
    mine = direct.identity("mine")
    direct.attach(mine)
    direct.weather("scale-sets=30")
    assert direct.arm("DELETE", direct.plan.scale_set_id)[0] == 202
    asked = f"{TOKEN}?{ASK}&client_id={mine.client_id}"
    assert (await ask(direct, asked))[0].status == 200
    direct.clock.now += 30
    reply, answer = await ask(direct, asked)
    assert (reply.status, answer["error_description"]) == (400, "Identity not found")


def test_a_scale_set_is_deleting_until_it_is_gone_and_takes_no_change(direct: Direct) -> None:
    scale_set = direct.plan.scale_set_id
    direct.weather("scale-sets=30")
    status, _, headers = direct.arm("DELETE", scale_set)
    where = headers["Azure-AsyncOperation"].removeprefix("https://management.azure.com")
    assert (status, direct.made("GET", where)["status"]) == (202, "InProgress")
    found = direct.made("GET", scale_set)
    assert found["properties"]["provisioningState"] == "Deleting"
    status, answer, _ = direct.arm("PATCH", scale_set, BODY)
    assert (status, answer["error"]["code"]) == (409, "OperationNotAllowed")
    assert "since it is marked for deletion" in answer["error"]["message"]
    direct.clock.now += 30
    assert direct.made("GET", where)["status"] == "Succeeded"
    kinds = f"{group(direct)}/providers/Microsoft.Compute/virtualMachineScaleSets"
    assert direct.made("GET", kinds)["value"] == []
    assert outcome(direct, "GET", scale_set) == (404, "ResourceNotFound")
    assert direct.arm("DELETE", scale_set)[0] == 204

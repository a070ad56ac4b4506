"""ARM: who may do what, what is refused in which words, and long-running operations."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.azure.state import Group, ScaleSet
from tests.sandbox.azure.conftest import Azure
from tests.sandbox.azure.direct import Direct

COMPUTE = "providers/Microsoft.Compute"
IDENTITIES = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
ARM = "https://management.azure.com"
EUROPE = {"location": "westeurope"}


def attach(*ids: str) -> dict[str, Any]:
    named: dict[str, Any] = {one: {} for one in ids}
    return {"identity": {"type": "UserAssigned", "userAssignedIdentities": named}}


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        (lambda _: "", "AuthenticationFailed", "The 'Authorization' header is missing."),
        (lambda _: "Basic eDp5", "InvalidAuthenticationToken", "The access token"),
        (lambda _: "Bearer rubbish", "InvalidAuthenticationToken", "is invalid"),
        (
            lambda direct: f"Bearer {direct.token(ARM, issuer=direct.stranger())}",
            "InvalidAuthenticationToken",
            "token is invalid",
        ),
        (
            lambda direct: f"Bearer {direct.token('https://vault.azure.net')}",
            "InvalidAuthenticationToken",
            "'https://vault.azure.net'",
        ),
        (
            lambda direct: f"Bearer {direct.token(ARM, lifetime=0)}",
            "ExpiredAuthenticationToken",
            "is earlier than current UTC time",
        ),
    ],
)
def test_without_a_valid_token_for_arm_the_answer_is_401_with_a_challenge(
    direct: Direct, sent: Callable[[Direct], str], code: str, words: str
) -> None:
    headers = {"authorization": sent(direct)}
    status, body, answered = direct.arm("GET", "resourceGroups", headers=headers)
    assert (status, body["error"]["code"]) == (401, code)
    assert words in body["error"]["message"]
    assert answered["WWW-Authenticate"].startswith("Bearer authorization_uri=")


@pytest.mark.parametrize("audience", [ARM, f"{ARM}/", "https://management.core.windows.net/"])
def test_a_token_for_any_of_arms_names_is_good(direct: Direct, audience: str) -> None:
    headers = {"authorization": f"Bearer {direct.token(audience)}"}
    assert direct.arm("GET", "resourceGroups", headers=headers)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "resourceGroups?x=1", 400, "MissingApiVersionParameter"),
        ("GET", "resourceGroups?api-version=1", 400, "InvalidApiVersionParameter"),
        ("GET", f"/subscriptions/{uuid.UUID(int=1)}/resourceGroups", 404, "SubscriptionNotFound"),
        ("GET", "resourceGroups/nowhere", 404, "ResourceGroupNotFound"),
        ("GET", f"resourceGroups/nowhere/{IDENTITIES}/x", 404, "ResourceGroupNotFound"),
        ("GET", f"resourceGroups/aks-west-experimental/{IDENTITIES}/x", 404, "ResourceNotFound"),
        ("GET", "providers/Microsoft.Sql/servers", 404, "InvalidResourceType"),
        ("GET", f"{COMPUTE}/locations/westeurope/operations/{uuid.UUID(int=1)}", 404, "NotFound"),
        ("PATCH", "resourceGroups/aks-west-experimental", 405, "HttpMethodNotSupported"),
        ("PUT", "resourceGroups/new", 400, "LocationRequired"),
        ("PUT", f"resourceGroups/aks-west-experimental/{IDENTITIES}/-", 400, "InvalidIdentityName"),
    ],
)
def test_a_request_that_arm_cannot_serve_says_why(
    direct: Direct, method: str, path: str, status: int, code: str
) -> None:
    body = {} if code == "LocationRequired" else EUROPE
    got, answer, _ = direct.arm(method, path, body if method == "PUT" else None)
    assert (got, answer["error"]["code"]) == (status, code)


def test_a_new_identity_has_ids_of_its_own_and_keeps_them(direct: Direct) -> None:
    path = f"resourceGroups/{direct.plan.node_group}/{IDENTITIES}/mine"
    status, made, _ = direct.arm("PUT", path, EUROPE)
    again, same, _ = direct.arm("PUT", path.upper().replace("MINE", "mine"), EUROPE)
    assert (status, again) == (201, 200)
    assert same["properties"] == made["properties"]
    assert f"/resourcegroups/{direct.plan.node_group}/" in made["id"]
    assert {"tenantId", "principalId", "clientId"} == set(made["properties"])
    assert len(set(made["properties"].values())) == 3


def test_a_group_goes_with_all_that_is_in_it(direct: Direct) -> None:
    direct.made("PUT", "resourceGroups/g", EUROPE)
    path = f"resourceGroups/g/{IDENTITIES}/mine"
    direct.made("PUT", path, EUROPE)
    status, _, headers = direct.arm("DELETE", "resourceGroups/G")
    assert status == 202
    assert direct.arm("GET", headers["Location"].removeprefix(ARM))[0] == 200
    assert direct.arm("GET", path)[1]["error"]["code"] == "ResourceGroupNotFound"
    assert not [g for g in direct.world.all(Group) if g.name == "g"]


def test_a_principal_without_a_role_may_nothing_and_sees_no_subscription(direct: Direct) -> None:
    mine = direct.world.principals[direct.identity("mine").principal_id]
    status, answer, _ = direct.arm("GET", direct.plan.scale_set_id, principal=mine)
    assert (status, answer["error"]["code"]) == (403, "AuthorizationFailed")
    assert answer["error"]["message"] == (
        f"The client '{mine.app_id}' with object id '{mine.object_id}' does not have authorization"
        " to perform action 'Microsoft.Compute/virtualMachineScaleSets/read' over scope"
        f" '{direct.plan.scale_set_id}' or the scope is invalid. If access was recently granted,"
        " please refresh your credentials."
    )
    assert direct.arm("GET", "/subscriptions", principal=mine)[1]["value"] == []


def test_a_reader_of_a_group_reads_there_and_only_there(direct: Direct) -> None:
    mine = direct.world.principals[direct.identity("mine").principal_id]
    group = f"{direct.world.subscription}/resourceGroups/{direct.plan.node_group}"
    direct.grant("Reader", mine.object_id, group.upper().replace("/SUBSC", "/subsc"))
    assert direct.arm("GET", direct.plan.scale_set_id, principal=mine)[0] == 200
    assert direct.arm("PATCH", direct.plan.scale_set_id, {}, principal=mine)[0] == 403
    other = f"resourceGroups/{direct.plan.cluster_group}"
    assert direct.arm("GET", other, principal=mine)[0] == 403
    assert direct.arm("GET", f"{group}-more", principal=mine)[0] == 403
    (seen,) = direct.arm("GET", "/subscriptions", principal=mine)[1]["value"]
    assert seen["displayName"] == "My Azure Subscription"


def test_attaching_needs_the_scale_set_and_the_identity(direct: Direct) -> None:
    mine, other = direct.identity("mine"), direct.identity("other")
    who = direct.principal_of(mine)
    patch = attach(mine.id, other.id)
    direct.grant("Virtual Machine Contributor", who.object_id, direct.plan.scale_set_id)
    direct.grant("Managed Identity Operator", who.object_id, mine.id)
    status, answer, _ = direct.arm("PATCH", direct.plan.scale_set_id, patch, principal=who)
    assert (status, answer["error"]["code"]) == (403, "LinkedAuthorizationFailed")
    assert f"on the linked scope(s) '{other.id}' or" in answer["error"]["message"]
    direct.grant("Managed Identity Operator", who.object_id, other.id)
    assert direct.arm("PATCH", direct.plan.scale_set_id, patch, principal=who)[0] == 202


def test_a_contributor_gives_no_roles(direct: Direct) -> None:
    mine = direct.identity("mine")
    who = direct.principal_of(mine)
    direct.grant("Contributor", who.object_id, direct.world.subscription)
    path = f"providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    assert direct.arm("PUT", path, {}, principal=who)[0] == 403
    assert direct.arm("PUT", "resourceGroups/new", EUROPE, principal=who)[0] == 201


def test_a_change_of_a_scale_set_is_an_operation_that_ends(direct: Direct) -> None:
    mine, where = direct.identity("mine"), direct.plan.scale_set_id
    direct.weather("scale-sets=2.5")
    status, body, headers = direct.arm("PATCH", where, attach(mine.id))
    assert (status, headers["Retry-After"]) == (202, "3")
    assert body["properties"]["provisioningState"] == "Updating"
    operation = headers["Azure-AsyncOperation"].removeprefix(ARM)
    assert direct.made("GET", operation)["status"] == "InProgress"
    meanwhile, refused, _ = direct.arm("PATCH", where, attach(mine.id))
    assert (meanwhile, refused["error"]["code"]) == (409, "Conflict")
    direct.clock.now += 2.5
    assert direct.made("GET", operation)["status"] == "Succeeded"
    done = direct.made("GET", where)
    assert done["properties"]["provisioningState"] == "Succeeded"
    assert len(done["identity"]["userAssignedIdentities"]) == 2


def test_a_refused_change_changes_nothing(direct: Direct) -> None:
    mine = direct.identity("mine")
    before = direct.world.find(ScaleSet, direct.plan.scale_set_id)
    assert direct.refused("PATCH", direct.plan.scale_set_id, attach(mine.id, f"{mine.id}-no")) == (
        400,
        "FailedIdentityOperation",
    )
    assert direct.world.find(ScaleSet, direct.plan.scale_set_id) == before


def test_a_group_keeps_its_location(direct: Direct) -> None:
    path = f"resourceGroups/{direct.plan.node_group}"
    changed = direct.made("PUT", path, {**EUROPE, "tags": {"a": "b"}})
    assert (changed["tags"], direct.made("GET", path)["tags"]) == ({"a": "b"}, {"a": "b"})
    assert direct.refused("PUT", path, {"location": "eastus"}) == (
        409,
        "InvalidResourceGroupLocation",
    )


@pytest.mark.parametrize("body", [{"sku": {}}, {"identity": {"type": "None"}, "tags": {}}])
def test_of_a_scale_set_only_the_identities_change(direct: Direct, body: Any) -> None:
    assert direct.refused("PATCH", direct.plan.scale_set_id, body) == (400, "InvalidParameter")


async def test_the_operator_waits_for_the_end_of_what_he_starts(
    cloud: Azure, operator: AzureOperator
) -> None:
    operator.weather("scale-sets=0.2")
    identity = await operator.create_identity(cloud.plan.node_group, "mine")
    waiting = asyncio.create_task(
        operator.arm("PATCH", cloud.plan.scale_set_id, attach(identity["id"]))
    )
    while not cloud.world.operations:
        await operator.imds_requests()  # a round trip, in which the change arrives
    assert not waiting.done()
    cloud.clock.now += 0.2
    await waiting

"""ARM: who may do what, what is refused in which words, and long-running operations."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from podidentity_sandbox.azure.client import AzureOperator
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
        ("GET", f"/subscriptions/{uuid.UUID(int=1)}/resourceGroups", 404, "SubscriptionNotFound"),
        ("GET", f"resourceGroups/nowhere/{IDENTITIES}/x", 404, "ResourceGroupNotFound"),
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


def test_a_contributor_gives_no_roles(direct: Direct) -> None:
    mine = direct.identity("mine")
    who = direct.principal_of(mine)
    direct.grant("Contributor", who.object_id, direct.world.subscription)
    path = f"providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    assert direct.arm("PUT", path, {}, principal=who)[0] == 403
    assert direct.arm("PUT", "resourceGroups/new", EUROPE, principal=who)[0] == 201


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

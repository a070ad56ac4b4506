"""Graph: what it is asked for by whom, and how a refusal is told."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from podidentity.adapters.graph import Graph
from podidentity.core.resources import ClientId
from podidentity.wire.arm import LONGEST_ANSWER, ArmError, FederatedCredential

CLIENT = ClientId.parse("11111111-2222-3333-4444-555555555555")
CREDENTIAL = {"id": "1", "name": "a", "issuer": "https://i/", "subject": "s", "audiences": ["x"]}
DENIED = {"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges"}}


class SignedIn:
    """A person whose token is for the scope that was asked for."""

    async def token(self, scope: str) -> str:
        return f"for {scope}"


def asked(answer: httpx2.Response, seen: list[httpx2.Request]) -> Graph:
    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return answer

    return Graph(SignedIn(), url="https://graph.example", transport=httpx2.MockTransport(handle))


def test_an_application_is_found_by_its_client_id_with_a_token_for_graph_alone() -> None:
    seen: list[httpx2.Request] = []

    async def ask() -> tuple[str, list[FederatedCredential]]:
        async with asked(httpx2.Response(200, json={"id": "object-1"}), seen) as graph:
            principal = await graph.principal(CLIENT)
        async with asked(httpx2.Response(200, json={"value": [CREDENTIAL]}), seen) as graph:
            return principal, await graph.federated_credentials(CLIENT)

    principal, (credential,) = asyncio.run(ask())
    assert principal == "object-1"
    assert (credential.issuer, credential.subject, credential.audiences) == (
        "https://i/",
        "s",
        ("x",),
    )
    assert [each.url.path for each in seen] == [
        f"/v1.0/servicePrincipals(appId='{CLIENT}')",
        f"/v1.0/applications(appId='{CLIENT}')/federatedIdentityCredentials",
    ]
    assert {each.headers["Authorization"] for each in seen} == {
        "Bearer for https://graph.example/.default"
    }


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx2.Response(403, json=DENIED), "Authorization_RequestDenied"),
        (httpx2.Response(200, text="<html>"), "BadAnswer"),
    ],
    ids=["refused", "no JSON"],
)
def test_what_graph_refuses_or_garbles_is_an_error_with_its_code(
    answer: httpx2.Response, code: str
) -> None:
    async def ask() -> None:
        async with asked(answer, []) as graph:
            await graph.federated_credentials(CLIENT)

    with pytest.raises(ArmError) as raised:
        asyncio.run(ask())
    assert raised.value.code == code


async def test_an_answer_that_does_not_end_is_read_no_further() -> None:
    answer = httpx2.Response(200, content=b"x" * (LONGEST_ANSWER + 1))
    async with asked(answer, []) as graph:
        with pytest.raises(ArmError) as raised:
            await graph.principal(CLIENT)
    assert str(raised.value) == "BadAnswer: Graph sent more than 32 MiB"

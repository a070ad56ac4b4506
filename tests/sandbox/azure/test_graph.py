"""Graph answers who a principal is, to whom it may tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from podidentity_sandbox.azure.messages import Request
from podidentity_sandbox.azure.seed import operator_object_id
from tests.sandbox.azure.direct import Direct

GRAPH = "https://graph.microsoft.com"


def ask(direct: Direct, method: str, path: str, token: str, body: object = None) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    sent = json.dumps(body).encode() if body else b""
    request = Request(method=method, target=f"/v1.0/{path}", headers=headers, body=sent)
    reply = direct.graph.handle(request)
    return reply.status, json.loads(reply.body)


def found(direct: Direct, asked: str) -> list[str]:
    path = f"servicePrincipals?$filter={quote(asked)}"
    status, answer = ask(direct, "GET", path, direct.token(f"{GRAPH}/"))
    assert status == 200, answer
    return [one["displayName"] for one in answer["value"]]


# What az and the portal ask: https://learn.microsoft.com/graph/api/serviceprincipal-list.
@pytest.mark.parametrize(
    "asked",
    [
        "servicePrincipalNames/any(c:c eq '{app}')",
        "appId eq '{app}'",
        "id eq '{oid}'",
        "displayName eq 'Mine'",
        "startswith(displayName,'mi')",
    ],
)
def test_a_managed_identity_is_found_by_what_names_it(direct: Direct, asked: str) -> None:
    mine = direct.identity("mine")
    direct.identity("other")
    assert found(direct, asked.format(app=mine.client_id, oid=mine.principal_id)) == ["mine"]


def test_an_unknown_id_is_found_nowhere(direct: Direct) -> None:
    assert found(direct, "servicePrincipalNames/any(c:c eq 'nobody')") == []
    token = direct.token(GRAPH)
    status, answer = ask(direct, "GET", "servicePrincipals/nobody", token)
    assert (status, answer["error"]["code"]) == (404, "Request_ResourceNotFound")
    assert ask(direct, "GET", "users?$filter=mail eq 'a@b.c'", token)[1]["value"] == []
    assert ask(direct, "GET", "users/a@b.c", token)[0] == 404
    assert ask(direct, "GET", "me", token)[0] == 400
    assert ask(direct, "GET", "devices", token)[0] == 400


def test_principals_are_named_by_their_ids(direct: Direct) -> None:
    mine, token = direct.identity("mine"), direct.token(GRAPH)
    one = ask(direct, "GET", f"servicePrincipals/{mine.principal_id}", token)[1]
    assert (one["appId"], one["servicePrincipalType"]) == (mine.client_id, "ManagedIdentity")
    body = {"ids": [mine.principal_id, "nobody"]}
    status, answer = ask(direct, "POST", "directoryObjects/getByIds", token, body)
    assert (status, [each["displayName"] for each in answer["value"]]) == (200, ["mine"])
    assert ask(direct, "POST", "directoryObjects/getByIds", token, {"ids": "x"})[0] == 400


@pytest.mark.parametrize("kind", ["servicePrincipals", "applications"])
def test_a_filter_that_is_not_known_is_refused(direct: Direct, kind: str) -> None:
    path = f"{kind}?$filter={quote('endswith(appId,1)')}"
    status, answer = ask(direct, "GET", path, direct.token(GRAPH))
    assert (status, answer["error"]["code"]) == (400, "Request_UnsupportedQuery")


def test_a_managed_identity_may_not_read_the_directory(direct: Direct) -> None:
    mine = direct.identity("mine")
    token = direct.token(GRAPH, direct.world.principals[mine.principal_id])
    status, answer = ask(direct, "GET", "servicePrincipals", token)
    assert (status, answer["error"]["code"]) == (403, "Authorization_RequestDenied")
    assert answer["error"]["message"] == "Insufficient privileges to complete the operation."


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (lambda _: "", "Access token is empty."),
        (lambda _: "rubbish", "Access token validation failure."),
        (
            lambda direct: direct.token("https://management.azure.com/"),
            "Access token validation failure. Invalid audience.",
        ),
        (
            lambda direct: direct.token(GRAPH, lifetime=-1),
            "Lifetime validation failed, the token is expired.",
        ),
    ],
)
def test_a_token_that_is_not_for_graph_is_refused(
    direct: Direct, token: Callable[[Direct], str], words: str
) -> None:
    who = operator_object_id(direct.plan)
    status, answer = ask(direct, "GET", f"servicePrincipals/{who}", token(direct))
    assert (status, answer["error"]["code"]) == (401, "InvalidAuthenticationToken")
    assert answer["error"]["message"] == words

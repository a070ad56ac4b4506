"""Graph: principals are looked up, applications registered, and then they sign in."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import jwt
import pytest

from podidentity_sandbox.azure.messages import Request
from podidentity_sandbox.azure.seed import operator_object_id
from tests.sandbox.azure.direct import Direct, claims_of
from tests.sandbox.azure.registered import VAULT, graph, register

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
    for nobody in ("me", "users/a@b.c", "groups"):
        assert ask(direct, "GET", nobody, token)[0] == 400


def test_a_managed_identity_may_not_read_the_directory(direct: Direct) -> None:
    mine = direct.identity("mine")
    token = direct.token(GRAPH, direct.principal_of(mine))
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


# ---- Applications are registered, provisioned and given secrets through Graph, and then sign in.


def stamp(direct: Direct, days: float) -> str:
    at = datetime.datetime.fromtimestamp(direct.clock.now, datetime.UTC)
    return (at + datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_secret_is_shown_once_and_in_no_repr(direct: Direct) -> None:
    mine = register(direct)
    secret = mine.add_secret()
    assert secret not in str(mine.graph("GET"))
    assert secret not in repr(direct.world.application(mine.client_id))


@pytest.mark.parametrize(("starts", "ends"), [(-2.0, -1.0), (1.0, 2.0)])
def test_a_secret_out_of_its_time_has_an_error_of_its_own(
    direct: Direct, starts: float, ends: float
) -> None:
    mine = register(direct)
    secret = mine.add_secret(startDateTime=stamp(direct, starts), endDateTime=stamp(direct, ends))
    reply, body = mine.sign_in(client_secret=secret)
    assert (reply.status, body["error"], body["error_codes"]) == (401, "invalid_client", [7000222])
    assert mine.client_id in body["error_description"]
    assert secret not in body["error_description"]


def test_an_application_of_one_tenant_is_provisioned_in_no_other(direct: Direct) -> None:
    tenants = direct.world.tenants
    single, several = register(direct), register(direct, multi_tenant=True)
    for mine, where in ((single, tenants.partner), (several, tenants.china)):
        body = {"appId": mine.client_id}
        assert graph(direct, "POST", "servicePrincipals", body, tenant=where)[0] == 400


def test_nobody_sees_another_tenants_directory(direct: Direct) -> None:
    mine = register(direct)
    partner = direct.world.tenants.partner
    assert graph(direct, "GET", f"applications/{mine.object_id}", tenant=partner)[0] == 404
    listed = graph(direct, "GET", "servicePrincipals", tenant=partner)[1]["value"]
    assert [one["displayName"] for one in listed] == ["operator"]
    assert mine.graph("GET")[1]["appId"] == mine.client_id
    named = graph(direct, "GET", f"applications(appId='{mine.client_id}')")
    assert named[1]["id"] == mine.object_id
    for asked in (f"appId eq '{mine.client_id}'", f"APPID EQ '{mine.client_id.upper()}'"):
        found = graph(direct, "GET", f"applications?$filter={quote(asked)}")
        assert [one["id"] for one in found[1]["value"]] == [mine.object_id]


def test_a_deleted_application_is_gone_from_every_tenant(direct: Direct) -> None:
    mine = register(direct, multi_tenant=True)
    partner = direct.world.tenants.partner
    graph(direct, "POST", "servicePrincipals", {"appId": mine.client_id}, tenant=partner)
    secret = mine.add_secret()
    assert mine.graph("DELETE")[0] == 204
    for tenant in (mine.tenant, partner):
        refused = mine.sign_in(tenant=tenant.id, client_secret=secret)[1]
        assert refused["error_codes"] == [700016]


@pytest.mark.parametrize(
    ("tenant", "code"),
    [("nowhere.example", 90002), ("common", 90002), ("fabrikam.onmicrosoft.com", 700016)],
)
def test_a_tenant_is_known_by_its_id_and_its_domain(direct: Direct, tenant: str, code: int) -> None:
    mine = register(direct)
    secret = mine.add_secret()
    assert mine.sign_in(tenant=tenant, client_secret=secret)[1]["error_codes"] == [code]
    home = direct.world.tenants.home
    body = mine.sign_in(tenant=home.domain.upper(), client_secret=secret)[1]
    claims = claims_of(body["access_token"])
    assert claims["tid"] == home.id


@pytest.mark.parametrize("which", ["government", "china"])
def test_a_national_cloud_has_not_the_resources_and_keys_of_the_public_one(
    direct: Direct, which: str
) -> None:
    mine = register(direct, tenant=getattr(direct.world.tenants, which))
    secret, own = mine.add_secret(), f"https://{mine.tenant.cloud.graph}/.default"
    foreign = mine.sign_in(client_secret=secret, scope=f"{VAULT}/.default")[1]
    assert foreign["error_codes"] == [500011]
    token = mine.sign_in(client_secret=secret, scope=own)[1]["access_token"]
    key = jwt.get_unverified_header(token)["kid"]
    assert key != direct.issuer.jwks()["keys"][0]["kid"]


def test_a_tenant_of_another_cloud_is_refused_by_name(direct: Direct) -> None:
    tenant = direct.world.tenants.government
    target = f"/{tenant.id}/oauth2/v2.0/token"
    request = Request(method="POST", target=target, host="login.microsoftonline.com")
    assert json.loads(direct.signed_in(request).body)["error_codes"] == [900382]

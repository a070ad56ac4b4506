"""Federated credentials are made by Resource Manager's and Graph's rules."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.azure.tenants import EXCHANGE
from tests.sandbox.azure.direct import Direct
from tests.sandbox.azure.registered import register

GOOD = {"issuer": "https://i.example/", "subject": "s", "audiences": [EXCHANGE]}


class OfIdentity:
    """The credentials of an identity, through Resource Manager."""

    def __init__(self, direct: Direct) -> None:
        self.direct = direct
        self.identity = direct.identity("mine")

    def call(self, method: str, name: str = "", properties: object = None) -> tuple[int, Any]:
        path = f"{self.identity.id}/federatedIdentityCredentials{f'/{name}' if name else ''}"
        body = {"properties": properties} if properties is not None else None
        status, answer, _ = self.direct.arm(method, path, body)
        return status, answer


@pytest.fixture
def mine(direct: Direct) -> OfIdentity:
    return OfIdentity(direct)


def test_a_credential_is_made_shown_changed_listed_and_deleted(mine: OfIdentity) -> None:
    status, made = mine.call("PUT", "first", GOOD)
    assert status == 201
    assert made == {
        "id": f"{mine.identity.id}/federatedIdentityCredentials/first",
        "name": "first",
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials",
        "properties": GOOD,
    }
    assert mine.call("GET", "FIRST") == (200, made)
    changed = {**GOOD, "subject": "t"}
    assert mine.call("PUT", "first", changed)[0] == 200
    assert [one["properties"] for one in mine.call("GET")[1]["value"]] == [changed]
    assert [mine.call("DELETE", "first")[0] for _ in range(2)] == [200, 204]
    assert mine.call("GET", "first")[0] == 404


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("ab", {}, "is invalid"),
    ("-abc", {}, "is invalid"),
    ("a.bc", {}, "is invalid"),
    ("x" * 121, {}, "is invalid"),
    ("name", {"audiences": []}, "must have exactly one audience"),
    ("name", {"audiences": [EXCHANGE, "more"]}, "must have exactly one audience"),
    ("name", {"audiences": None}, "must have exactly one audience"),
    ("name", {"subject": ""}, "'subject'"),
    ("name", {"subject": "x" * 601}, "'subject'"),
    ("name", {"issuer": None}, "'issuer'"),
    ("name", {"issuer": "http://i.example"}, "https://"),
]


@pytest.mark.parametrize(("name", "change", "words"), BAD)
def test_what_cannot_be_is_refused(
    mine: OfIdentity, name: str, change: dict[str, Any], words: str
) -> None:
    status, answer = mine.call("PUT", name, {**GOOD, **change})
    assert (status, answer["error"]["code"]) == (400, "BadRequest")
    assert words in answer["error"]["message"]
    assert mine.call("GET")[1]["value"] == []


@pytest.mark.parametrize(("name", "change", "words"), BAD)
def test_graph_refuses_the_same(
    direct: Direct, name: str, change: dict[str, Any], words: str
) -> None:
    app = register(direct)
    body = {"name": name, **GOOD, **change}
    status, answer = app.graph("POST", "/federatedIdentityCredentials", body)
    assert (status, answer["error"]["code"]) == (400, "Request_BadRequest")
    assert words in answer["error"]["message"]


def test_issuer_and_subject_are_unique_and_twenty_are_the_most(mine: OfIdentity) -> None:
    assert mine.call("PUT", "name-0", GOOD)[0] == 201
    _, twice = mine.call("PUT", "other", {**GOOD, "audiences": ["another"]})
    assert twice["error"]["message"] == (
        "Issuer and subject combination already exists for this Managed Identity."
    )
    for number in range(1, 20):
        assert mine.call("PUT", f"name-{number}", {**GOOD, "subject": f"s{number}"})[0] == 201
    assert mine.call("PUT", "one-more", {**GOOD, "subject": "more"})[0] == 400
    assert mine.call("PUT", "name-7", {**GOOD, "subject": "changed"})[0] == 200


def test_writes_at_once_to_one_identity_are_a_conflict(mine: OfIdentity) -> None:
    direct = mine.direct
    path = f"{mine.identity.id}/federatedIdentityCredentials"
    other = direct.identity("other")
    assert direct.arm("PUT", f"{path}/first", {"properties": GOOD}, ended=False)[0] == 201
    direct.made("PUT", f"{other.id}/federatedIdentityCredentials/first", {"properties": GOOD})
    status, answer, _ = direct.arm("PUT", f"{path}/second", {"properties": GOOD})
    code = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity"
    assert (status, answer["error"]["code"]) == (409, code)
    assert direct.arm("DELETE", f"{path}/first")[0] == 409
    assert direct.arm("GET", f"{path}/first")[0] == 200


def test_a_credential_needs_a_role_and_an_identity(mine: OfIdentity) -> None:
    direct, other = mine.direct, mine.direct.identity("other")
    principal = direct.world.principals[other.principal_id]
    path = f"{mine.identity.id}/federatedIdentityCredentials/first"
    body = {"properties": GOOD}
    assert direct.arm("PUT", path, body, principal=principal)[0] == 403
    direct.grant("Managed Identity Operator", other.principal_id, mine.identity.id)
    assert direct.arm("PUT", path, body, principal=principal)[0] == 403
    direct.grant("Managed Identity Contributor", other.principal_id, mine.identity.id)
    assert direct.arm("PUT", path, body, principal=principal)[0] == 201
    assert direct.arm("GET", path.replace("/mine/", "/nobody/"))[0] == 404


def test_the_credentials_of_a_deleted_identity_are_gone(mine: OfIdentity) -> None:
    mine.call("PUT", "first", GOOD)
    mine.direct.made("DELETE", mine.identity.id)
    mine.direct.identity("mine")
    assert mine.call("GET")[1]["value"] == []


def test_graph_finds_a_credential_by_name_and_id_and_keeps_its_name(direct: Direct) -> None:
    app, below = register(direct), "/federatedIdentityCredentials"
    _, made = app.graph("POST", below, {"name": "first", **GOOD})
    assert app.graph("POST", below, {"name": "First", **GOOD, "subject": "t"})[0] == 409
    assert app.graph("GET", f"{below}/first")[1] == app.graph("GET", f"{below}/{made['id']}")[1]
    assert app.graph("PATCH", f"{below}/first", {"name": "second"})[0] == 400
    assert app.graph("PATCH", f"{below}/first", {"subject": "t"})[0] == 204
    assert app.graph("GET", f"{below}/first")[1]["subject"] == "t"
    assert app.graph("DELETE", f"{below}/first")[0] == 204
    assert app.graph("GET", f"{below}/first")[0] == 404

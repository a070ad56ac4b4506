"""Federated credentials: the rules by which they are made, and signing in by them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from podidentity_sandbox.azure.entra.issuers import PublishedKeys
from podidentity_sandbox.azure.state import Principal, UserAssignedIdentity
from podidentity_sandbox.azure.tenants import EXCHANGE, EXCHANGE_APP
from podidentity_sandbox.azure.tokens import Grant
from tests.sandbox.azure.direct import NOWHERE, TOKEN, Direct, ask, claims_of
from tests.sandbox.azure.registered import (
    ASSERTION,
    NOW,
    Key,
    Registered,
    dated,
    graph,
    register,
)

CREDENTIALS = "federatedIdentityCredentials"
GOOD = {"issuer": "https://i.example/", "subject": "s", "audiences": [EXCHANGE]}


class OfIdentity:
    """The credentials of an identity, through Resource Manager."""

    def __init__(self, direct: Direct) -> None:
        self.direct = direct
        self.identity = direct.identity("mine")

    def call(self, method: str, name: str = "", properties: object = None) -> tuple[int, Any]:
        path = f"{self.identity.id}/{CREDENTIALS}{f'/{name}' if name else ''}"
        body = {"properties": properties} if properties is not None else None
        status, answer, _ = self.direct.arm(method, path, body)
        return status, answer


@pytest.fixture
def mine(direct: Direct) -> OfIdentity:
    return OfIdentity(direct)


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
def test_what_cannot_be_is_refused_by_resource_manager_and_graph(
    mine: OfIdentity, name: str, change: dict[str, Any], words: str
) -> None:
    body, app = {**GOOD, **change}, register(mine.direct)
    for (status, answer), code in (
        (mine.call("PUT", name, body), "BadRequest"),
        (app.graph("POST", f"/{CREDENTIALS}", {"name": name, **body}), "Request_BadRequest"),
    ):
        assert (status, answer["error"]["code"]) == (400, code)
        assert words in answer["error"]["message"]
    assert mine.call("GET")[1]["value"] == []


def test_issuer_and_subject_are_unique_and_twenty_are_the_most(mine: OfIdentity) -> None:
    assert mine.call("PUT", "name-0", GOOD)[0] == 201
    assert mine.call("PUT", "other", {**GOOD, "audiences": ["another"]})[0] == 400
    for number in range(1, 20):
        assert mine.call("PUT", f"name-{number}", {**GOOD, "subject": f"s{number}"})[0] == 201
    assert mine.call("PUT", "one-more", {**GOOD, "subject": "more"})[0] == 400
    assert mine.call("PUT", "name-7", {**GOOD, "subject": "changed"})[0] == 200


def test_writes_at_once_to_one_identity_are_a_conflict(mine: OfIdentity) -> None:
    direct = mine.direct
    path = f"{mine.identity.id}/{CREDENTIALS}"
    other = direct.identity("other")
    assert direct.arm("PUT", f"{path}/first", {"properties": GOOD}, ended=False)[0] == 201
    direct.made("PUT", f"{other.id}/{CREDENTIALS}/first", {"properties": GOOD})
    refused = direct.refused("PUT", f"{path}/second", {"properties": GOOD})
    code = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity"
    assert refused == (409, code)
    assert direct.arm("DELETE", f"{path}/first")[0] == 409
    assert direct.arm("GET", f"{path}/first")[0] == 200


def test_a_credential_needs_a_role_and_an_identity(mine: OfIdentity) -> None:
    direct, other = mine.direct, mine.direct.identity("other")
    principal = direct.principal_of(other)
    path = f"{mine.identity.id}/{CREDENTIALS}/first"
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


def test_a_name_is_given_to_one_credential_of_an_application(direct: Direct) -> None:
    app, below = register(direct), f"/{CREDENTIALS}"
    _, made = app.graph("POST", below, {"name": "first", **GOOD})
    assert app.graph("POST", below, {"name": "First", **GOOD, "subject": "t"})[0] == 409
    assert app.graph("GET", below)[1]["value"] == [made]


# ---- Signing in: exact names, and the issuer's published keys

ISSUER = "https://oidc.example/cluster/"
SUBJECT = "system:serviceaccount:demo:default"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


class Known(PublishedKeys):
    """The keys of one issuer, without a network."""

    def __init__(self) -> None:
        super().__init__(NOWHERE, ssl.create_default_context, lambda: 0.0)

    async def find(self, issuer: str, key_id: object) -> list[jwt.PyJWK]:
        if issuer != ISSUER or key_id != "k":
            return []
        published = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
        return [jwt.PyJWK(published, algorithm="RS256")]


@pytest.fixture
def direct(folder: Path) -> Direct:
    return Direct(folder, Known())


@pytest.fixture
def app(direct: Direct) -> Registered:
    made = register(direct)
    made.trust("cluster", ISSUER, SUBJECT, EXCHANGE)
    return made


def service_account_token(
    app: Registered,
    claims: Mapping[str, Any] | None = None,
    *,
    key: Key = KEY,
    algorithm: str = "RS256",
    key_id: str = "k",
) -> str:
    times = {"nbf": NOW, "iat": NOW, "exp": NOW + 3600}
    good = {"iss": ISSUER, "sub": SUBJECT, "aud": [EXCHANGE], **times}
    whole = dated(app, {**good, **(claims or {})})
    return jwt.encode(whole, key, algorithm=algorithm, headers={"kid": key_id})


def test_a_fitting_token_signs_in(app: Registered) -> None:
    assert app.present(service_account_token(app)) == (200, [])
    assert app.present(service_account_token(app, {"aud": EXCHANGE})) == (200, [])


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": ISSUER.rstrip("/")}, 700211),
        ({"iss": ISSUER.upper().replace("HTTPS", "https")}, 700211),
        ({"iss": "https://other.example"}, 700211),
        ({"sub": "system:serviceaccount:demo:other"}, 700213),
        ({"sub": SUBJECT.upper()}, 7002138),
        ({"sub": None}, 700213),
        ({"aud": ["https://kubernetes.default.svc"]}, 700212),
        ({"aud": [EXCHANGE, "more"]}, 700212),
        ({"aud": EXCHANGE.lower()}, 700212),
        ({"aud": None}, 700212),
        ({"exp": NOW}, 700024),
        ({"exp": None}, 700024),
        ({"nbf": NOW + 301}, 700024),
    ],
)
def test_a_claim_that_does_not_fit_is_refused_by_its_code(
    app: Registered, claims: dict[str, Any], code: int
) -> None:
    assert app.present(service_account_token(app, claims)) == (401, [code])


@pytest.mark.parametrize(
    ("signed", "expected"),
    [
        ({"key": OTHER}, (401, [700027])),
        ({"key_id": "unknown"}, (401, [700027])),
        ({"key": CURVE, "algorithm": "ES256"}, (400, [5002738])),
        ({"key": "secret-of-32-bytes-for-this-test!", "algorithm": "HS256"}, (400, [5002738])),
    ],
)
def test_a_signature_that_no_published_key_explains_is_refused(
    app: Registered, signed: dict[str, Any], expected: tuple[int, list[int]]
) -> None:
    assert app.present(service_account_token(app, **signed)) == expected


def test_a_new_credential_and_a_changed_one_are_not_known_at_once(direct: Direct) -> None:
    direct.weather("credentials=30")
    app = register(direct)
    app.trust("cluster", ISSUER, SUBJECT, EXCHANGE)
    assert app.present(service_account_token(app)) == (401, [70025])
    direct.clock.now += 30
    assert app.present(service_account_token(app)) == (200, [])


def trusting(
    direct: Direct, identity: UserAssignedIdentity, issuer: str, subject: str
) -> Registered:
    """Make a federated credential of an identity; return the identity as who signs in by it."""
    body = {"issuer": issuer, "subject": subject, "audiences": [EXCHANGE]}
    direct.made("PUT", f"{identity.id}/{CREDENTIALS}/one", {"properties": body})
    return Registered(direct, "", identity.client_id, direct.world.tenants.home)


def test_an_identity_gets_by_federation_the_names_that_imds_gives_it(direct: Direct) -> None:
    mine = direct.identity("mine")
    app = trusting(direct, mine, ISSUER, SUBJECT)
    given = service_account_token(app)
    _, answer = app.sign_in(client_assertion=given, client_assertion_type=ASSERTION)
    claims = claims_of(answer["access_token"])
    assert (claims["appid"], claims["oid"]) == (mine.client_id, mine.principal_id)
    assert (claims["xms_mirid"], claims["idtyp"]) == (mine.id, "app")
    assert (answer["expires_in"], answer["refresh_in"]) == (86_399, 43_199)
    partner = direct.world.tenants.partner.id
    assert app.present(given, tenant=partner) == (400, [700016])
    direct.made("DELETE", f"{mine.id}/{CREDENTIALS}/one")
    assert app.present(service_account_token(app)) == (401, [70025])


def test_an_issuer_that_does_not_answer_is_said_to_be_so(folder: Path) -> None:
    app = register(Direct(folder))
    app.trust("cluster", ISSUER, SUBJECT, EXCHANGE)
    assert app.present(service_account_token(app)) == (400, [90061])


# ---- A managed identity is the credential of an application, in other tenants as well.

QUERY = f"{TOKEN}?api-version=2018-02-01&resource={EXCHANGE}"


@dataclass(frozen=True)
class Trust:
    """An application that trusts an identity."""

    app: Registered
    identity: UserAssignedIdentity
    token: str
    """Of the identity, from IMDS."""


@pytest.fixture
def trust(direct: Direct) -> Trust:
    identity = direct.identity("mine")
    direct.attach(identity)
    app = register(direct, multi_tenant=True)
    home = direct.world.tenants.home
    app.trust("mine", home.issuer_v2, identity.principal_id, EXCHANGE)
    _, answer = asyncio.run(ask(direct, f"{QUERY}&client_id={identity.client_id}"))
    return Trust(app, identity, answer["access_token"])


def test_the_token_for_the_exchange_is_a_v2_one(trust: Trust) -> None:
    claims = claims_of(trust.token)
    home = trust.app.tenant.id
    assert claims["iss"] == f"https://login.microsoftonline.com/{home}/v2.0"
    assert (claims["aud"], claims["ver"]) == (EXCHANGE_APP, "2.0")
    assert claims["sub"] == claims["oid"] == trust.identity.principal_id
    assert (claims["azp"], "appid" in claims) == (trust.identity.client_id, False)


def test_it_signs_the_application_in_wherever_it_is_provisioned(trust: Trust) -> None:
    app, partner = trust.app, trust.app.direct.world.tenants.partner
    assert app.present(trust.token) == (200, [])
    assert app.present(trust.token, tenant=partner.id) == (400, [700016])
    body = {"appId": app.client_id}
    made = [graph(app.direct, "POST", "servicePrincipals", body, tenant=partner) for _ in range(2)]
    assert [status for status, _ in made] == [201, 409]
    assert app.present(trust.token, tenant=partner.id) == (200, [])


def _signed(direct: Direct, who: Principal, mirid: str = "") -> str:
    grant = Grant(principal=who, audience=EXCHANGE, managed_identity=mirid)
    tenant = direct.world.tenants.find(who.tenant_id)
    assert tenant is not None
    return direct.issuers.of(tenant).mint(grant, now=direct.clock.now, lifetime=600)


def test_tokens_of_applications_and_system_identities_are_no_credentials(trust: Trust) -> None:
    app, direct = trust.app, trust.app.direct
    operator = direct.world.principal_of(direct.plan.operator_id, app.tenant.id)
    assert operator is not None
    app.trust("operator", app.tenant.issuer_v2, operator.object_id, EXCHANGE)
    assert app.present(_signed(direct, operator)) == (401, [700226])
    assert app.present(_signed(direct, operator, direct.plan.scale_set_id)) == (401, [700226])


def test_a_token_of_another_tenant_is_no_credential(trust: Trust) -> None:
    app, direct = trust.app, trust.app.direct
    partner = direct.world.tenants.partner
    stranger = direct.world.principal_of(direct.plan.operator_id, partner.id)
    assert stranger is not None
    app.trust("stranger", partner.issuer_v2, stranger.object_id, EXCHANGE)
    mirid = "/subscriptions/x/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x"
    assert app.present(_signed(direct, stranger, mirid)) == (401, [700222])


def test_one_identity_does_not_stand_for_another(trust: Trust) -> None:
    direct = trust.app.direct
    issuer = direct.world.tenants.home.issuer_v2
    app = trusting(direct, direct.identity("other"), issuer, trust.identity.principal_id)
    assert app.present(trust.token) == (401, [700222])


def test_a_token_that_is_forged_or_for_another_or_another_identitys_is_refused(
    trust: Trust,
) -> None:
    direct, other = trust.app.direct, trust.app.direct.identity("other")
    minted = _signed(direct, direct.principal_of(other), other.id)
    assert trust.app.present(minted) == (401, [700213])
    who = direct.world.principals[trust.identity.principal_id]
    assert trust.app.present(direct.token("https://vault.azure.net", who)) == (401, [700211])
    grant = Grant(principal=who, audience=EXCHANGE, managed_identity=trust.identity.id)
    forged = direct.stranger().mint(grant, now=direct.clock.now, lifetime=600)
    assert trust.app.present(forged) == (401, [700027])

"""A managed identity is the credential of an application, in other tenants as well."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import jwt
import pytest

from podidentity_sandbox.azure.directory import Principal
from podidentity_sandbox.azure.state import UserAssignedIdentity
from podidentity_sandbox.azure.tenants import EXCHANGE, EXCHANGE_APP
from podidentity_sandbox.azure.tokens import Grant
from tests.sandbox.azure.direct import Direct
from tests.sandbox.azure.imds_requests import TOKEN, ask
from tests.sandbox.azure.registered import Registered, graph, register

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
    claims = jwt.decode(trust.token, options={"verify_signature": False})
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
    graph(app.direct, "POST", "servicePrincipals", body, tenant=partner)
    assert app.present(trust.token, tenant=partner.id) == (200, [])


def test_another_identitys_token_is_refused(trust: Trust) -> None:
    direct = trust.app.direct
    other = direct.identity("other")
    minted = _signed(direct, direct.world.principals[other.principal_id], other.id)
    assert trust.app.present(minted) == (401, [700213])


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
    other = direct.identity("other")
    home = direct.world.tenants.home
    body = {
        "issuer": home.issuer_v2,
        "subject": trust.identity.principal_id,
        "audiences": [EXCHANGE],
    }
    direct.made("PUT", f"{other.id}/federatedIdentityCredentials/mine", {"properties": body})
    app = Registered(direct, "", other.client_id, home)
    assert app.present(trust.token) == (401, [700222])


def test_a_forged_token_is_refused(trust: Trust) -> None:
    direct = trust.app.direct
    who = direct.world.principals[trust.identity.principal_id]
    grant = Grant(principal=who, audience=EXCHANGE, managed_identity=trust.identity.id)
    forged = direct.stranger().mint(grant, now=direct.clock.now, lifetime=600)
    assert trust.app.present(forged) == (401, [700027])


def test_a_token_for_another_resource_is_refused(trust: Trust) -> None:
    direct = trust.app.direct
    who = direct.world.principals[trust.identity.principal_id]
    assert trust.app.present(direct.token("https://vault.azure.net", who)) == (401, [700211])

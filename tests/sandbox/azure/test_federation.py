"""A federated credential signs in whom it names by every letter, by the issuer's published keys."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from podidentity_sandbox.azure.entra.issuers import PublishedKeys
from podidentity_sandbox.azure.tenants import EXCHANGE
from tests.sandbox.azure.direct import NOWHERE, Direct
from tests.sandbox.azure.registered import Key, Registered, register

ISSUER = "https://oidc.example/cluster/"
SUBJECT = "system:serviceaccount:demo:default"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
NOW = 1_000_000_000
"""Stands for the clock's time in the tables below."""


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
    now = int(app.direct.clock.now)
    good = {
        "iss": ISSUER,
        "sub": SUBJECT,
        "aud": [EXCHANGE],
        "nbf": now,
        "iat": now,
        "exp": now + 3600,
    }
    changed = {
        name: value + now - NOW if type(value) is int else value
        for name, value in (claims or {}).items()
    }
    whole = {name: value for name, value in {**good, **changed}.items() if value is not None}
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


def test_without_any_credential_the_client_is_told_so(direct: Direct) -> None:
    bare = register(direct)
    assert bare.present(service_account_token(bare)) == (401, [70025])


def test_a_new_credential_and_a_changed_one_are_not_known_at_once(direct: Direct) -> None:
    direct.world.credential_delay = 30
    app = register(direct)
    app.trust("cluster", ISSUER, SUBJECT, EXCHANGE)
    assert app.present(service_account_token(app)) == (401, [70025])
    direct.clock.now += 30
    assert app.present(service_account_token(app)) == (200, [])


def test_a_deleted_credential_signs_nobody_in(app: Registered) -> None:
    assert app.graph("DELETE", "/federatedIdentityCredentials/cluster")[0] == 204
    assert app.present(service_account_token(app)) == (401, [70025])


def test_an_identity_gets_by_federation_the_names_that_imds_gives_it(direct: Direct) -> None:
    mine = direct.identity("mine")
    body = {"issuer": ISSUER, "subject": SUBJECT, "audiences": [EXCHANGE]}
    path = f"{mine.id}/federatedIdentityCredentials/cluster"
    direct.made("PUT", path, {"properties": body})
    app = Registered(direct, "", mine.client_id, direct.world.tenants.home)
    _, answer = app.sign_in(
        client_assertion=service_account_token(app),
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    )
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert (claims["appid"], claims["oid"]) == (mine.client_id, mine.principal_id)
    assert (claims["xms_mirid"], claims["idtyp"]) == (mine.id, "app")
    assert (answer["expires_in"], answer["refresh_in"]) == (86_399, 43_199)
    assert app.present(service_account_token(app), tenant=direct.world.tenants.partner.id) == (
        400,
        [700016],
    )


def test_an_issuer_that_does_not_answer_is_said_to_be_so(folder: Path) -> None:
    app = register(Direct(folder))
    app.trust("cluster", ISSUER, SUBJECT, EXCHANGE)
    assert app.present(service_account_token(app)) == (400, [90061])

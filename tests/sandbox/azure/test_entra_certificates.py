"""A certificate signs an application in by the documented assertion, and by no other."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.sandbox.azure.direct import Direct
from tests.sandbox.azure.registered import Key, Registered, certified, register

DAY = timedelta(days=1)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def thumbprint(certificate: x509.Certificate, algorithm: str) -> str:
    der = certificate.public_bytes(serialization.Encoding.DER)
    digest = hashlib.new(algorithm, der, usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).decode()


@dataclass(frozen=True)
class Signer:
    """An application with a certificate."""

    app: Registered
    certificate: x509.Certificate

    def assertion(
        self,
        claims: Mapping[str, Any] | None = None,
        *,
        key: Key = KEY,
        algorithm: str = "PS256",
        header: Mapping[str, str] | None = None,
    ) -> str:
        """Return today's assertion, with some claims changed (None: left out)."""
        now = int(self.app.direct.clock.now)
        tenant = self.app.tenant.id
        good = {
            "aud": f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
            "iss": self.app.client_id,
            "sub": self.app.client_id,
            "jti": str(uuid.uuid4()),
            "nbf": now,
            "iat": now,
            "exp": now + 600,
        }
        whole = {k: v for k, v in {**good, **(claims or {})}.items() if v is not None}
        own = {"x5t#S256": thumbprint(self.certificate, "sha256")}
        return jwt.encode(whole, key, algorithm=algorithm, headers=dict(header or own))


@pytest.fixture
def signer(direct: Direct) -> Signer:
    app = register(direct)
    certificate = certified(KEY, starts=-DAY, ends=DAY)
    app.add_certificate(certificate)
    return Signer(app, certificate)


def test_both_documented_forms_sign_in(signer: Signer) -> None:
    classic = {"x5t": thumbprint(signer.certificate, "sha1")}
    assert signer.app.present(signer.assertion()) == (200, [])
    assert signer.app.present(signer.assertion(algorithm="RS256", header=classic)) == (200, [])
    unpadded = {"x5t": classic["x5t"].rstrip("=")}
    assert signer.app.present(signer.assertion(algorithm="RS256", header=unpadded)) == (200, [])


def test_the_token_says_that_a_certificate_was_used(signer: Signer) -> None:
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    _, body = signer.app.sign_in(client_assertion=signer.assertion(), client_assertion_type=kind)
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert (claims["appidacr"], claims["appid"]) == ("2", signer.app.client_id)


@pytest.mark.parametrize(
    "audience",
    [
        "https://login.microsoftonline.com/{id}/oauth2/token",
        "https://login.microsoftonline.com/{id}/oauth2/token?api-version=1.0",
        "https://login.microsoftonline.com/{id}/v2.0",
        "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token",
        "https://sts.windows.net/{id}/",
    ],
)
def test_the_audience_is_any_name_of_the_tenants_endpoint(signer: Signer, audience: str) -> None:
    named = audience.format(id=signer.app.tenant.id)
    assert signer.app.present(signer.assertion({"aud": named})) == (200, [])


NOW = 1_000_000_000
"""Stands for the clock's time in the table below."""


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": str(uuid.uuid4())}, 700021),
        ({"sub": str(uuid.uuid4())}, 700021),
        ({"sub": None}, 700021),
        ({"jti": None}, 50027),
        ({"aud": "https://login.microsoftonline.com/common/oauth2/v2.0/token"}, 700023),
        ({"aud": "https://login.microsoftonline.us/{id}/oauth2/v2.0/token"}, 700023),
        ({"aud": None}, 700023),
        ({"exp": None}, 700024),
        ({"exp": NOW}, 700024),
        ({"exp": True}, 700024),
        ({"exp": "soon"}, 700024),
        ({"nbf": NOW + 301, "exp": NOW + 900}, 700024),
        ({"nbf": NOW, "exp": NOW + 86_400 + 601}, 700024),
    ],
)
def test_a_claim_that_is_wrong_is_refused_by_its_code(
    signer: Signer, claims: dict[str, Any], code: int
) -> None:
    shift = int(signer.app.direct.clock.now) - NOW
    fitted = {
        name: value + shift if type(value) is int else value for name, value in claims.items()
    }
    if audience := claims.get("aud"):
        fitted["aud"] = audience.format(id=signer.app.tenant.id)
    status, codes = signer.app.present(signer.assertion(fitted))
    assert (status, codes) == (400 if code == 50027 else 401, [code])


def test_a_day_is_the_longest_life_and_a_clock_may_be_five_minutes_ahead(signer: Signer) -> None:
    now = int(signer.app.direct.clock.now)
    for claims in ({"exp": now + 86_400}, {"nbf": now + 300}):
        assert signer.app.present(signer.assertion(claims)) == (200, [])


def test_an_unregistered_or_foreign_signature_is_refused(signer: Signer) -> None:
    app = signer.app
    stranger = certified(OTHER, starts=-DAY, ends=DAY)
    unknown = {"x5t#S256": thumbprint(stranger, "sha256")}
    assert app.present(signer.assertion(header=unknown, key=OTHER)) == (401, [700027])
    assert app.present(signer.assertion(key=OTHER)) == (401, [700027])
    head, body, signature = signer.assertion().split(".")
    cut = f"{head}.{body}.{'AA' if signature[:2] != 'AA' else 'BB'}{signature[2:]}"
    assert app.present(cut) == (401, [700027])


@pytest.mark.parametrize(("starts", "ends"), [(-2 * DAY, -DAY), (DAY, 2 * DAY)])
def test_a_certificate_out_of_its_time_is_refused(
    direct: Direct, starts: timedelta, ends: timedelta
) -> None:
    app = register(direct)
    certificate = certified(KEY, starts=starts, ends=ends)
    app.add_certificate(certificate)
    reply, body = app.sign_in(
        client_assertion=Signer(app, certificate).assertion(),
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    )
    assert (reply.status, body["error_codes"]) == (401, [700027])
    assert "The key used is expired." in body["error_description"]


@pytest.mark.parametrize(
    ("algorithm", "name"), [("RS256", "x5t#S256"), ("PS256", "x5t"), ("PS256", "kid")]
)
def test_a_thumbprint_that_does_not_go_with_the_algorithm_is_none(
    signer: Signer, algorithm: str, name: str
) -> None:
    digest = "sha1" if name == "x5t" else "sha256"
    header = {name: thumbprint(signer.certificate, digest)}
    assertion = signer.assertion(algorithm=algorithm, header=header)
    assert signer.app.present(assertion) == (400, [50027])


def test_an_elliptic_key_may_be_registered_and_signs_nobody_in(direct: Direct) -> None:
    app, key = register(direct), ec.generate_private_key(ec.SECP256R1())
    certificate = certified(key, starts=-DAY, ends=DAY)
    app.add_certificate(certificate)
    assertion = Signer(app, certificate).assertion(key=key, algorithm="ES256")
    assert app.present(assertion) == (400, [5002738])


def test_several_certificates_hold_side_by_side_until_they_are_taken_away(signer: Signer) -> None:
    other = certified(OTHER, starts=-DAY, ends=DAY)
    signer.app.add_certificate(other)
    second = Signer(signer.app, other)
    assert signer.app.present(signer.assertion()) == (200, [])
    assert signer.app.present(second.assertion(key=OTHER)) == (200, [])
    assert signer.app.graph("PATCH", "", {"keyCredentials": []})[0] == 204
    assert signer.app.present(signer.assertion()) == (401, [700027])


@pytest.mark.parametrize("assertion", ["", "rubbish", "a.b.c"])
def test_what_is_no_assertion_is_refused(signer: Signer, assertion: str) -> None:
    expected = (401, [7000218]) if not assertion else (400, [50027])
    assert signer.app.present(assertion) == expected
    form = {"client_assertion": signer.assertion()}
    assert signer.app.sign_in(**form)[1]["error_codes"] == [900144]

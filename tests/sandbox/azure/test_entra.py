"""Entra: what it publishes, whom it gives a token, by secret or certificate, and its errors."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from podidentity_sandbox.azure.faults import REDIRECTED
from podidentity_sandbox.azure.messages import Request
from tests.sandbox.azure.direct import Direct, claims_of
from tests.sandbox.azure.registered import (
    ASSERTION,
    DAY,
    NOW,
    Key,
    Registered,
    certified,
    dated,
    register,
)

VAULT = "https://vault.azure.net"


def good_form(direct: Direct) -> dict[str, str]:
    return {
        "grant_type": "client_credentials",
        "client_id": direct.plan.operator_id,
        "client_secret": direct.plan.operator_secret,
        "scope": f"{VAULT}/.default",
    }


@pytest.mark.parametrize(
    ("change", "status", "error", "code"),
    [
        ({"grant_type": ""}, 400, "invalid_request", 900144),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, 400, "unauthorized_client", 700016),
        ({"client_secret": None}, 401, "invalid_client", 7000218),
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": ""}, 401, "invalid_client", 7000218),
        ({"scope": ""}, 400, "invalid_request", 900144),
        ({"scope": VAULT}, 400, "invalid_scope", 1002012),
        ({"scope": f"{VAULT}/.default User.Read"}, 400, "invalid_scope", 1002012),
        ({"scope": "openid offline_access profile"}, 400, "invalid_scope", 1002012),
        ({"scope": f"{VAULT}/.default openid {VAULT}/.default"}, 400, "invalid_scope", 70011),
        ({"scope": "https://nowhere.example/.default"}, 400, "invalid_resource", 500011),
    ],
)
def test_a_bad_request_is_refused_by_its_code(
    direct: Direct, change: dict[str, str | None], status: int, error: str, code: int
) -> None:
    form = {k: v for k, v in {**good_form(direct), **change}.items() if v is not None}
    reply, body = direct.sign_in(form)
    assert (reply.status, body["error"], body["error_codes"]) == (status, error, [code])
    assert body["error_description"].startswith(f"AADSTS{code}: ")
    ids = {"timestamp", "trace_id", "correlation_id", "error_uri"}
    assert set(body) == {"error", "error_description", "error_codes", *ids}
    assert direct.plan.operator_secret not in reply.body.decode()


def test_the_scopes_that_msal_for_go_adds_change_nothing(direct: Direct) -> None:
    more = "openid offline_access profile"
    for scope in (f"{VAULT}/.default {more}", f"{more} {VAULT}/.default"):
        _, body = direct.sign_in({**good_form(direct), "scope": scope})
        assert set(body) == {"token_type", "expires_in", "ext_expires_in", "access_token"}
        claims = claims_of(body["access_token"])
        assert (claims["aud"], claims["appid"]) == (VAULT, direct.plan.operator_id)


@pytest.mark.parametrize("path", ["oauth2/v2.0/token", "oauth2/token"])
@pytest.mark.parametrize("name", ["scope", "client_id", "client_secret", "grant_type", "unknown"])
def test_a_field_that_is_there_twice_is_named(direct: Direct, path: str, name: str) -> None:
    form = {**good_form(direct), "unknown": ""}
    reply, body = direct.sign_in([*form.items(), (name, form[name])], path)
    assert (reply.status, body["error"], body["error_codes"]) == (400, "invalid_request", [9000411])
    assert f"The parameter '{name}' is duplicated." in body["error_description"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/x-www-form-urlencoded; charset=utf-8", 200),
        ("Application/X-WWW-Form-URLEncoded", 200),
        ("application/json", 400),
        ("text/plain", 400),
        ("", 400),
    ],
)
def test_a_body_of_another_type_than_a_form_has_no_fields(
    direct: Direct, kind: str, status: int
) -> None:
    reply, body = direct.sign_in(good_form(direct), kind=kind)
    assert reply.status == status
    if status == 400:
        assert body["error_codes"] == [900144]
        assert "the following parameter: 'grant_type'." in body["error_description"]


@pytest.mark.parametrize(
    ("name", "known"), [("acct.blob.core.windows.net", True), ("acct.blob.example.com", False)]
)
def test_accounts_are_resources_by_their_names(direct: Direct, name: str, known: bool) -> None:
    form = {**good_form(direct), "scope": f"https://{name}/.default"}
    assert ("access_token" in direct.sign_in(form)[1]) is known


def test_a_managed_identity_cannot_sign_in_with_a_secret(direct: Direct) -> None:
    mine = direct.identity("mine")
    form = {**good_form(direct), "client_id": mine.client_id}
    for secret, code in (("", 7000218), ("a guess", 7000232)):
        assert direct.sign_in({**form, "client_secret": secret})[1]["error_codes"] == [code]


def test_another_tenant_is_not_found(direct: Direct) -> None:
    target = "/00000000-0000-0000-0000-000000000000/v2.0/.well-known/openid-configuration"
    reply = direct.signed_in(Request(method="GET", target=target))
    assert (reply.status, json.loads(reply.body)["error_codes"]) == (400, [90002])


@pytest.mark.parametrize("slash", ["", "/"])
def test_v2_answers_in_integers_and_the_resource_keeps_its_slash(
    direct: Direct, slash: str
) -> None:
    _, body = direct.sign_in({**good_form(direct), "scope": f"{VAULT}{slash}/.default"})
    times = (body["expires_in"], body["ext_expires_in"])
    assert (body["token_type"], times) == ("Bearer", (3599, 3599))
    claims = claims_of(body["access_token"])
    assert claims["aud"] == f"{VAULT}{slash}"
    assert claims["iss"] == f"https://sts.windows.net/{direct.plan.tenant_id}/"
    assert "xms_mirid" not in claims


def test_v1_answers_in_strings(direct: Direct) -> None:
    form = {**good_form(direct), "resource": VAULT}
    _, body = direct.sign_in(form, "oauth2/token?api-version=1.0")
    assert {type(value) for value in body.values()} == {str}
    assert body["resource"] == VAULT


@pytest.mark.parametrize("version", ["", "/v2.0"])
def test_the_published_keys_explain_the_signature(direct: Direct, version: str) -> None:
    def get(path: str) -> Any:
        target = f"/{direct.plan.tenant_id}{path}"
        return json.loads(direct.signed_in(Request(method="GET", target=target)).body)

    configuration = get(f"{version}/.well-known/openid-configuration")
    where = configuration["jwks_uri"].partition(direct.plan.tenant_id)[2]
    (key,) = get(where)["keys"]
    token = direct.sign_in(good_form(direct))[1]["access_token"]
    assert jwt.get_unverified_header(token)["kid"] == key["kid"]
    jwt.decode(token, jwt.PyJWK(key, "RS256"), algorithms=["RS256"], audience=VAULT)


# ---- A certificate signs an application in by the documented assertion, and by no other.

SHA1, SHA256 = hashes.SHA1(), hashes.SHA256()  # noqa: S303 - what older clients name it by
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def thumbprint(certificate: x509.Certificate, algorithm: hashes.HashAlgorithm) -> str:
    return base64.urlsafe_b64encode(certificate.fingerprint(algorithm)).decode()


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
        good = {
            "aud": f"https://login.microsoftonline.com/{self.app.tenant.id}/oauth2/v2.0/token",
            "iss": self.app.client_id,
            "sub": self.app.client_id,
            "jti": str(uuid.uuid4()),
            "nbf": NOW,
            "iat": NOW,
            "exp": NOW + 600,
        }
        whole = dated(self.app, {**good, **(claims or {})})
        own = {"x5t#S256": thumbprint(self.certificate, SHA256)}
        return jwt.encode(whole, key, algorithm=algorithm, headers=dict(header or own))


@pytest.fixture
def signer(direct: Direct) -> Signer:
    app = register(direct)
    certificate = certified(KEY)
    app.add_certificate(certificate)
    return Signer(app, certificate)


def test_both_documented_forms_sign_in(signer: Signer) -> None:
    classic = {"x5t": thumbprint(signer.certificate, SHA1)}
    assert signer.app.present(signer.assertion()) == (200, [])
    assert signer.app.present(signer.assertion(algorithm="RS256", header=classic)) == (200, [])
    unpadded = {"x5t": classic["x5t"].rstrip("=")}
    assert signer.app.present(signer.assertion(algorithm="RS256", header=unpadded)) == (200, [])


def test_the_token_says_that_a_certificate_was_used(signer: Signer) -> None:
    assertion = signer.assertion()
    _, body = signer.app.sign_in(client_assertion=assertion, client_assertion_type=ASSERTION)
    claims = claims_of(body["access_token"])
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


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "somebody else"}, 700021),
        ({"sub": "somebody else"}, 700021),
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
    if audience := claims.get("aud"):
        claims = {**claims, "aud": audience.format(id=signer.app.tenant.id)}
    status, codes = signer.app.present(signer.assertion(claims))
    assert (status, codes) == (400 if code == 50027 else 401, [code])


def test_a_day_is_the_longest_life_and_a_clock_may_be_five_minutes_ahead(signer: Signer) -> None:
    for claims in ({"exp": NOW + 86_400}, {"nbf": NOW + 300}):
        assert signer.app.present(signer.assertion(claims)) == (200, [])


def test_an_unregistered_or_foreign_signature_is_refused(signer: Signer) -> None:
    app = signer.app
    stranger = certified(OTHER)
    unknown = {"x5t#S256": thumbprint(stranger, SHA256)}
    assert app.present(signer.assertion(header=unknown, key=OTHER)) == (401, [700027])
    assert app.present(signer.assertion(key=OTHER)) == (401, [700027])
    head, body, signature = signer.assertion().split(".")
    cut = f"{head}.{body}.{'AA' if signature[:2] != 'AA' else 'BB'}{signature[2:]}"
    assert app.present(cut) == (401, [700027])


@pytest.mark.parametrize(("starts", "ends"), [(-2 * DAY, -DAY), (DAY, 2 * DAY)])
def test_a_certificate_out_of_its_time_is_refused(
    direct: Direct, starts: float, ends: float
) -> None:
    app = register(direct)
    certificate = certified(KEY, starts=starts, ends=ends)
    app.add_certificate(certificate)
    assertion = Signer(app, certificate).assertion()
    reply, body = app.sign_in(client_assertion=assertion, client_assertion_type=ASSERTION)
    assert (reply.status, body["error_codes"]) == (401, [700027])
    assert "The key used is expired." in body["error_description"]


@pytest.mark.parametrize(
    ("algorithm", "name"), [("RS256", "x5t#S256"), ("PS256", "x5t"), ("PS256", "kid")]
)
def test_a_thumbprint_that_does_not_go_with_the_algorithm_is_none(
    signer: Signer, algorithm: str, name: str
) -> None:
    header = {name: thumbprint(signer.certificate, SHA1 if name == "x5t" else SHA256)}
    assertion = signer.assertion(algorithm=algorithm, header=header)
    assert signer.app.present(assertion) == (400, [50027])


def test_an_elliptic_key_may_be_registered_and_signs_nobody_in(direct: Direct) -> None:
    app, key = register(direct), ec.generate_private_key(ec.SECP256R1())
    certificate = certified(key)
    app.add_certificate(certificate)
    assertion = Signer(app, certificate).assertion(key=key, algorithm="ES256")
    assert app.present(assertion) == (400, [5002738])


def test_several_certificates_hold_side_by_side_until_they_are_taken_away(signer: Signer) -> None:
    other = certified(OTHER)
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


# ---- Faults, and the journal


@pytest.mark.parametrize(
    ("mode", "status", "words"),
    [
        ("rubbish", 200, "<html>"),
        ("cut", 200, '{"token_type":"Bearer","expires_in":"86'),
        ("types", 200, '"access_token":7'),
        ("html", 502, "502 Bad Gateway"),
        ("redirect", 307, ""),
        ("500", 500, "AADSTS90033"),
        ("503", 503, "AADSTS90033"),
        ("429", 429, "AADSTS90055"),
    ],
)
def test_a_fault_answers_in_place_of_entra(
    direct: Direct, mode: str, status: int, words: str
) -> None:
    direct.weather(f"entra=[{{effect: {mode}, seconds: 7, first: 1}}]")
    target = f"/{direct.plan.tenant_id}/oauth2/v2.0/token"
    reply = direct.signed_in(Request(method="POST", target=target))
    assert (reply.status, words in reply.body.decode()) == (status, True)
    assert reply.headers.get("Retry-After") == ("7" if mode in {"429", "503"} else None)
    assert reply.headers.get("Location") == (REDIRECTED if mode == "redirect" else None)
    assert direct.sign_in(good_form(direct))[0].status == 200


def test_the_journal_counts_requests_and_holds_no_secret(direct: Direct) -> None:
    good = good_form(direct)
    direct.sign_in(good)
    direct.sign_in({**good, "client_secret": "wrong"})
    first, second = direct.entra.journal
    told = {name: good[name] for name in ("grant_type", "client_id", "scope")}
    told |= {"tenant": direct.plan.tenant_id, "credential": "secret"}
    assert first.items() >= {**told, "status": 200, "code": 0}.items()
    assert (second["status"], second["code"]) == (401, 7000215)
    assert direct.plan.operator_secret not in str([first, second])

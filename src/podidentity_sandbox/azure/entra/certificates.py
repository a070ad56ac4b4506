"""Signing in with a certificate: an assertion of the client itself, signed by its private key.

Two forms are documented, and only they are taken: RS256 with the SHA-1 thumbprint (`x5t`), as all
older clients have it, and PS256 with the SHA-256 one (`x5t#S256`).
https://learn.microsoft.com/entra/identity-platform/certificate-credentials
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

from podidentity_sandbox.azure.directory import Application, ClientCertificate
from podidentity_sandbox.azure.entra.assertions import CERTIFICATES, Assertion, check_time
from podidentity_sandbox.azure.entra.clients import Client
from podidentity_sandbox.azure.entra.errors import EntraError
from podidentity_sandbox.azure.tenants import Tenant

LONGEST = 86_400.0 + 600
"""Seconds: a day, as ADAL's assertions lived, and what its clock was dated back."""
_THUMBPRINTS = {"x5t": "RS256", "x5t#S256": "PS256"}
_NOT_REGISTERED = (
    "The certificate with identifier used to sign the client assertion is not registered on"
    " application."
)


def check_certificate(client: Client, assertion: Assertion, tenant: Tenant, now: float) -> None:
    """Raise EntraError unless a certificate of the client signed the assertion, for us and now."""
    if {assertion.said("iss").lower(), assertion.said("sub").lower()} != {client.principal.app_id}:
        raise EntraError(
            401,
            "invalid_client",
            700021,
            "Client assertion application identifier doesn't match 'client_id' parameter. Review"
            f" the documentation at {CERTIFICATES} .",
        )
    if not assertion.said("jti"):
        raise EntraError(400, "invalid_request", 50027, "JWT token is invalid or malformed.")
    if not any(one in audiences(tenant) for one in assertion.audiences):
        raise EntraError(
            401,
            "invalid_client",
            700023,
            "Client assertion audience claim does not match Realm issuer. Review the documentation"
            f" at {CERTIFICATES} .",
        )
    check_time(assertion, now, longest=LONGEST)
    _check_signature(client, assertion, now)


def audiences(tenant: Tenant) -> frozenset[str]:
    """Return what an assertion for a tenant may name as its audience.

    The token endpoint that is asked, or the issuer; ADAL named the v1 endpoint with its query:
    https://github.com/Azure/go-autorest/blob/main/autorest/adal/config.go.
    """
    found = set[str]()
    for host in tenant.cloud.logins:
        for name in (tenant.id, tenant.domain):
            base = f"https://{host}/{name}"
            found |= {f"{base}/v2.0", f"{base}/oauth2/v2.0/token", f"{base}/oauth2/token"}
            found.add(f"{base}/oauth2/token?api-version=1.0")
    return frozenset(found | {tenant.issuer})


def _check_signature(client: Client, assertion: Assertion, now: float) -> None:
    application = client.registration
    registered = application.certificates if isinstance(application, Application) else ()
    app_id = client.principal.app_id
    thumbprint = _thumbprint(assertion)
    used = next((one for one in registered if thumbprint in {one.sha1, one.sha256}), None)
    hint = f"Thumbprint of key used by client: '{thumbprint.hex().upper()}'"
    if used is None:
        raise _refused(_NOT_REGISTERED, f"The key was not found., {hint}", app_id)
    found = f"{hint}, Found key '{_life(used)}'"
    if not used.starts <= now < used.ends:
        raise _refused(_NOT_REGISTERED, f"The key used is expired., {found}", app_id)
    if not assertion.signed_by(used.certificate.public_key()):
        why = "The provided signature value did not match the expected signature value."
        invalid = "Client assertion contains an invalid signature."
        raise _refused(invalid, f"{why}, {found}", app_id)


def _thumbprint(assertion: Assertion) -> bytes:
    """Return the thumbprint that goes with the algorithm; raise EntraError where there is none."""
    for name, algorithm in _THUMBPRINTS.items():
        value = assertion.header.get(name)
        if isinstance(value, str) and assertion.header["alg"] == algorithm:
            try:
                padded = value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4)
                return base64.b64decode(padded, altchars=b"-_", validate=True)
            except binascii.Error:
                break
    words = "Invalid JWT token. No certificate thumbprint specified in token header."
    raise EntraError(400, "invalid_request", 50027, words)


def _life(certificate: ClientCertificate) -> str:
    starts, ends = (
        f"{datetime.fromtimestamp(at, UTC):%m/%d/%Y %H:%M:%S}"
        for at in (certificate.starts, certificate.ends)
    )
    return f"Start={starts}, End={ends}"


def _refused(what: str, reason: str, app_id: str) -> EntraError:
    return EntraError(
        401,
        "invalid_client",
        700027,
        f"{what} [Reason - {reason}, Please visit the Azure Portal, Graph Explorer or directly use"
        f" MS Graph to see configured keys for app Id '{app_id}'. Review the documentation at"
        " https://docs.microsoft.com/en-us/graph/deployments to determine the corresponding service"
        " endpoint and"
        " https://docs.microsoft.com/en-us/graph/api/application-get?view=graph-rest-1.0&tabs=http"
        " to build a query request URL, such as"
        f" 'https://graph.microsoft.com/beta/applications/{app_id}'].",
    )

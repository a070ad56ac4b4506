"""Clients that sign in, and what they prove it by: a secret, a certificate, a federated token.

An application is found by its registration, in any tenant; a user-assigned identity has federated
credentials and nothing else. A client assertion is signed by the client's own certificate, or by
another issuer.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import jwt

from podidentity_sandbox.azure.entra.answers import EntraError
from podidentity_sandbox.azure.messages import moment
from podidentity_sandbox.azure.state import (
    Application,
    ClientCertificate,
    FederatedCredential,
    Principal,
    UserAssignedIdentity,
    World,
)
from podidentity_sandbox.azure.tenants import CLOUDS, EXCHANGE, EXCHANGE_APP, Tenant
from podidentity_sandbox.azure.tokens import CLOCK_SKEW
from podidentity_sandbox.azure.verification import signed_claims

# ---- A client in a tenant, and its secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client in the tenant that it signs in to."""

    principal: Principal
    registration: Application | UserAssignedIdentity | None
    """None: a system-assigned identity, which cannot sign in here at all."""
    federated: tuple[FederatedCredential, ...]
    """Those that the sign-in service knows by now."""

    @property
    def managed_identity(self) -> str:
        """Resource id of the user-assigned identity that it is; "" for an application."""
        one = self.registration
        return one.id if isinstance(one, UserAssignedIdentity) else ""


def client_of(world: World, app_id: str, tenant: Tenant) -> Client:
    """Return the client of that id in a tenant; raise EntraError where it has none."""
    principal = world.principal_of(app_id, tenant.id)
    if principal is None:
        raise EntraError(
            700016,
            f"Application with identifier '{app_id}' was not found in the directory"
            f" '{tenant.id}'. This can happen if the application has not been installed by the"
            " administrator of the tenant or consented to by any user in the tenant. You may have"
            " sent your authentication request to the wrong tenant.",
        )
    registration: Application | UserAssignedIdentity | None = world.application(app_id)
    if registration is None:
        mine = principal.object_id
        identities = world.all(UserAssignedIdentity)
        registration = next((one for one in identities if one.principal_id == mine), None)
    known = world.counting(FederatedCredential, registration.id) if registration else []
    return Client(principal=principal, registration=registration, federated=tuple(known))


def check_secret(client: Client, given: str, now: float) -> None:
    """Raise EntraError unless `given` is a secret of the client that holds at `now`."""
    application = client.registration
    app_id = client.principal.app_id
    if not isinstance(application, Application):
        # Words as in reports only: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
        # does not list the number.
        raise EntraError(
            7000232,
            f"MSI identity ({app_id}) should not use ClientSecretCredential.",
        )
    fitting = [
        secret
        for secret in application.secrets
        if hmac.compare_digest(secret.value.encode(), given.encode())
    ]
    if any(secret.starts <= now < secret.ends for secret in fitting):
        return
    if fitting:
        raise EntraError(
            7000222,
            f"The provided client secret keys for app '{app_id}' are expired. Visit the Azure"
            " portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider"
            " using certificate credentials for added security: https://aka.ms/certCreds.",
        )
    raise EntraError(
        7000215,
        "Invalid client secret provided. Ensure the secret being sent in the request is the client"
        f" secret value, not the client secret ID, for a secret added to app '{app_id}'.",
    )


# ---- A client assertion: its claims and its signature
#
# https://learn.microsoft.com/entra/identity-platform/certificate-credentials

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
"""RSA only: https://github.com/AzureAD/microsoft-identity-web/issues/3467."""
CERTIFICATES = "https://learn.microsoft.com/entra/identity-platform/certificate-credentials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """An assertion that can be read; nothing in it is proved."""

    text: str = field(repr=False)
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    def said(self, name: str) -> str:
        """Return a claim that is a string; "" where it is none."""
        value = self.claims.get(name)
        return value if isinstance(value, str) else ""

    @property
    def audiences(self) -> tuple[str, ...]:
        value = self.claims.get("aud")
        found = value if isinstance(value, list) else [value]
        return tuple(one for one in found if isinstance(one, str))

    def signed_by(self, key: object) -> bool:
        try:
            signed_claims(self.text, key, self.header["alg"])
        except (jwt.InvalidTokenError, TypeError, ValueError):
            return False
        return True


def read(text: str) -> Assertion:
    """Read an assertion; raise EntraError where it is no JWT, or of an algorithm without RSA."""
    try:
        header = jwt.get_unverified_header(text)
        claims = jwt.decode(text, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        words = "JWT token is invalid or malformed."
        raise EntraError(50027, words) from error
    if header.get("alg") not in ALGORITHMS:
        # Its words, with what was supported then: https://github.com/search?q=AADSTS5002738
        raise EntraError(
            5002738,
            f"Invalid JWT token. '{header.get('alg')}' is not a supported signature algorithm."
            f" Supported signing algorithms are: '{', '.join(ALGORITHMS)}'",
        )
    return Assertion(text=text, header=header, claims=claims)


def check_time(assertion: Assertion, now: float, *, longest: float = float("inf")) -> None:
    """Raise EntraError unless the assertion holds at `now`; `longest` is the life it may have.

    A clock that is ahead is forgiven as far as Entra dates its own tokens back; one that is behind
    is not.
    """
    ends = _seconds(assertion, "exp")
    starts = _seconds(assertion, "nbf") or 0.0
    begins = _seconds(assertion, "nbf") or _seconds(assertion, "iat") or now
    if ends is not None and starts - CLOCK_SKEW <= now < ends and ends - begins <= longest:
        return
    raise EntraError(
        700024,
        "Client assertion is not within its valid time range. Current time:"
        f" {_stamp(now)}, assertion valid from {_stamp(starts)}, expiry time of assertion"
        f" {_stamp(ends or 0.0)}. Review the documentation at {CERTIFICATES} .",
    )


def _seconds(assertion: Assertion, name: str) -> float | None:
    value = assertion.claims.get(name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < 2**40 else None  # type: ignore[operator, arg-type]


def _stamp(seconds: float) -> str:
    return f"{moment(seconds):%Y-%m-%dT%H:%M:%S.%f}0Z"


# ---- Signing in with a certificate: an assertion of the client itself, signed by its private key.
#
# Two forms are documented, and only they are taken: RS256 with the SHA-1 thumbprint (`x5t`), as all
# older clients have it, and PS256 with the SHA-256 one (`x5t#S256`).
# https://learn.microsoft.com/entra/identity-platform/certificate-credentials

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
            700021,
            "Client assertion application identifier doesn't match 'client_id' parameter. Review"
            f" the documentation at {CERTIFICATES} .",
        )
    if not assertion.said("jti"):
        raise EntraError(50027, "JWT token is invalid or malformed.")
    if not any(one in audiences(tenant) for one in assertion.audiences):
        raise EntraError(
            700023,
            "Client assertion audience claim does not match Realm issuer. Review the documentation"
            f" at {CERTIFICATES} .",
        )
    check_time(assertion, now, longest=LONGEST)
    _check_signature(client, assertion, now)


def audiences(tenant: Tenant) -> frozenset[str]:
    """Return the audiences that an assertion for a tenant may have.

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
    raise EntraError(50027, words)


def _life(certificate: ClientCertificate) -> str:
    starts, ends = (
        f"{datetime.fromtimestamp(at, UTC):%m/%d/%Y %H:%M:%S}"
        for at in (certificate.starts, certificate.ends)
    )
    return f"Start={starts}, End={ends}"


def _refused(what: str, reason: str, app_id: str) -> EntraError:
    return EntraError(
        700027,
        f"{what} [Reason - {reason}, Please visit the Azure Portal, Graph Explorer or directly use"
        f" MS Graph to see configured keys for app Id '{app_id}'. Review the documentation at"
        " https://docs.microsoft.com/en-us/graph/deployments to determine the corresponding service"
        " endpoint and"
        " https://docs.microsoft.com/en-us/graph/api/application-get?view=graph-rest-1.0&tabs=http"
        " to build a query request URL, such as"
        f" 'https://graph.microsoft.com/beta/applications/{app_id}'].",
    )


# ---- Another issuer's token: the demands of a federated credential on it
#
# The codes and their words are those that people report, such as
# https://github.com/Azure/azure-workload-identity/issues/1200 and, of Entra's own tokens,
# https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity.
# In which order Entra looks is not known, and nothing hangs on it.

_CHECK = (
    "Check your federated identity credential Subject, Audience and Issuer against the presented"
    " assertion."
)
_GUIDE = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
_OWN = frozenset(host for cloud in CLOUDS for host in cloud.logins)


def check_match(client: Client, assertion: Assertion, now: float) -> FederatedCredential:
    """Return the credential that the assertion fits, by every letter; raise EntraError."""
    if not client.federated:
        who = client.principal
        raise EntraError(
            70025,
            f"The client '{who.app_id}'({who.name}) has no configured federated identity"
            " credentials.",
        )
    issuer, subject = assertion.said("iss"), assertion.said("sub")
    of_issuer = [one for one in client.federated if one.issuer == issuer]
    if not of_issuer:
        raise EntraError(700211, f"{_no_match('issuer', issuer)}. {_CHECK} {_GUIDE}")
    of_subject = [one for one in of_issuer if one.subject == subject]
    if not of_subject:
        raise _unknown_subject(of_issuer, subject)
    for one in of_subject:
        # Entra's own tokens name the resource by its id.
        own = is_own(one.issuer) and one.audience == EXCHANGE
        if assertion.audiences == (EXCHANGE_APP if own else one.audience,):
            check_time(assertion, now)
            return one
    named = ",".join(assertion.audiences)
    raise EntraError(700212, f"{_no_match('audience', named)}. {_CHECK} {_GUIDE}")


def is_own(issuer: str) -> bool:
    return urlsplit(issuer).hostname in _OWN


def check_own_token(
    client: Client, assertion: Assertion, home: str, signer: Principal | None
) -> None:
    """Raise EntraError unless one of Entra's tokens may stand for the client.

    Only a user-assigned identity's may, and only for an application of the tenant `home`, in
    which the identity itself is. `signer` is the principal that the token names.
    """
    foreign = signer is None or {signer.tenant_id, assertion.said("tid")} != {home}
    if client.managed_identity or foreign:
        raise EntraError(700222, "AAD-issued tokens may not be used for federated identity flows.")
    if "/userassignedidentities/" not in assertion.said("xms_mirid").lower():
        raise EntraError(
            700226, "Only MSI tokens may be used as Federated Identity Credentials for AAD issuer."
        )


def unproved() -> EntraError:
    """Return the error for a signature that no published key of the issuer verifies."""
    return EntraError(
        700027,
        "Client assertion failed signature validation. [Reason - The key was not found or the"
        " signature did not match.]",
    )


def unreachable() -> EntraError:
    """Return what Entra says when the issuer's documents cannot be had.

    https://azure.github.io/azure-workload-identity/docs/troubleshooting.html
    """
    return EntraError(90061, "Request to External OIDC endpoint failed.")


def _unknown_subject(near: list[FederatedCredential], subject: str) -> EntraError:
    words = _no_match("subject", subject)
    if any(one.subject.lower() == subject.lower() for one in near):
        # https://github.com/Azure/login/issues/515
        return EntraError(
            7002138,
            f"{words}. The subject matches with case-insensitive comparison, but not with"
            f" case-sensitive comparison. {_CHECK} See documentation at: {_GUIDE}.",
        )
    return EntraError(700213, f"{words}. {_CHECK} {_GUIDE}")


def _no_match(what: str, value: str) -> str:
    return f"No matching federated identity record found for presented assertion {what} '{value}'"

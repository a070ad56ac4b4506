"""Signing in with somebody else's token: what a federated credential demands of it.

The codes and their words are those that people report, such as
https://github.com/Azure/azure-workload-identity/issues/1200 and, of Entra's own tokens,
https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity.
In which order Entra looks is not known, and nothing hangs on it.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from podidentity_sandbox.azure.directory import FederatedCredential, Principal
from podidentity_sandbox.azure.entra.assertions import Assertion, check_time
from podidentity_sandbox.azure.entra.clients import Client
from podidentity_sandbox.azure.entra.errors import EntraError
from podidentity_sandbox.azure.tenants import CLOUDS, EXCHANGE, EXCHANGE_APP

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
        raise _invalid(
            70025,
            f"The client '{who.app_id}'({who.name}) has no configured federated identity"
            " credentials.",
        )
    issuer, subject = assertion.said("iss"), assertion.said("sub")
    of_issuer = [one for one in client.federated if one.issuer == issuer]
    if not of_issuer:
        raise _invalid(700211, f"{_no_match('issuer', issuer)}. {_CHECK} {_GUIDE}")
    of_subject = [one for one in of_issuer if one.subject == subject]
    if not of_subject:
        raise _unknown_subject(of_issuer, subject)
    for one in of_subject:
        if assertion.audiences == (_carried(one),):
            check_time(assertion, now)
            return one
    named = ",".join(assertion.audiences)
    raise _invalid(700212, f"{_no_match('audience', named)}. {_CHECK} {_GUIDE}")


def is_own(issuer: str) -> bool:
    """Return whether the issuer is Entra itself."""
    return urlsplit(issuer).hostname in _OWN


def check_own_token(
    client: Client, assertion: Assertion, home: str, signer: Principal | None
) -> None:
    """Raise EntraError unless one of Entra's tokens may stand for the client.

    Only a user-assigned identity's may, and only for an application of the tenant `home`, in
    which the identity itself is. `signer` is the principal that the token names.
    """
    if client.managed_identity or assertion.said("tid") != home:
        raise _invalid(700222, "AAD-issued tokens may not be used for federated identity flows.")
    if "/userassignedidentities/" not in assertion.said("xms_mirid").lower():
        raise _invalid(
            700226, "Only MSI tokens may be used as Federated Identity Credentials for AAD issuer."
        )
    if signer is None or signer.tenant_id != home:
        raise _invalid(700222, "AAD-issued tokens may not be used for federated identity flows.")


def unproved() -> EntraError:
    """Return what is said of a signature that no published key of the issuer explains."""
    return _invalid(
        700027,
        "Client assertion failed signature validation. [Reason - The key was not found or the"
        " signature did not match.]",
    )


def unreachable() -> EntraError:
    """Return what Entra says when the issuer's documents cannot be had.

    https://azure.github.io/azure-workload-identity/docs/troubleshooting.html
    """
    return EntraError(400, "invalid_request", 90061, "Request to External OIDC endpoint failed.")


def _unknown_subject(near: list[FederatedCredential], subject: str) -> EntraError:
    words = _no_match("subject", subject)
    if any(one.subject.lower() == subject.lower() for one in near):
        # https://github.com/Azure/login/issues/515
        return _invalid(
            7002138,
            f"{words}. The subject matches with case-insensitive comparison, but not with"
            f" case-sensitive comparison. {_CHECK} See documentation at: {_GUIDE}.",
        )
    return _invalid(700213, f"{words}. {_CHECK} {_GUIDE}")


def _carried(credential: FederatedCredential) -> str:
    """Return the audience of a token that fits: Entra's own name the resource by its id."""
    own = is_own(credential.issuer) and credential.audience == EXCHANGE
    return EXCHANGE_APP if own else credential.audience


def _no_match(what: str, value: str) -> str:
    return f"No matching federated identity record found for presented assertion {what} '{value}'"


def _invalid(code: int, text: str) -> EntraError:
    return EntraError(401, "invalid_client", code, text)

"""Entra's token endpoint: requests, assertions of certificates, answers and refusals.

Functions of this module hand a token out only if the token itself names the client and the tenant
that were asked for. Refusals are told apart by Entra's numbers, not by its texts.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow and, for
AD FS, https://learn.microsoft.com/windows-server/identity/ad-fs/overview/ad-fs-openid-connect-oauth-flows-scenarios
"""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http import HTTPStatus
from typing import Any, NoReturn
from urllib.parse import quote_plus, urlencode

from podidentity.core.errors import (
    CredentialUnknown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
)
from podidentity.core.resources import AccessToken, Authority, ClientId, Tenant
from podidentity.wire.imds import Claims, Fields, claims_of, error_of, fields_of, number

ADFS = "adfs"
"""Azure Stack Hub's name for the one tenant of its AD FS, which has only version 1 of OAuth."""
LONGEST_ANSWER = 1 << 20
"""Bytes. Tokens of many groups have some ten thousand."""

_DEFAULT = "/.default"
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 600
"""Lifetime of a certificate's assertion; Entra advises five to ten minutes."""

DEFAULT_RETRY_AFTER = 5
"""Seconds, if a 429 names none; the same as in Microsoft's own clients."""
LONGEST_RETRY_AFTER = 3600
LOOP_RETRY_AFTER = 60
"""Seconds without a request after Entra has said that a client asks in a loop."""

# https://learn.microsoft.com/entra/identity-platform/reference-error-codes; of federation:
# https://azure.github.io/azure-workload-identity/docs/troubleshooting.html
_SPREADING = frozenset({70021, 700016, 700211, 700212, 700213, 70025})
"""The application or federated credential is unknown: wrong, or made a moment ago."""
_STALE = 700024
_LOOP = 50196
_ISSUER_DOWN = 90061
_TRACE = "Trace ID:"


class StaleAssertion(TokenRefused):
    """By Entra's clock the assertion is not valid now; a new one may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An OAuth client, and the authority that authenticates it."""

    client_id: ClientId
    tenant: Tenant
    authority: Authority

    @property
    def adfs(self) -> bool:
        """Whether the authority is an AD FS of Azure Stack Hub."""
        return self.tenant.text == ADFS

    @property
    def url(self) -> str:
        """The token endpoint, which is also the audience of a certificate's assertion."""
        version = "" if self.adfs else "/v2.0"
        return f"{self.authority}/{self.tenant}/oauth2{version}/token"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredential:
    """The credential of a client: its secret, or an assertion that another party signed."""

    text: str = field(repr=False)
    assertion: bool

    @property
    def fields(self) -> dict[str, str]:
        if not self.assertion:
            return {"client_secret": self.text}
        return {"client_assertion_type": _JWT_BEARER, "client_assertion": self.text}


def render_request(client: Client, resource: str, credential: ClientCredential) -> bytes:
    """Return the form that requests a token for `resource`; it contains the credential."""
    form = {
        "client_id": str(client.client_id),
        "grant_type": "client_credentials",
        **({"resource": _resource(resource)} if client.adfs else {"scope": scope(resource)}),
        **credential.fields,
    }
    return urlencode(form).encode()


def scope(resource: str) -> str:
    """Return the scope for an audience: the audience verbatim, its last slash included.

    Entra takes the part before the last slash as the audience, and Azure SQL's ends in one:
    https://learn.microsoft.com/entra/identity-platform/scopes-oidc#trailing-slash-and-default
    """
    return resource if resource.endswith(_DEFAULT) else resource + _DEFAULT


def _resource(resource: str) -> str:
    return resource.removesuffix(_DEFAULT)


def parse_answer(
    status: int,
    body: bytes,
    *,
    client: Client,
    resource: str,
    credential: ClientCredential,
    now: float,
    retry_after: str,
) -> AccessToken:
    """Return the token in Entra's answer to `client`; raise a TokenUnavailable.

    `now` is in seconds since 1970; `retry_after` is the header, "" if there is none. No error
    contains the credential, even if the answer repeats it.
    """
    fields = fields_of(body)
    if status != 200:
        hidden = (credential.text, quote_plus(credential.text))
        _refuse(status, fields, who=str(client.authority), hidden=hidden, retry_after=retry_after)
    if fields is None:
        raise TokenSourceDown(f"{client.authority} answered with something that is no JSON object")
    value = fields.get("access_token")
    if not isinstance(value, str) or not value:
        raise TokenSourceDown(f"{client.authority} answered without an access_token")
    claims = claims_of(value)
    _check(client, claims)
    life = _life(claims, number(fields.get("expires_in")), now)
    if life <= 0:
        raise TokenSourceDown(
            f"{client.authority} answered with a token that has no life left; compare this node's "
            "clock with the time"
        )
    return AccessToken(
        value=value,
        client_id=client.client_id,
        expires_on=int(now) + life,
        not_before=number(claims.nbf) or int(now),
        resource=resource,
        ext_expires_in=max(0, number(fields.get("ext_expires_in")) - life),
    )


def _life(claims: Claims, told: int, now: float) -> int:
    """Return the seconds left: the smaller one of the token's `exp` less `now` and `expires_in`.

    A node with a slow clock would otherwise keep a token beyond its end.
    """
    stated = number(claims.exp) - int(now) if number(claims.exp) else told
    return min(stated, told) if told else stated


def _check(client: Client, claims: Claims) -> None:
    """Raise unless the token provably belongs to the client."""
    if claims.owner.lower() != client.client_id.text:
        raise TokenSourceDown(
            f"{client.authority} answered a request for {client.client_id.redacted} with a token "
            "that is not provably that client's; it is not handed out"
        )
    if client.tenant.is_id and claims.tid.lower() != client.tenant.text:
        raise TokenRefused(
            f"{client.authority} answered with a token of another tenant than {client.tenant}; it "
            "is not handed out",
            status=403,
            error="access_denied",
        )


def _refuse(
    status: int, fields: Fields | None, *, who: str, hidden: Sequence[str], retry_after: str
) -> NoReturn:
    """Raise the error for an answer with another status than 200.

    `who` is the authority; the texts in `hidden` are removed from its messages.
    """
    error, description = error_of(_without(hidden, fields))
    # The rest differs in each answer, and would make a repeated refusal look new.
    description = description.partition(_TRACE)[0].strip()
    told = f"{who}: {description or 'no reason given'}"
    codes = _codes(fields)
    if status == HTTPStatus.TOO_MANY_REQUESTS or _LOOP in codes:
        default = LOOP_RETRY_AFTER if _LOOP in codes else DEFAULT_RETRY_AFTER
        seconds = min(number(retry_after) or default, LONGEST_RETRY_AFTER)
        raise TokenThrottled(told, retry_after=seconds)
    if status not in {400, 401, 403} or _ISSUER_DOWN in codes or not error:
        raise TokenSourceDown(f"{told} (status {status})")
    raise _kind(codes)(told, status=status, error=error)


def _without(hidden: Sequence[str], fields: Fields | None) -> Fields:
    """Return the fields that are texts, without the texts in `hidden`."""
    texts = {name: value for name, value in (fields or {}).items() if isinstance(value, str)}
    for secret in filter(None, hidden):
        texts = {name: value.replace(secret, "…") for name, value in texts.items()}
    return texts


def _kind(codes: frozenset[int]) -> type[TokenRefused]:
    if _STALE in codes:
        return StaleAssertion
    return CredentialUnknown if codes & _SPREADING else TokenRefused


def _codes(fields: Fields | None) -> frozenset[int]:
    found = (fields or {}).get("error_codes")
    return frozenset(map(number, found)) if isinstance(found, list) else frozenset()


def signing_input(client: Client, chain: Sequence[bytes], *, now: float, unique: str) -> bytes:
    """Return the signing input of a certificate's assertion.

    Sign it with RSA PSS and SHA-256, or PKCS#1 v1.5 if `client.adfs`: Entra takes PS256 with the
    SHA-256 thumbprint, AD FS the older RS256 with SHA-1. The certificate itself is included
    (`x5c`) for applications that trust by subject name and issuer.

    `chain` is DER, the client's own certificate first; `unique` is in no other assertion.
    https://learn.microsoft.com/entra/identity-platform/certificate-credentials
    """
    issued = int(now)
    claims = {
        "aud": client.url,
        "iss": str(client.client_id),
        "sub": str(client.client_id),
        "jti": unique,
        "nbf": issued,
        "iat": issued,
        "exp": issued + ASSERTION_SECONDS,
    }
    return f"{_part(_header(client, chain))}.{_part(claims)}".encode()


def signed(signing_input: bytes, signature: bytes) -> str:
    return f"{signing_input.decode()}.{_base64url(signature)}"


def _header(client: Client, chain: Sequence[bytes]) -> Mapping[str, Any]:
    own = chain[0]
    if client.adfs:
        thumbprint = {"alg": "RS256", "x5t": _base64url(sha1(own, usedforsecurity=False).digest())}
    else:
        thumbprint = {"alg": "PS256", "x5t#S256": _base64url(sha256(own).digest())}
    return {**thumbprint, "typ": "JWT", "x5c": [b64encode(each).decode() for each in chain]}


def _part(value: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()

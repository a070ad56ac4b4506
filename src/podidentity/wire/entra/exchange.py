"""Token requests as we send them to Entra, and what it answers.

A token is handed out only where it says itself that it is the asked client's, of the asked
tenant. What Entra refuses is told by its numbers, not by its words.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow and, for
AD FS, https://learn.microsoft.com/windows-server/identity/ad-fs/overview/ad-fs-openid-connect-oauth-flows-scenarios
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

from podidentity.core.authorities import Authority, Tenant
from podidentity.core.errors import TokenRefused, TokenSourceDown
from podidentity.core.ids import ClientId
from podidentity.core.tokens import AccessToken
from podidentity.wire.entra.errors import refuse
from podidentity.wire.oauth import Claims, claims_of, fields_of, number

ADFS = "adfs"
"""How Azure Stack Hub names the one tenant of its AD FS, which knows version 1 only."""
LONGEST_ANSWER = 1 << 20
"""Bytes. Tokens of many groups have some ten thousand."""

_DEFAULT = "/.default"
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who signs in, and where."""

    client_id: ClientId
    tenant: Tenant
    authority: Authority

    @property
    def adfs(self) -> bool:
        """Whether it is an AD FS of Azure Stack Hub that answers."""
        return self.tenant.text == ADFS

    @property
    def url(self) -> str:
        """The token endpoint, which is also the audience of a certificate's assertion."""
        version = "" if self.adfs else "/v2.0"
        return f"{self.authority}/{self.tenant}/oauth2{version}/token"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredential:
    """What proves the client: a secret, or an assertion that something else signed."""

    text: str = field(repr=False)
    assertion: bool

    @property
    def fields(self) -> dict[str, str]:
        """The fields of the form."""
        if not self.assertion:
            return {"client_secret": self.text}
        return {"client_assertion_type": _JWT_BEARER, "client_assertion": self.text}


def render_request(client: Client, resource: str, proof: ClientCredential) -> bytes:
    """Return the form that asks for a token for `resource`; it holds the proof."""
    form = {
        "client_id": str(client.client_id),
        "grant_type": "client_credentials",
        **({"resource": _resource(resource)} if client.adfs else {"scope": scope(resource)}),
        **proof.fields,
    }
    return urlencode(form).encode()


def scope(resource: str) -> str:
    """Return the scope that stands for an audience: verbatim, a slash at its end included.

    Entra takes what stands before the last slash for the audience, and Azure SQL's ends in one:
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
    proof: ClientCredential,
    now: float,
    retry_after: str,
) -> AccessToken:
    """Return the token in Entra's answer to `client`; raise a TokenUnavailable.

    `now` in seconds since 1970; `retry_after` is the header, "" where there is none. Nothing that
    is raised holds the proof, even where the answer repeats it.
    """
    fields = fields_of(body)
    if status != 200:
        hidden = (proof.text, quote_plus(proof.text))
        refuse(status, fields, who=str(client.authority), hidden=hidden, retry_after=retry_after)
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
    """Return the seconds left: the fewer of what the token and what the answer says.

    A node whose clock is behind would take a token for longer-lived than it is.
    """
    stated = number(claims.exp) - int(now) if number(claims.exp) else told
    return min(stated, told) if told else stated


def _check(client: Client, claims: Claims) -> None:
    """Raise unless the token is provably the client's."""
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

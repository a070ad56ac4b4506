"""Token requests to the Instance Metadata Service, and its answers.

A token counts only if it provably belongs to the requested identity: the answer's fields and the
token's own claims must agree.

https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
"""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import quote

from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
)
from podidentity.core.resources import AzureIdentity, ClientId
from podidentity.core.tokens import AccessToken
from podidentity.wire.oauth import Claims, Fields, claims_of, error_of, fields_of, number

TOKEN_PATH = "/metadata/identity/oauth2/token"  # noqa: S105 - a path
API_VERSION = "2018-02-01"
DEFAULT_RETRY_AFTER = 1
"""Seconds, if a 429 names none."""
LONGEST_RETRY_AFTER = 60
"""Seconds. All pods of the node wait so long, and IMDS counts requests by the second."""

_USER_ASSIGNED = "/userassignedidentities/"


def render_request(identity: AzureIdentity, resource: str, *, bypass_cache: bool = False) -> str:
    """Return path and query of a token request to IMDS.

    For an identity without any id, IMDS takes the node's own identity.
    """
    bypass = "&bypass_cache=true" if bypass_cache else ""
    return (
        f"{TOKEN_PATH}?api-version={API_VERSION}&resource={quote(resource, safe='')}"
        f"{_selector(identity)}{bypass}"
    )


def _selector(identity: AzureIdentity) -> str:
    if identity.client_id is not None:
        return f"&client_id={identity.client_id}"
    if identity.resource_id is not None:
        return f"&msi_res_id={quote(str(identity.resource_id), safe='')}"
    return f"&object_id={identity.object_id}" if identity.object_id is not None else ""


def parse_answer(
    status: int,
    body: bytes,
    *,
    identity: AzureIdentity,
    resource: str,
    now: float,
    retry_after: str,
) -> AccessToken:
    """Return the token in IMDS's answer to a request for `identity`.

    `now` is in seconds since 1970; `retry_after` is the header, "" if there is none. Raises a
    TokenUnavailable, also if the token does not provably belong to `identity`.
    """
    if status != 200:
        _refuse(status, body, retry_after)
    fields = fields_of(body)
    if fields is None:
        raise TokenSourceDown("IMDS answered with something that is no JSON object")
    value = fields.get("access_token")
    if not isinstance(value, str) or not value:
        raise TokenSourceDown("IMDS answered without an access_token")
    claims = claims_of(value)
    owner = _checked_owner(fields, claims)
    _check_identity(identity, owner, claims)
    life = _life(fields, now)
    if life <= 0:
        raise TokenSourceDown("IMDS answered with a token that has no life left")
    return AccessToken(
        value=value,
        client_id=owner,
        expires_on=int(now) + life,
        not_before=number(fields.get("not_before")) or int(now),
        resource=resource,
        ext_expires_in=max(0, number(fields.get("ext_expires_in")) - life),
        token_type=str(fields.get("token_type") or "Bearer"),
    )


def _life(fields: Fields, now: float) -> int:
    """Return the seconds left: the smaller one of `expires_in` and `expires_on` less `now`.

    A node with a slow clock would otherwise keep a token beyond its end.
    """
    told = number(fields.get("expires_in"))
    until = number(fields.get("expires_on"))
    left = until - int(now) if until else told
    return min(left, told) if told else left


def _refuse(status: int, body: bytes, retry_after: str) -> NoReturn:
    error, description = error_of(fields_of(body))
    told = f"IMDS: {description or f'status {status} without a reason'}"
    if status == 429:
        wanted = number(retry_after) or DEFAULT_RETRY_AFTER
        raise TokenThrottled(told, retry_after=min(wanted, LONGEST_RETRY_AFTER))
    if status in {400, 401, 403}:
        absent = "identity not found" in description.lower()
        kind = NotYetKnown if absent else TokenRefused
        raise kind(told, status=status, error=error or "invalid_request")
    raise TokenSourceDown(f"{told} (status {status})")


def _checked_owner(fields: Fields, claims: Claims) -> ClientId:
    """Return the token's client id; the answer's field and the token's claim must agree."""
    said = {str(owner).lower() for owner in (fields.get("client_id"), claims.owner) if owner}
    try:
        (only,) = said
        return ClientId.parse(only if claims.owner else "")
    except ValueError as error:  # no owner, several, or none that is a GUID
        raise TokenSourceDown(
            "IMDS answered with a token that does not say whose it is; it is not handed out"
        ) from error


def _check_identity(identity: AzureIdentity, owner: ClientId, claims: Claims) -> None:
    """Raise unless the token provably belongs to `identity`."""
    asked = identity.client_id
    if asked is not None and owner != asked:
        raise TokenSourceDown(
            f"IMDS answered a request for {asked.redacted} with a token that is not that "
            "identity's; it is not handed out"
        )
    machine = claims.xms_mirid.lower()
    if identity.resource_id is not None and (machine or asked is None):
        if machine != identity.resource_id.folded:
            _mismatch(identity, "spec.resourceID is not that of the identity", "resourceID")
    elif identity.object_id is not None and asked is None and claims.oid != str(identity.object_id):
        _mismatch(identity, "the object id is not that of the identity", "objectID")
    if identity.system_assigned and (not machine or _USER_ASSIGNED in machine):
        _mismatch(identity, "the node has no identity of its own", "resourceID")


def _mismatch(identity: AzureIdentity, what: str, field: str) -> NoReturn:
    raise TokenRefused(
        f"AzureIdentity {identity.ref.name}: {what} whose token IMDS gave; it is not handed out. "
        f"Correct spec.{field}.",
        status=403,
        error="access_denied",
    )

"""Token requests as we send them to the Instance Metadata Service, and what it answers.

A token is handed to a pod only where it is provably the identity's that was asked for: what IMDS
says of it and what the token says itself must agree.

https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from typing import Any, NoReturn
from urllib.parse import quote

import msgspec

from podidentity.core.errors import TokenRefused, TokenSourceDown, TokenThrottled
from podidentity.core.ids import ClientId
from podidentity.core.tokens import AccessToken

TOKEN_PATH = "/metadata/identity/oauth2/token"  # noqa: S105 - a path
API_VERSION = "2018-02-01"
DEFAULT_RETRY_AFTER = 1
"""Seconds, where a 429 names none."""

_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


class NotYetAttached(TokenRefused):
    """IMDS knows no such identity on this node: wrong, or attached a moment ago."""


class _Claims(msgspec.Struct):
    # `appid` in tokens of version 1, `azp` in those of version 2.
    appid: str = ""
    azp: str = ""


_FIELDS = msgspec.json.Decoder(dict[str, Any])
_CLAIMS = msgspec.json.Decoder(_Claims)
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def render_request(client_id: ClientId, resource: str, *, bypass_cache: bool = False) -> str:
    """Return path and query of a token request to IMDS."""
    bypass = "&bypass_cache=true" if bypass_cache else ""
    return (
        f"{TOKEN_PATH}?api-version={API_VERSION}&resource={quote(resource, safe='')}"
        f"&client_id={client_id}{bypass}"
    )


def parse_answer(
    status: int, body: bytes, *, client_id: ClientId, resource: str, now: float, retry_after: str
) -> AccessToken:
    """Return the token in IMDS's answer to a request for `client_id`.

    `now` in seconds since 1970; `retry_after` is the header, "" where there is none. Raises a
    TokenUnavailable. A token that is not provably the asked identity's is handed to nobody.
    """
    if status != 200:
        _refuse(status, body, retry_after)
    try:
        fields = _FIELDS.decode(body)
    except _BROKEN as error:
        raise TokenSourceDown("IMDS answered with something that is no JSON object") from error
    value = fields.get("access_token")
    if not isinstance(value, str) or not value:
        raise TokenSourceDown("IMDS answered without an access_token")
    _check_owner(fields, value, client_id)
    expires_on = _number(fields, "expires_on") or int(now) + _number(fields, "expires_in")
    life = expires_on - int(now)
    if life <= 0:
        raise TokenSourceDown("IMDS answered with a token that has no life left")
    return AccessToken(
        value=value,
        client_id=client_id,
        expires_on=expires_on,
        not_before=_number(fields, "not_before") or int(now),
        resource=resource,
        ext_expires_in=max(0, _number(fields, "ext_expires_in") - life),
        token_type=str(fields.get("token_type") or "Bearer"),
    )


def _refuse(status: int, body: bytes, retry_after: str) -> NoReturn:
    error, description = _error(body)
    told = f"IMDS: {description or f'status {status} without a reason'}"
    if status == 429:
        seconds = int(retry_after) if _NUMBER.fullmatch(retry_after) else DEFAULT_RETRY_AFTER
        raise TokenThrottled(told, retry_after=max(1, seconds))
    if status in {400, 401, 403}:
        absent = "identity not found" in description.lower()
        kind = NotYetAttached if absent else TokenRefused
        raise kind(told, status=status, error=error or "invalid_request")
    raise TokenSourceDown(f"{told} (status {status})")


def _error(body: bytes) -> tuple[str, str]:
    """Return error code and description, both one line and short."""
    try:
        fields = _FIELDS.decode(body)
    except _BROKEN:
        return "", ""
    code, text = fields.get("error"), fields.get("error_description")
    if not isinstance(text, str):
        code, text = "", code
    lines = (" ".join(str(part or "").split()) for part in (code, text))
    return next(lines)[:64], next(lines)[:600]


def _check_owner(fields: dict[str, Any], token: str, client_id: ClientId) -> None:
    claims = _claims(token)
    owners = {str(owner).lower() for owner in (fields.get("client_id"), _owner(claims)) if owner}
    if not _owner(claims) or owners != {str(client_id)}:
        raise TokenSourceDown(
            f"IMDS answered a request for {client_id.redacted} with a token that is not provably "
            "that identity's; it is not handed out"
        )


def _owner(claims: _Claims) -> str:
    return claims.appid or claims.azp


def _claims(token: str) -> _Claims:
    """Return the claims of a JWT without checking its signature: that is the audience's task."""
    parts = token.split(".")
    if len(parts) != 3:
        return _Claims()
    text = parts[1].translate({ord("-"): "+", ord("_"): "/"})
    try:
        return _CLAIMS.decode(a2b_base64(text + "=" * (-len(text) % 4)))
    except (*_BROKEN, ValueError):
        return _Claims()


def _number(fields: dict[str, Any], name: str) -> int:
    """Return a whole number from a string or a number; 0 where there is none."""
    text = str(fields.get(name, "")).partition(".")[0]
    return int(text) if _NUMBER.fullmatch(text) else 0

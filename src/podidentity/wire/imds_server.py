"""Token requests of pods, and the answers and errors that pods get.

The answer's shape was measured against every client: numbers are strings of whole numbers,
`expires_in` comes before `expires_on`, the JSON is compact, and `not_before` is present. Each
deviation breaks one of the clients that the tests name.

https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote_plus

import msgspec

from podidentity.core.errors import InvalidRequest
from podidentity.core.resources import Authority, ClientId, InvalidId, ObjectId, ResourceId, Tenant
from podidentity.core.tokens import AccessToken, TokenRequest, parse_resource

MOST_PARAMETERS = 32

_CLIENT, _OBJECT, _RESOURCE_ID = "client_id", "object_id", "msi_res_id"
# Clients have several names for the three: App Service mi_res_id, SDKs msi-res-id and resource_id.
_IDS = {
    "client_id": _CLIENT,
    "clientid": _CLIENT,
    "object_id": _OBJECT,
    "principal_id": _OBJECT,
    "msi_res_id": _RESOURCE_ID,
    "mi_res_id": _RESOURCE_ID,
    "msi-res-id": _RESOURCE_ID,
    "resource_id": _RESOURCE_ID,
}


class _Answer(msgspec.Struct):
    # In the order in which clients were measured to need them.
    access_token: str
    client_id: str
    expires_in: str
    expires_on: str
    ext_expires_in: str
    not_before: str
    resource: str
    token_type: str


class _Error(msgspec.Struct):
    error: str
    error_description: str


def parse_request(query: str) -> TokenRequest:
    """Return the request in the query; raise InvalidRequest with a message for the pod."""
    fields = _parameters(query)
    ids = [(name, value) for name, value in fields.items() if name in _IDS and value]
    asked: dict[str, ClientId | ObjectId | ResourceId] = {}
    for name, value in ids:
        parsed = _id(name, value)
        if asked.setdefault(_IDS[name], parsed) != parsed:
            raise InvalidRequest(f"{name} and another parameter name two different identities")
    if len(asked) > 1:
        raise InvalidRequest(f"only one of {', '.join(sorted(asked))} may be given")
    client, object_, resource = (asked.get(kind) for kind in (_CLIENT, _OBJECT, _RESOURCE_ID))
    return TokenRequest(
        resource=parse_resource(fields.get("resource", "")),
        client_id=client if isinstance(client, ClientId) else None,
        object_id=object_ if isinstance(object_, ObjectId) else None,
        resource_id=resource if isinstance(resource, ResourceId) else None,
        bypass_cache=fields.get("bypass_cache", "").lower() == "true",
        tenant=_tenant(fields.get("authority", "")),
    )


def render_answer(token: AccessToken, resource: str, now: float) -> bytes:
    """Return the body of a successful answer; `resource` is echoed as the client sent it."""
    life = token.life(now)
    return msgspec.json.encode(
        _Answer(
            access_token=token.value,
            client_id=str(token.client_id or ""),
            expires_in=str(life),
            expires_on=str(token.expires_on),
            ext_expires_in=str(life + token.ext_expires_in),
            not_before=str(token.not_before),
            resource=resource,
            token_type=token.token_type,
        )
    )


def render_answers(tokens: Sequence[AccessToken], resource: str, now: float) -> bytes:
    """Return the body of an answer for several tenants, in the archived project's form."""
    return b"[" + b",".join(render_answer(token, resource, now) for token in tokens) + b"]"


def render_error(error: str, description: str) -> bytes:
    """Return the body of an error: flat, the only form that every client shows."""
    return msgspec.json.encode(_Error(error=error, error_description=description))


def _parameters(query: str) -> dict[str, str]:
    """Return the parameters by name in lower case; each at most once, as IMDS demands."""
    parts = [part for part in query.split("&") if part]
    if len(parts) > MOST_PARAMETERS:
        raise InvalidRequest(f"more than {MOST_PARAMETERS} parameters")
    found: dict[str, str] = {}
    for part in parts:
        name, _, value = part.partition("=")
        try:
            # Names too: @azure/keyvault-secrets sends `api%2Dversion`.
            name, value = (
                unquote_plus(name, errors="strict").lower(),
                unquote_plus(value, errors="strict"),
            )
        except UnicodeDecodeError as error:
            raise InvalidRequest("the query is not UTF-8") from error
        if name in found:
            raise InvalidRequest(f"parameter {name[:40]!r} is given twice")
        found[name] = value
    return found


def _id(name: str, value: str) -> ClientId | ObjectId | ResourceId:
    kind = _IDS[name]
    try:
        if kind == _CLIENT:
            return ClientId.parse(value)
        return ObjectId.parse(value) if kind == _OBJECT else ResourceId.parse(value)
    except InvalidId as error:
        raise InvalidRequest(f"{name} {error}") from error


def _tenant(authority: str) -> Tenant | None:
    """Return the tenant of `https://HOST/TENANT`; the host is the identity's own in any case.

    IMDS has this parameter too, but always gives tokens of its own tenant.
    """
    if not authority:
        return None
    origin, _, tenant = authority.rstrip("/").rpartition("/")
    try:
        Authority.parse(origin)
        return Tenant.parse(tenant)
    except InvalidId as error:
        raise InvalidRequest(
            "authority must be https://HOST/TENANT, the tenant a GUID or a domain name"
        ) from error

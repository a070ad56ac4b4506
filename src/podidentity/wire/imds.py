"""The protocol of the Instance Metadata Service (IMDS), both sides: pods ask us, and we ask it.

Paths. We forward requests with the node's address, and behind `/metadata/identity/` are the tokens,
and since IMDSv2 (`issuecredential`) the certificates, of every identity of the node. So each path
is refused that the real service might read differently than we do. The archived project had this
hole twice (CVE-2021-1677, CVE-2022-23551). These functions see the bytes of every pod before the
pod is proved. So a long path is refused unread, and the rest is checked in linear time, without
regular expressions.

Answers for pods. Their shape was measured against every client: numbers are strings of whole
numbers, `expires_in` comes before `expires_on`, the JSON is compact, and `not_before` is present.
Each deviation breaks one of the clients that the tests name.

Answers of the real service. A token counts only if it provably belongs to the requested identity:
the answer's fields and the token's own claims must agree. Numbers arrive as numbers, as strings or
not at all, so each field is converted with care. IMDS passes on what Entra answered, so Entra's own
answers (`wire.entra`) are read by the same functions.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
"""

from __future__ import annotations

import re
import string
from binascii import a2b_base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NoReturn
from urllib.parse import quote, unquote_plus

import msgspec

from podidentity.core.errors import (
    IdentityNotAttached,
    InvalidRequest,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
)
from podidentity.core.resources import (
    AccessToken,
    Authority,
    AzureIdentity,
    ClientId,
    InvalidId,
    ObjectId,
    ResourceId,
    Tenant,
    TokenRequest,
    parse_audience,
)
from podidentity.wire import BROKEN_JSON

TOKEN_PATH = "/metadata/identity/oauth2/token"  # noqa: S105 - a path
USER_DATA = ("userdata", "customdata")
"""Fields of `compute` that may hold secrets; in lower case."""

_INFO = "/metadata/identity/info"
_HOST_TOKEN = "/host/token"  # noqa: S105 - a path
_PRIVATE_DOMAINS = frozenset({"internal", "local", "localhost", "svc"})
_LONGEST_PATH = 512
"""Bytes; the longest path of IMDS has under 100."""
_ALPHANUMERIC = frozenset(string.ascii_letters + string.digits)
# No `%`, `\`, `;` or other character that parsers read differently.
_IN_PATH = _ALPHANUMERIC | frozenset("_.~:/-")
# As in `api-version=2021-02-01&format=text`; no character that could begin another path.
_IN_FORWARDED_QUERY = _ALPHANUMERIC | frozenset("-._~=&%+,:")
_TOKEN_LIKE = ("identity", "oauth2", "token")
_NEVER_FORWARDED = frozenset({"metadata", "identity", "oauth2", "token", "issuecredential"})
"""Segments of paths that hand out credentials; IMDS has none of them below a forwardable path."""


# The paths of pods' requests.


class Route(Enum):
    """The kinds of paths."""

    TOKEN = auto()
    """A token request of a pod: answered here."""
    HOST_TOKEN = auto()
    """A token request of the Secrets Store CSI driver for a pod of its node."""
    FORWARD = auto()
    """Forwarded to the real service as `Target.path`."""
    BLOCKED = auto()
    """A metadata path that is not allowed."""
    UNKNOWN = auto()
    """A path that neither we nor the real service have."""
    SUSPICIOUS = auto()
    """A path that another parser may read differently."""


@dataclass(frozen=True, slots=True)
class Target:
    """A request's target, classified."""

    route: Route
    path: str = ""
    """The normal spelling: one slash in front, `metadata` in lower case."""
    query: str = ""
    """As it came, without the question mark; visible ASCII."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataAnswer:
    """What IMDS answered to a request that was forwarded."""

    status: int
    content_type: str
    body: bytes


class AllowList:
    """The metadata paths that may be forwarded, each with all paths below it."""

    def __init__(self, paths: Collection[str]) -> None:
        """`paths` are such as `/metadata/instance`; raise ValueError for any other."""
        self._allowed = tuple(sorted(_allowed(path) for path in paths))

    def holds(self, path: str) -> bool:
        """Return whether `path`, in its normal spelling, may be forwarded."""
        segments = _segments(path)
        named = [allowed for allowed in self._allowed if segments[: len(allowed)] == allowed]
        if not named:
            return False
        return not _is_user_data(segments) or any(map(_is_user_data, named))

    def strips(self, path: str) -> bool:
        """Return whether user data must be removed from the answer of `path`."""
        segments = _segments(path)
        return segments[1:] in {("instance",), ("instance", "compute")} and not any(
            map(_is_user_data, self._allowed)
        )


def classify(target: str, allow: AllowList) -> Target:
    """Return the classified request target (path and query as they came).

    Below an allowed path only segments of letters and digits are forwarded: IMDS has no others.
    """
    path, _, query = target.partition("?")
    if len(path) > _LONGEST_PATH or not _is_plain(path) or not _is_visible(query):
        return Target(Route.SUSPICIOUS)
    # msal4j asks for //metadata/identity/oauth2/token.
    path = _normal(path[1:] if path.startswith("//") else path)
    if _is_odd(path):
        return Target(Route.SUSPICIOUS)
    route = _route(path, allow)
    if route is Route.FORWARD and path != _INFO and not all(map(_is_leaf, _segments(path)[1:])):
        return Target(Route.SUSPICIOUS)
    if route is Route.FORWARD and not _IN_FORWARDED_QUERY.issuperset(query):
        return Target(Route.SUSPICIOUS)
    return Target(route, path, query)


def names_the_internet(host: str) -> bool:
    """Return whether a Host header has a name that somebody may have made to lead here.

    A page that a browser in a pod shows may send any header to the server that it is from. So who
    owns its name has it lead to 169.254.169.254, and asks for a token (DNS rebinding). Addresses,
    names of one word, and those below domains that nobody can have in the Internet are no pages'.
    https://developer.mozilla.org/docs/Web/Security/Defenses/Same-origin_policy
    https://www.rfc-editor.org/rfc/rfc6761
    """
    # An address of IPv6 is in brackets, and none of its parts has a dot but an IPv4 address.
    labels = host.partition(":")[0].rstrip(".").lower().split(".")
    last = labels[-1]
    return len(labels) > 1 and not last.isdecimal() and last not in _PRIVATE_DOMAINS


def without_user_data(body: bytes) -> bytes:
    """Return the answer of `/metadata/instance` or `…/compute` without the VM's user data.

    An answer that is no JSON object is a list of names and stays unchanged.
    """
    try:
        found: Any = msgspec.json.decode(body)
    except BROKEN_JSON:
        return body
    if not isinstance(found, dict):
        return body
    if isinstance(found.get("compute"), dict):
        found["compute"] = _public(found["compute"])
    return msgspec.json.encode(_public(found))


def _route(path: str, allow: AllowList) -> Route:
    if path in {TOKEN_PATH, f"{TOKEN_PATH}/"}:
        return Route.TOKEN
    if path in {_HOST_TOKEN, f"{_HOST_TOKEN}/"}:
        return Route.HOST_TOKEN
    if path == _INFO:
        return Route.FORWARD
    segments = _segments(path)
    if segments[0] != "metadata":
        return Route.UNKNOWN
    if segments[1:2] == ("identity",):
        # /metadata/Identity/…, /metadata/identity/oauth2/tokenx: no client sends these.
        return Route.SUSPICIOUS if _is_token_like(path.lower()) else Route.UNKNOWN
    return Route.FORWARD if allow.holds(path) else Route.BLOCKED


def _is_plain(path: str) -> bool:
    return path.startswith("/") and _IN_PATH.issuperset(path)


def _is_visible(query: str) -> bool:
    """Return whether it is visible ASCII without a fragment."""
    return query.isascii() and query.isprintable() and " " not in query and "#" not in query


def _is_leaf(segment: str) -> bool:
    """Return whether it can name a document or field of IMDS: `compute`, `ipv4`, `0`."""
    return _ALPHANUMERIC.issuperset(segment) and segment not in _NEVER_FORWARDED


def _is_token_like(path: str) -> bool:
    """Return whether it contains the words of the token path in their order."""
    at = 0
    for word in _TOKEN_LIKE:
        at = path.find(word, at)
        if at < 0:
            return False
        at += len(word)
    return True


def _normal(path: str) -> str:
    """Return the path with `metadata` in lower case; the real service ignores its case."""
    first, slash, rest = path[1:].partition("/")
    return f"/{first.lower() if first.lower() == 'metadata' else first}{slash}{rest}"


def _is_odd(path: str) -> bool:
    """Return whether it has dot segments or empty ones, except one slash at the end."""
    segments = path[1:].split("/")
    if segments[-1] == "":
        segments.pop()
    return any(segment in {"", ".", ".."} for segment in segments)


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.lower().strip("/").split("/"))


def _is_user_data(segments: tuple[str, ...]) -> bool:
    return segments[1:3] == ("instance", "compute") and segments[3:4] in [
        (name,) for name in USER_DATA
    ]


def _public(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name.lower() not in USER_DATA}


def _allowed(path: str) -> tuple[str, ...]:
    segments = _segments(path)
    if not _is_plain(path) or _is_odd(path) or segments[0] != "metadata":
        raise ValueError(f"{path!r} is no metadata path such as /metadata/instance")
    if len(segments) < 2 or segments[1] == "identity":
        raise ValueError(f"{path!r} would open the tokens of the whole node")
    if not all(map(_is_leaf, segments[1:])):
        raise ValueError(f"{path!r} is no metadata path such as /metadata/instance")
    return segments


# Token requests of pods, and what they are answered.

MOST_PARAMETERS = 32
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
"""Go's reader of queries, which the archived project had, drops a parameter with such a `%`.
Here an id with one is refused, or the pod would get another identity than it asked for."""

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
        resource=_audience(fields.get("resource", "")),
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
        if _NO_ESCAPE.search(part) and name not in _IDS:
            continue
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


def _audience(resource: str) -> str:
    try:
        return parse_audience(resource)
    except InvalidId as error:
        raise InvalidRequest(str(error)) from error


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


# Our token requests, and what the real service answers.

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
        kind = IdentityNotAttached if absent else TokenRefused
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


# What answers of IMDS and of Entra have in common.

Fields = dict[str, Any]

_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


class Claims(msgspec.Struct):
    """The claims of a token that we use; "" for a missing one."""

    # `appid` in tokens of version 1, `azp` in those of version 2.
    appid: str = ""
    azp: str = ""
    oid: str = ""
    tid: str = ""
    # The ARM id of the identity; of a system-assigned one, that of its machine.
    xms_mirid: str = ""
    exp: Any = None
    nbf: Any = None

    @property
    def owner(self) -> str:
        """The client id to which the token was issued."""
        return self.appid or self.azp


_FIELDS = msgspec.json.Decoder(Fields)
_CLAIMS = msgspec.json.Decoder(Claims)


def fields_of(body: bytes) -> Fields | None:
    """Return the JSON object in `body`; None for anything else."""
    try:
        return _FIELDS.decode(body)
    except BROKEN_JSON:
        return None


def error_of(fields: Fields | None) -> tuple[str, str]:
    """Return error code and description of a refusal, each in one short line."""
    if fields is None:
        return "", ""
    code, text = fields.get("error"), fields.get("error_description")
    if not isinstance(text, str):
        code, text = "", code
    lines = (" ".join(str(part or "").split()) for part in (code, text))
    return next(lines)[:64], next(lines)[:600]


def claims_of(token: str) -> Claims:
    """Return the claims of a JWT; its signature is not checked, that is the audience's task."""
    parts = token.split(".")
    if len(parts) != 3:
        return Claims()
    text = parts[1].translate({ord("-"): "+", ord("_"): "/"})
    try:
        return _CLAIMS.decode(a2b_base64(text + "=" * (-len(text) % 4)))
    except (*BROKEN_JSON, ValueError):
        return Claims()


def number(value: object) -> int:
    """Return a whole number from a string or a number; 0 for anything else."""
    text = str(value).partition(".")[0]
    return int(text) if _NUMBER.fullmatch(text) else 0

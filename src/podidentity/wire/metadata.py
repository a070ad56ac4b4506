"""Classifies the path of a request, and decides whether it may go to the real metadata service.

We forward requests with the node's address, and behind `/metadata/identity/` are the tokens, and
since IMDSv2 (`issuecredential`) the certificates, of every identity of the node. So each path is
refused that the real service might read differently than we do. The archived project had this hole
twice (CVE-2021-1677, CVE-2022-23551).

These functions see the bytes of every pod before the pod is proved. So a long path is refused
unread, and the rest is checked in linear time, without regular expressions.

Paths: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

import string
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec

from podidentity.wire import BROKEN_JSON

DEFAULT_ALLOWED = ("/metadata/versions", "/metadata/instance")
"""Default of `--metadata-allow`."""
USER_DATA = ("userdata", "customdata")
"""Fields of `compute` that may hold secrets; in lower case."""

_INFO = "/metadata/identity/info"
_TOKEN = "/metadata/identity/oauth2/token"  # noqa: S105 - a path
_HOST_TOKEN = "/host/token"  # noqa: S105 - a path
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


class AllowList:
    """The metadata paths that may be forwarded, each with all paths below it."""

    def __init__(self, paths: Collection[str] = DEFAULT_ALLOWED) -> None:
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
    if path in {_TOKEN, f"{_TOKEN}/"}:
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
    if len(segments) > 1 and segments[-1] == "":
        segments.pop()
    return any(segment in {"", ".", ".."} for segment in segments) and path != "/"


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

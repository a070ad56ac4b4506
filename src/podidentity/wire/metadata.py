"""Which path a request means, and whether it may go on to the real metadata service.

Everything that the real service might read as another path than we do is refused, because what is
forwarded is asked with the node's address: behind `/metadata/identity/` lie the tokens, and since
IMDSv2 (`issuecredential`) the certificates, of every identity of the node. The archived project
had this hole twice (CVE-2021-1677, CVE-2022-23551).

Paths: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec

DEFAULT_ALLOWED = ("/metadata/versions", "/metadata/instance")
USER_DATA = ("userdata", "customdata")
"""Fields of `compute` that may hold secrets; in lower case."""

_INFO = "/metadata/identity/info"
_TOKEN = "/metadata/identity/oauth2/token"  # noqa: S105 - a path
_HOST_TOKEN = "/host/token"  # noqa: S105 - a path
# No `%`, `\`, `;` or other character that some parser reads as something else.
_PLAIN = re.compile(r"/[A-Za-z0-9_.~:/-]*", re.ASCII)
_QUERY = re.compile(r"[!-~]*", re.ASCII)
_TOKEN_LIKE = re.compile(r"identity.*oauth2.*token")


class Route(Enum):
    """What is done with a path."""

    TOKEN = auto()
    """Answered here."""
    HOST_TOKEN = auto()
    """A token of a pod, for the Secrets Store CSI driver on the pod's node."""
    FORWARD = auto()
    """Asked from the real service; `Target.path` is what to ask for."""
    BLOCKED = auto()
    """A metadata path that is not allowed."""
    UNKNOWN = auto()
    """No such path, here or behind us."""
    SUSPICIOUS = auto()
    """A path that another parser may read as another path."""


@dataclass(frozen=True, slots=True)
class Target:
    """A request's target, classified."""

    route: Route
    path: str = ""
    """The normal spelling: one slash in front, `metadata` in lower case."""
    query: str = ""
    """As it came, without the question mark; visible ASCII."""


class AllowList:
    """The metadata paths that may be forwarded, each with everything below it."""

    def __init__(self, paths: Collection[str] = DEFAULT_ALLOWED) -> None:
        """Take paths such as `/metadata/instance`; ValueError for what can be none."""
        self._allowed = tuple(sorted(_allowed(path) for path in paths))

    def holds(self, path: str) -> bool:
        """Return whether `path`, in its normal spelling, may be forwarded."""
        segments = _segments(path)
        named = [allowed for allowed in self._allowed if segments[: len(allowed)] == allowed]
        if not named:
            return False
        return not _is_user_data(segments) or any(map(_is_user_data, named))

    def strips(self, path: str) -> bool:
        """Return whether the answer of `path` may hold user data that is not allowed."""
        segments = _segments(path)
        return segments[1:] in {("instance",), ("instance", "compute")} and not any(
            map(_is_user_data, self._allowed)
        )


def classify(target: str, allow: AllowList) -> Target:
    """Return what the request target (path and query as they came) means."""
    path, _, query = target.partition("?")
    if not _PLAIN.fullmatch(path) or not _QUERY.fullmatch(query) or "#" in query:
        return Target(Route.SUSPICIOUS)
    # msal4j asks for //metadata/identity/oauth2/token.
    path = _normal(path[1:] if path.startswith("//") else path)
    if _is_odd(path):
        return Target(Route.SUSPICIOUS)
    return Target(_route(path, allow), path, query)


def without_user_data(body: bytes) -> bytes:
    """Return the answer of `/metadata/instance` or `…/compute` without the VM's user data.

    An answer that is no JSON object is a list of names and passes as it is.
    """
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
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
        # /metadata/Identity/…, /metadata/identity/oauth2/tokenx: nobody means these.
        return Route.SUSPICIOUS if _TOKEN_LIKE.search(path.lower()) else Route.UNKNOWN
    return Route.FORWARD if allow.holds(path) else Route.BLOCKED


def _normal(path: str) -> str:
    """Return the path with `metadata` in lower case, as the real service reads it in any."""
    first, slash, rest = path[1:].partition("/")
    return f"/{first.lower() if first.lower() == 'metadata' else first}{slash}{rest}"


def _is_odd(path: str) -> bool:
    """Return whether it has dot or empty segments, but for one slash at the end."""
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
    if not _PLAIN.fullmatch(path) or _is_odd(path) or segments[0] != "metadata":
        raise ValueError(f"{path!r} is no metadata path such as /metadata/instance")
    if len(segments) < 2 or segments[1] == "identity":
        raise ValueError(f"{path!r} would open the tokens of the whole node")
    return segments

"""The Kubernetes API around its objects: paths, lists, watch events and errors.

Objects stay raw JSON here, so that an object that cannot be decoded neither breaks a list nor ends
a watch; `wire.manifests` and its neighbours decode them one by one.

Shapes: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from sys import intern
from typing import Any, Protocol
from urllib.parse import quote, unquote

import msgspec

from podidentity.core.resources import ObjectRef
from podidentity.wire import ANY_FIELDS, BROKEN_JSON, decoded, shallow


class NotKubernetes(ValueError):
    """These bytes are no answer of an API server; the message names the expected shape."""


class TooDeep(NotKubernetes):
    """An object is nested deeper than JSON is decoded: `wire.shallow` cuts it."""


class KubeError(Exception):
    """The API server refused, or could not be reached.

    `message` is for people: what was asked for, and what the server said. `said` is the latter
    alone. `status` is the HTTP status, 0 without an answer; `reason` is the server's
    machine-readable word (`NotFound`, `AlreadyExists`, `Expired`), "" if it gave none.
    `retry_after` are the seconds that an overloaded server wants to be left alone, 0 if it named
    none.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after: int = 0,
        said: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.said = message if said is None else said

    def wait(self, jitter: float) -> float:
        """Return how many seconds to leave the server alone; `jitter` is 0 to 1.

        Many agents hear the same time. So they spread over half of it.
        """
        longest = LONGEST_RETRY_AFTER * (1 + jitter) / 2
        return min(self.retry_after * (1 + jitter / 2), longest)

    @property
    def unreachable(self) -> bool:
        """No answer of an API server came: wrong configuration, network, TLS or peer."""
        return self.status == 0

    @property
    def unauthorized(self) -> bool:
        return self.status == HTTPStatus.UNAUTHORIZED

    @property
    def forbidden(self) -> bool:
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def not_found(self) -> bool:
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def conflict(self) -> bool:
        """The object exists already, or has changed meanwhile; `reason` tells which."""
        return self.status == HTTPStatus.CONFLICT

    @property
    def throttled(self) -> bool:
        """The server is overloaded; the request itself is right."""
        return self.status == HTTPStatus.TOO_MANY_REQUESTS

    @property
    def gone(self) -> bool:
        """The resource version or the `continue` token is too old: list anew."""
        return self.status == HTTPStatus.GONE


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource type, with its place in the API."""

    api: str
    """`/api/v1` or `/apis/GROUP/VERSION`."""
    plural: str

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of one object, of all objects of a namespace, or of all."""
        inside = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        one = f"/{quote(name, safe='')}" if name else ""
        return f"{self.api}{inside}/{self.plural}{one}"


WATCH_SECONDS = 300
"""Requested duration of a watch; the server ends it, and the reflector resumes it."""
PODS = Resource("/api/v1", "pods")
NODES = Resource("/api/v1", "nodes")
SECRETS = Resource("/api/v1", "secrets")
EVENTS = Resource("/api/v1", "events")
SERVICE_ACCOUNTS = Resource("/api/v1", "serviceaccounts")
_CUSTOM = "/apis/aadpodidentity.k8s.io/v1"
AZURE_IDENTITIES = Resource(_CUSTOM, "azureidentities")
AZURE_IDENTITY_BINDINGS = Resource(_CUSTOM, "azureidentitybindings")
AZURE_POD_IDENTITY_EXCEPTIONS = Resource(_CUSTOM, "azurepodidentityexceptions")
AZURE_ASSIGNED_IDENTITIES = Resource(_CUSTOM, "azureassignedidentities")
AZURE_IDENTITY_LEDGERS = Resource(_CUSTOM, "azureidentityledgers")
CONFIG_MAPS = Resource("/api/v1", "configmaps")
ENDPOINTS = Resource("/api/v1", "endpoints")
LEASES = Resource("/apis/coordination.k8s.io/v1", "leases")
CLUSTER_ROLES = Resource("/apis/rbac.authorization.k8s.io/v1", "clusterroles")
CLUSTER_ROLE_BINDINGS = Resource("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A list of objects, or a part of one."""

    items: tuple[msgspec.Raw, ...]
    """Bytes-like JSON of each object."""
    resource_version: str
    more: str = ""
    """The `continue` token of the next part; "" at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of a watch."""

    type: str
    """ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""
    object: msgspec.Raw
    """Bytes-like JSON; of an ERROR a Status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersion:
    """The metadata that every object has."""

    ref: ObjectRef
    resource_version: str
    created: int
    """Seconds since 1970; 0 if it does not say."""


class KubeApi(Protocol):
    """The calls of the API server that the agent needs; all of them raise KubeError."""

    async def get(self, path: str) -> bytes: ...
    async def list(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        """Return one page of the list at `path`."""

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        """Return the whole list at `path`; `params` are selectors."""

    def pages(
        self, path: str, params: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Page, None]:
        """Yield the same list in pages, each of which takes some memory at most."""

    def watch(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        resource_version: str,
        opened: Callable[[], None],
    ) -> AsyncGenerator[Event, None]:
        """Call `opened`, then yield events until the server ends the watch."""

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Create `body` in the collection at `path`; return the stored object."""

    async def ask(self, path: str, question: Mapping[str, Any]) -> bytes:
        """Return the answer to a question that is posted, and changes nothing."""

    async def replace(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Replace the object at `path`; return the stored object."""

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Merge `body` (RFC 7386) into the object at `path`; return the stored object."""


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMeta
    # Some servers of the family send `null` for an empty list.
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _ObjectMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    creation_timestamp: msgspec.Raw = msgspec.Raw(b"null")


class _Object(msgspec.Struct):
    metadata: _ObjectMeta


class _Status(msgspec.Struct):
    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0


_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(_Event)
_OBJECT = msgspec.json.Decoder(_Object)
_STATUS = msgspec.json.Decoder(_Status)
_DEEPEST_KEPT = 200
"""Levels of nesting of a whole object; no object that means something has as many."""


def parse_list(body: bytes) -> Page:
    """Return the list in `body`; raise NotKubernetes, TooDeep."""
    try:
        found = decoded(_LIST, body)
    except RecursionError as error:
        raise TooDeep from error
    except BROKEN_JSON as error:
        raise NotKubernetes(f"not a Kubernetes list: {error}") from error
    return Page(
        items=tuple(found.items or ()),
        resource_version=found.metadata.resource_version,
        more=found.metadata.continue_,
    )


def parse_event(line: bytes) -> Event:
    """Return the watch event in `line`; raise NotKubernetes, TooDeep."""
    try:
        found = decoded(_EVENT, line)
    except RecursionError as error:
        raise TooDeep from error
    except BROKEN_JSON as error:
        raise NotKubernetes(f"not a watch event: {error}") from error
    return Event(type=found.type, object=found.object)


def parse_object_version(raw: bytes | msgspec.Raw) -> ObjectVersion:
    """Return name and version of an object; raise NotKubernetes."""
    try:
        found = decoded(_OBJECT, raw).metadata
    except BROKEN_JSON as error:
        raise NotKubernetes(f"not a Kubernetes object: {error}") from error
    ref = ObjectRef(intern(found.namespace), found.name)
    try:
        created = int(
            datetime.fromisoformat(bytes(found.creation_timestamp)[1:21].decode()).timestamp()
        )
    except (ValueError, OverflowError):
        created = 0
    return ObjectVersion(ref=ref, resource_version=found.resource_version, created=created)


def parse_object(raw: bytes | msgspec.Raw) -> dict[str, Any]:
    """Return an object without its null fields; raise NotKubernetes.

    To an API server null and absent are the same: a new CustomResourceDefinition, for example,
    has `"conditions": null`. https://pkg.go.dev/encoding/json#Marshal (nil slices and maps)
    """
    try:
        try:
            found = ANY_FIELDS.decode(raw)
        except RecursionError:
            found = ANY_FIELDS.decode(shallow(bytes(raw), _DEEPEST_KEPT))
    except BROKEN_JSON as error:
        raise NotKubernetes(f"not a Kubernetes object: {error}") from error
    rest: list[Any] = [found] if b"null" in bytes(raw) else []
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            for name in [name for name, inner in value.items() if inner is None]:
                del value[name]
            value = value.values()
        rest += [inner for inner in value if isinstance(inner, dict | list)]
    return found


LONGEST_RETRY_AFTER = 10
"""Seconds. An API server that starts names up to 32 s, and is ready long before that."""
_DIGITS = 9
_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Answers of a server that has not looked at the request, and so may be asked again."""


def is_status(body: bytes) -> bool:
    """Whether an answer is the API server's own, and not that of a pod behind it."""
    try:
        return _STATUS.decode(body).kind == "Status"
    except BROKEN_JSON:
        return False


WATCH = "WATCH"
"""In place of a watch's method, which is GET as that of a list."""
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", WATCH: "watch"}
_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[^/]+).*)?)?"
)


def request_in_words(method: str, path: str) -> str:
    """Return what a request asks for, as `kubectl auth can-i` is asked for it.

    Such as `delete clusterroles.rbac.authorization.k8s.io podidentity-mic`, `list pods`,
    `create serviceaccounts/token orders in namespace shop`, or `get /version`.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        return f"{_VERBS.get(method, 'get')} {path}"
    group, namespace, plural, name, part = map(unquote, found.groups(""))
    verb = _VERBS.get(method, "get" if name else "list")
    words = [verb, plural + (f".{group}" if group else "") + (f"/{part}" if part else "")]
    words += [name] if name else []
    words += [f"in namespace {namespace}"] if namespace else []
    return " ".join(words)


def parse_error(
    body: bytes | msgspec.Raw, code: int, retry_after: str = "", *, asked: str
) -> KubeError:
    """Return the error in an answer with HTTP status `code` and this header Retry-After.

    `asked` is what was asked for (`request_in_words`). A proxy or gateway between client and server
    may send any text: it is cut to one line.
    """
    try:
        found = _STATUS.decode(body)
    except BROKEN_JSON:
        found = _Status(message=" ".join(bytes(body).decode(errors="replace").split())[:200])
    status = found.code or code
    said = found.message or "no message"
    return KubeError(
        f"The API server refused to {asked} ({' '.join(f'{status} {found.reason}'.split())}): "
        f"{said}",
        said=said,
        status=status,
        reason=found.reason,
        retry_after=_seconds(retry_after) if status in _LATER else 0,
    )


def _seconds(retry_after: str) -> int:
    """Return the seconds that a header names, 0 for anything else."""
    if not (retry_after.isascii() and retry_after.isdigit()):
        return 0
    # Python reads no number of thousands of digits.
    few = len(retry_after) <= _DIGITS
    return min(int(retry_after), LONGEST_RETRY_AFTER) if few else LONGEST_RETRY_AFTER

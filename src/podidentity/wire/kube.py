"""What the Kubernetes API says around objects: paths, lists, watch events and errors.

Objects themselves stay raw JSON here, so that one that cannot be decoded spoils no list and ends
no watch; `wire.manifests` reads them one by one.

Shapes: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from podidentity.core.ids import ObjectRef
from podidentity.wire.depth import shallow

_T = TypeVar("_T")


class NotKubernetes(ValueError):
    """Bytes that no API server sends; the message says what was expected."""


class KubeError(Exception):
    """The API server said no, or could not be asked.

    `status` is its HTTP status, 0 where there was no answer; `reason` its machine-readable word
    (`NotFound`, `AlreadyExists`, `Expired`), "" where it gave none.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason

    @property
    def unreachable(self) -> bool:
        """No answer came: wrong configuration, network, TLS, or what answers is no API server."""
        return self.status == 0

    @property
    def unauthorized(self) -> bool:
        """The server does not know who asks."""
        return self.status == HTTPStatus.UNAUTHORIZED

    @property
    def forbidden(self) -> bool:
        """The server knows who asks, and refuses."""
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def not_found(self) -> bool:
        """No such object, or no such resource type."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def conflict(self) -> bool:
        """It exists already, or has changed meanwhile; `reason` tells the two apart."""
        return self.status == HTTPStatus.CONFLICT

    @property
    def throttled(self) -> bool:
        """The server has too much to do; nothing is wrong with the request."""
        return self.status == HTTPStatus.TOO_MANY_REQUESTS

    @property
    def gone(self) -> bool:
        """The resource version or the `continue` token is too old: list anew."""
        return self.status == HTTPStatus.GONE


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource type: where it lives in the API."""

    api: str
    """`/api/v1` or `/apis/GROUP/VERSION`."""
    plural: str

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of one object, of a namespace's objects, or of all."""
        inside = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        one = f"/{quote(name, safe='')}" if name else ""
        return f"{self.api}{inside}/{self.plural}{one}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A list, or a part of one."""

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
    """What every object has."""

    ref: ObjectRef
    resource_version: str


class KubeApi(Protocol):
    """The API server, as the agent uses it; `adapters.kube.Kube` is one. All raise KubeError."""

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        """Return the whole list at `path`, `params` being selectors."""

    def watch(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        resource_version: str,
        opened: Callable[[], None],
    ) -> AsyncGenerator[Event, None]:
        """Call `opened`, and yield what happens until the server ends the watch."""

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Create `body` in the collection at `path`; return it as stored."""

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Merge `body` (RFC 7386) into the object at `path`; return it as stored."""


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMeta
    # `null` for an empty list is what some servers of the family send.
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _ObjectMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Object(msgspec.Struct):
    metadata: _ObjectMeta


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    code: int = 0


_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(_Event)
_OBJECT = msgspec.json.Decoder(_Object)
_STATUS = msgspec.json.Decoder(_Status)
# What msgspec raises: the last two for strings that are not UTF-8, and for deep nesting.
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes | msgspec.Raw) -> _T:
    """Return what is in `body`; one object that is nested without end spoils no list."""
    try:
        return decoder.decode(body)
    except RecursionError:
        return decoder.decode(shallow(bytes(body)))


def parse_list(body: bytes) -> Page:
    """Return the list in `body`; raise NotKubernetes."""
    try:
        found = _decoded(_LIST, body)
    except _BROKEN as error:
        raise NotKubernetes(f"not a Kubernetes list: {error}") from error
    return Page(
        items=tuple(found.items or ()),
        resource_version=found.metadata.resource_version,
        more=found.metadata.continue_,
    )


def parse_event(line: bytes) -> Event:
    """Return the watch event in `line`; raise NotKubernetes."""
    try:
        found = _decoded(_EVENT, line)
    except _BROKEN as error:
        raise NotKubernetes(f"not a watch event: {error}") from error
    return Event(type=found.type, object=found.object)


def parse_object_version(raw: bytes | msgspec.Raw) -> ObjectVersion:
    """Return what names an object; raise NotKubernetes."""
    try:
        found = _decoded(_OBJECT, raw).metadata
    except _BROKEN as error:
        raise NotKubernetes(f"not a Kubernetes object: {error}") from error
    return ObjectVersion(
        ref=ObjectRef(found.namespace, found.name), resource_version=found.resource_version
    )


def parse_error(body: bytes | msgspec.Raw, code: int) -> KubeError:
    """Return the error that an answer with HTTP status `code` stands for.

    What stands between client and server (a proxy, a gateway) answers with anything: its text is
    shortened to one line.
    """
    try:
        found = _STATUS.decode(body)
    except _BROKEN:
        found = _Status(message=" ".join(bytes(body).decode(errors="replace").split())[:200])
    status = found.code or code
    return KubeError(
        f"The API server refused ({' '.join(f'{status} {found.reason}'.split())}): "
        f"{found.message or 'no message'}",
        status=status,
        reason=found.reason,
    )

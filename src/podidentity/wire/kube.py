"""What the Kubernetes API says around objects: paths, lists, watch events and errors.

Objects themselves stay raw JSON here, so that one that cannot be decoded spoils no list and ends
no watch; `wire.manifests` reads them one by one.

Shapes: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from podidentity.core.ids import ObjectRef


class NotKubernetes(ValueError):
    """Bytes that no API server sends; the message says what was expected."""


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
AZURE_IDENTITIES = Resource("/apis/aadpodidentity.k8s.io/v1", "azureidentities")
AZURE_IDENTITY_BINDINGS = Resource("/apis/aadpodidentity.k8s.io/v1", "azureidentitybindings")


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
class Meta:
    """What every object has."""

    ref: ObjectRef
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The API server's no."""

    code: int
    reason: str
    message: str


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
# UnicodeDecodeError: msgspec raises it for strings that are not UTF-8.
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError)


def parse_list(body: bytes) -> Page:
    """Return the list in `body`; raise NotKubernetes."""
    try:
        found = _LIST.decode(body)
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
        found = _EVENT.decode(line)
    except _BROKEN as error:
        raise NotKubernetes(f"not a watch event: {error}") from error
    return Event(type=found.type, object=found.object)


def parse_meta(raw: bytes | msgspec.Raw) -> Meta:
    """Return what names an object; raise NotKubernetes."""
    try:
        found = _OBJECT.decode(raw).metadata
    except _BROKEN as error:
        raise NotKubernetes(f"not a Kubernetes object: {error}") from error
    return Meta(ref=ObjectRef(found.namespace, found.name), resource_version=found.resource_version)


def parse_status(body: bytes | msgspec.Raw, code: int) -> Status:
    """Return the Status in `body`, or what can be said of an answer `code` that has none.

    What stands between client and server (a proxy, a gateway) answers with anything: its text is
    shortened to one line.
    """
    try:
        found = _STATUS.decode(body)
    except _BROKEN:
        text = " ".join(bytes(body).decode(errors="replace").split())
        return Status(code=code, reason="", message=text[:200] or "no message")
    return Status(
        code=found.code or code, reason=found.reason, message=found.message or "no message"
    )

"""Custom resources as loose JSON: their fields one by one, each missing or of any type.

Our custom resources have no schema worth the name on older clusters (no `required`, no patterns),
so whatever cannot be used becomes a Malformed that says why, and disturbs no other.

Up to release 1.5 of the archived project some names were spelt with a capital; those are still
read.
"""

from __future__ import annotations

from collections.abc import Callable
from reprlib import Repr
from typing import Any, TypeVar

import msgspec

from podidentity.core.ids import InvalidId, ObjectRef
from podidentity.core.resources import Malformed

API_VERSION = "aadpodidentity.k8s.io/v1"

LONGEST_NAME = 253
LONGEST_LABEL = 63
"""Characters of an object's name, and of a label's value.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and …/labels/
"""

Raw = bytes | msgspec.Raw
Fields = dict[str, Any]
_T = TypeVar("_T")


class Unusable(ValueError):
    """Why a custom resource cannot be used, as a clause."""


class Meta(msgspec.Struct):
    """What we read of an object's metadata."""

    name: str = ""
    namespace: str = ""
    annotations: dict[str, str] | None = None


class _Custom(msgspec.Struct):
    metadata: Meta
    spec: Any = None
    status: Any = None
    old_status: Any = msgspec.field(name="Status", default=None)


_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_CUSTOM = msgspec.json.Decoder(_Custom)
_REPR = Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 80, 80


class Custom(msgspec.Struct, frozen=True):
    """A custom resource whose spec is an object."""

    ref: ObjectRef
    annotations: Fields
    spec: Fields
    status: Fields


def parse(raw: Raw, kind: str, build: Callable[[Custom], _T]) -> _T | Malformed:
    """Return what `build` makes of the object in `raw`, or why it cannot be used.

    Raises ValueError where it has no name: no API server stores that.
    """
    try:
        found = _CUSTOM.decode(raw)
    except _BROKEN as error:
        raise ValueError(f"not an {kind}: {error}") from error
    meta = found.metadata
    ref = ObjectRef(meta.namespace, meta.name)
    told = found.status or found.old_status
    status = told if isinstance(told, dict) else {}
    try:
        return build(Custom(ref, meta.annotations or {}, _spec(found.spec), status))
    except Unusable as error:
        return Malformed(ref=ref, kind=kind, why=str(error))


def rendered(kind: str, ref: ObjectRef, spec: Fields) -> Fields:
    """Return the object to send to the API server."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"namespace": ref.namespace, "name": ref.name},
        "spec": spec,
    }


def field(spec: Fields, name: str) -> object:
    """Return the field by its name, or by the spelling of old releases (`ClientID`)."""
    value: object = spec.get(name)
    return value if value is not None else spec.get(name[0].upper() + name[1:])


def optional(
    spec: Fields, name: str, read: Callable[[object], _T], path: str = "spec"
) -> _T | None:
    """Return the field as `read` takes it; None where it is missing or empty."""
    value = field(spec, name)
    if value is None or value == "":
        return None
    try:
        return read(value)
    except InvalidId as error:
        raise Unusable(f"{path}.{name} {error}") from error


def text(spec: Fields, name: str, longest: int = LONGEST_NAME) -> str:
    """Return a field that must be a string with something in it.

    A longer one names nothing that there could be, and all nodes would keep it in memory.
    """
    value = field(spec, name)
    if value is None or value == "":
        raise Unusable(f"spec.{name} is {'missing' if value is None else 'empty'}")
    if not isinstance(value, str):
        raise wrong(name, "a string", value)
    if len(value) > longest:
        raise wrong(name, f"a string of at most {longest} characters", value)
    return value


def wrong(name: str, must: str, value: object) -> Unusable:
    """Return the complaint about a field's value."""
    return Unusable(f"spec.{name} must be {must}, not {shown(value)}")


def shown(value: object) -> str:
    """Return a value for a message, which it cannot fill, however long and deep it is."""
    return _REPR.repr(value)[:80]


def _spec(value: object) -> Fields:
    if isinstance(value, dict):
        return value
    raise Unusable("spec is missing" if value is None else "spec must be an object")

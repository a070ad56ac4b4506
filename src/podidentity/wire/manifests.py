"""Objects of the cluster, from JSON to the values of the core and back.

Structs name only the fields that we read, so that a pod of 10 kB costs microseconds. Our custom
resources have no schema worth the name on older clusters (no `required`, no patterns), so every
field may be missing or of the wrong type: what cannot be used becomes a Malformed that says why.

Fields: https://azure.github.io/aad-pod-identity/docs/concepts/ and the CRDs of the archived
project. Up to its release 1.5 some names were spelt with a capital; those are still read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from podidentity.core.ids import ClientId, InvalidId, ObjectId, ObjectRef, ResourceId
from podidentity.core.resources import (
    AzureIdentity,
    AzureIdentityBinding,
    IdentityType,
    Malformed,
)

API_VERSION = "aadpodidentity.k8s.io/v1"
IDENTITY_KIND = "AzureIdentity"
BINDING_KIND = "AzureIdentityBinding"

_Raw = bytes | msgspec.Raw
_T = TypeVar("_T")


class _Unusable(ValueError):
    """Why a custom resource cannot be used, as a clause."""


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""


class _Custom(msgspec.Struct):
    metadata: _Meta
    spec: Any = None


_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_CUSTOM = msgspec.json.Decoder(_Custom)


def parse_identity(raw: _Raw) -> AzureIdentity | Malformed:
    """Return the AzureIdentity in `raw`, or why it cannot be used; ValueError: it has no name."""
    return _parse(raw, IDENTITY_KIND, _identity)


def parse_binding(raw: _Raw) -> AzureIdentityBinding | Malformed:
    """Return the AzureIdentityBinding in `raw`, or why it cannot be used; ValueError: no name."""
    return _parse(raw, BINDING_KIND, _binding)


def render_identity(identity: AzureIdentity) -> dict[str, Any]:
    """Return the object to send to the API server."""
    spec: dict[str, Any] = {"type": int(identity.type)}
    if identity.resource_id:
        spec["resourceID"] = str(identity.resource_id)
    if identity.client_id:
        spec["clientID"] = str(identity.client_id)
    if identity.object_id:
        spec["objectID"] = str(identity.object_id)
    return _rendered(IDENTITY_KIND, identity.ref, spec)


def render_binding(binding: AzureIdentityBinding) -> dict[str, Any]:
    """Return the object to send to the API server."""
    spec: dict[str, Any] = {"azureIdentity": binding.identity, "selector": binding.selector}
    if binding.weight:
        spec["weight"] = binding.weight
    return _rendered(BINDING_KIND, binding.ref, spec)


def _rendered(kind: str, ref: ObjectRef, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"namespace": ref.namespace, "name": ref.name},
        "spec": spec,
    }


def _parse(
    raw: _Raw, kind: str, build: Callable[[ObjectRef, dict[str, Any]], _T]
) -> _T | Malformed:
    try:
        found = _CUSTOM.decode(raw)
    except _BROKEN as error:
        raise ValueError(f"not an {kind}: {error}") from error
    ref = ObjectRef(found.metadata.namespace, found.metadata.name)
    try:
        return build(ref, _spec(found.spec))
    except _Unusable as error:
        return Malformed(ref=ref, kind=kind, why=str(error))


def _identity(ref: ObjectRef, spec: dict[str, Any]) -> AzureIdentity:
    kind = _type(spec)
    client_id = _optional(spec, "clientID", ClientId.parse)
    resource_id = _optional(spec, "resourceID", ResourceId.parse)
    if client_id is None and kind is IdentityType.USER_ASSIGNED:
        raise _Unusable("spec.clientID is missing")
    return AzureIdentity(
        ref=ref,
        type=kind,
        client_id=client_id,
        resource_id=resource_id,
        object_id=_optional(spec, "objectID", ObjectId.parse),
    )


def _binding(ref: ObjectRef, spec: dict[str, Any]) -> AzureIdentityBinding:
    weight = spec.get("weight") or 0
    if not isinstance(weight, int) or isinstance(weight, bool):
        raise _wrong("weight", "an integer", weight)
    return AzureIdentityBinding(
        ref=ref,
        identity=_text(spec, "azureIdentity"),
        selector=_text(spec, "selector"),
        weight=weight,
    )


def _spec(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _Unusable("spec is missing" if value is None else "spec must be an object")


def _type(spec: dict[str, Any]) -> IdentityType:
    value = spec.get("type")
    if value is None:
        return IdentityType.USER_ASSIGNED
    if isinstance(value, int) and not isinstance(value, bool) and value in list(IdentityType):
        return IdentityType(value)
    raise _wrong("type", "0, 1, 2 or 3", value)


def _field(spec: dict[str, Any], name: str) -> object:
    """Return the field by its name, or by the spelling of old releases (`ClientID`)."""
    value: object = spec.get(name)
    return value if value is not None else spec.get(name[0].upper() + name[1:])


def _optional(spec: dict[str, Any], name: str, parse: Callable[[object], _T]) -> _T | None:
    value = _field(spec, name)
    if value is None or value == "":
        return None
    try:
        return parse(value)
    except InvalidId as error:
        raise _Unusable(f"spec.{name} {error}") from error


def _text(spec: dict[str, Any], name: str) -> str:
    value = _field(spec, name)
    if value is None or value == "":
        raise _Unusable(f"spec.{name} is {'missing' if value is None else 'empty'}")
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value


def _wrong(name: str, must: str, value: object) -> _Unusable:
    return _Unusable(f"spec.{name} must be {must}, not {repr(value)[:80]}")

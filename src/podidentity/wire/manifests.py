"""Our custom resources and the annotations of service accounts, from JSON to core values and back.

The structs name only the fields that we read, so an object of 10 kB costs microseconds. On older
clusters the custom resources have no useful schema (no `required`, no patterns): any field may be
missing or of any type. An object that cannot be used becomes a Malformed with the reason.

Releases up to 1.5 of the archived project spelt some names with a capital; those are still read.

Fields: https://azure.github.io/aad-pod-identity/docs/concepts/, docs/reference/compatibility.md for
those that were added, and for service accounts
https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from reprlib import Repr
from sys import intern
from typing import Any, TypeVar

import msgspec

from podidentity.core.budgets import BUDGETS
from podidentity.core.resources import (
    OBJECT_NAME,
    SYSTEM_ASSIGNED,
    AssertionSubject,
    Assignment,
    Authority,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    ClientId,
    Entra,
    Federation,
    IdentityType,
    InvalidId,
    Malformed,
    ObjectId,
    ObjectRef,
    ResourceId,
    Tenant,
    WorkloadIdentity,
)
from podidentity.wire import ANY, BROKEN_JSON, decoded

API_VERSION = "aadpodidentity.k8s.io/v1"
IDENTITY_KIND = "AzureIdentity"
BINDING_KIND = "AzureIdentityBinding"
EXCEPTION_KIND = "AzurePodIdentityException"
ASSIGNED_KIND = "AzureAssignedIdentity"
FINALIZER = "azureassignedidentity.finalizers.aadpodidentity.k8s.io"
"""Of the archived controller; ours sets none."""
NODE_LABEL = "nodename"
"""Of a record: the node of its pod."""
SERVICE_ACCOUNT_KIND = "ServiceAccount"

_LONGEST_NAME, _LONGEST_LABEL = 253, 63
"""Characters of an object's name, and of a label's value.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and …/labels/
"""
_MOST_TENANTS = 3
_MOST_OF_EXCEPTION = 100
"""Labels, and identities, of one exception: every node keeps them in memory."""
_BEHAVIOR = "aadpodidentity.k8s.io/Behavior"
_CLIENT_ID = "azure.workload.identity/client-id"
_TENANT_ID = "azure.workload.identity/tenant-id"
_AUDIENCE = re.compile(r"[!-~]{0,600}")
_LABEL_KEY = re.compile(r"[A-Za-z0-9]([\w./-]*[A-Za-z0-9])?", re.ASCII)
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", re.ASCII)

Raw = bytes | msgspec.Raw
_Fields = dict[str, Any]
_T = TypeVar("_T")


class _Unusable(ValueError):
    """Why a custom resource cannot be used, as a clause."""


class _TooLarge(_Unusable):
    """The custom resource is over the budget of an object."""


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    annotations: dict[str, str] | None = None


class _Json(msgspec.Struct):
    """A custom resource as it was sent."""

    metadata: _Meta
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: msgspec.Raw = msgspec.Raw(b"null")
    old_status: msgspec.Raw = msgspec.field(name="Status", default=msgspec.Raw(b"null"))


class _Account(msgspec.Struct):
    metadata: _Meta


class _Custom(msgspec.Struct, frozen=True):
    """A custom resource with an object as its spec."""

    ref: ObjectRef
    annotations: _Fields
    spec: _Fields
    status: _Fields


_JSON = msgspec.json.Decoder(_Json)
_ACCOUNT = msgspec.json.Decoder(_Account)
_FIELDS = (
    *("type", "clientID", "resourceID", "objectID", "tenantID", "auxiliaryTenantIDs"),
    *("clientPassword", "federation", "adEndpoint", "adResourceID", "azureIdentity", "selector"),
    "weight",
)
_RAW_FIELDS = msgspec.json.Decoder(
    msgspec.defstruct(
        "_RawFields",
        [
            (f"{first}{name[1:]}", msgspec.Raw, msgspec.Raw(b"null"))
            for name in _FIELDS
            for first in (name[0], name[0].upper())
        ],
    )
)
_LONGEST_FIELD = 2048
"""Bytes; no field in use has as many."""
_REPR = Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 80, 80


def parse_identity(raw: Raw, *, any_size: bool = False) -> AzureIdentity | Malformed:
    """Return the AzureIdentity in `raw`, or why it cannot be used; ValueError: it has no name.

    `any_size`: of one that is too large the short fields count.
    """
    return _parse(raw, IDENTITY_KIND, _identity, any_size=any_size)


def render_identity(identity: AzureIdentity) -> dict[str, Any]:
    spec: dict[str, Any] = {"type": int(identity.type)}
    if identity.system_assigned:
        spec["resourceID"] = SYSTEM_ASSIGNED
    elif identity.resource_id:
        spec["resourceID"] = str(identity.resource_id)
    if identity.client_id:
        spec["clientID"] = str(identity.client_id)
    if identity.object_id:
        spec["objectID"] = str(identity.object_id)
    if identity.entra:
        spec |= _rendered_entra(identity.entra)
    return _rendered(IDENTITY_KIND, identity.ref, spec)


def parse_binding(raw: Raw, *, any_size: bool = False) -> AzureIdentityBinding | Malformed:
    """Return the AzureIdentityBinding in `raw`, or why it cannot be used; ValueError: no name.

    `any_size`: of one that is too large the short fields count.
    """
    return _parse(raw, BINDING_KIND, _binding, any_size=any_size)


def render_binding(binding: AzureIdentityBinding) -> dict[str, Any]:
    spec: _Fields = {"azureIdentity": binding.identity, "selector": binding.selector}
    if binding.weight:
        spec["weight"] = binding.weight
    return _rendered(BINDING_KIND, binding.ref, spec)


def parse_exception(raw: Raw) -> AzurePodIdentityException | Malformed:
    """Return the AzurePodIdentityException in `raw`, or why it cannot be used."""
    return _parse(raw, EXCEPTION_KIND, _exception)


def render_exception(exception: AzurePodIdentityException) -> dict[str, Any]:
    spec: _Fields = {"podLabels": dict(exception.pod_labels)}
    if exception.identities:
        spec["azureIdentities"] = [str(each) for each in exception.identities]
    return _rendered(EXCEPTION_KIND, exception.ref, spec)


def parse_assigned(raw: Raw) -> AzureAssignedIdentity | Malformed:
    """Return the AzureAssignedIdentity in `raw`, or why it cannot be used."""
    return _parse(raw, ASSIGNED_KIND, _assigned)


def parse_service_account(raw: Raw) -> WorkloadIdentity | Malformed | ObjectRef:
    """Return the workload identity of an annotated service account; of others the name alone.

    Raises ValueError if it has no name.
    """
    try:
        meta = decoded(_ACCOUNT, raw).metadata
    except BROKEN_JSON as error:
        raise ValueError(f"not a {SERVICE_ACCOUNT_KIND}: {error}") from error
    ref = ObjectRef(intern(meta.namespace), meta.name)
    annotations = meta.annotations or {}
    client, tenant = annotations.get(_CLIENT_ID), annotations.get(_TENANT_ID)
    if not client:
        return ref
    try:
        return WorkloadIdentity(
            ref=ref,
            client_id=ClientId.parse(client),
            tenant=Tenant.parse(tenant) if tenant else None,
        )
    except InvalidId as error:
        why = f"its annotation azure.workload.identity/client-id or tenant-id {error}"
        return Malformed(ref=ref, kind=SERVICE_ACCOUNT_KIND, why=why)


def _rendered_entra(entra: Entra) -> _Fields:
    spec: _Fields = {"tenantID": str(entra.tenant)}
    if entra.authority:
        spec["adEndpoint"] = f"{entra.authority}/"
    if entra.auxiliary_tenants:
        spec["auxiliaryTenantIDs"] = [str(tenant) for tenant in entra.auxiliary_tenants]
    if entra.secret:
        spec["clientPassword"] = {"name": entra.secret.name, "namespace": entra.secret.namespace}
    if entra.federation:
        spec["federation"] = {"subject": entra.federation.subject.value}
        if entra.federation.audience:
            spec["federation"]["audience"] = entra.federation.audience
        if entra.federation.via:
            spec["federation"]["via"] = str(entra.federation.via)
    return spec


def _identity(found: _Custom) -> AzureIdentity:
    spec = found.spec
    kind = _type(spec)
    client_id = _optional(spec, "clientID", ClientId.parse)
    system = kind is IdentityType.USER_ASSIGNED and _is_system_assigned(spec)
    if client_id is None and not system:
        raise _Unusable("spec.clientID is missing")
    if client_id is not None and system:
        raise _Unusable(
            f"spec.clientID must not be given where spec.resourceID is {SYSTEM_ASSIGNED}"
        )
    return AzureIdentity(
        ref=found.ref,
        type=kind,
        client_id=client_id,
        resource_id=None if system else _optional(spec, "resourceID", ResourceId.parse),
        object_id=_optional(spec, "objectID", ObjectId.parse),
        system_assigned=system,
        namespaced=found.annotations.get(_BEHAVIOR) == "namespaced",
        entra=None if kind is IdentityType.USER_ASSIGNED else _entra(found.ref, kind, spec),
    )


def _is_system_assigned(spec: _Fields) -> bool:
    value = _field(spec, "resourceID")
    return isinstance(value, str) and value.strip().lower() == SYSTEM_ASSIGNED


def _type(spec: _Fields) -> IdentityType:
    value = spec.get("type")
    if value is None:
        return IdentityType.USER_ASSIGNED
    if isinstance(value, int) and not isinstance(value, bool) and value in list(IdentityType):
        return IdentityType(value)
    raise _wrong("type", "0, 1, 2 or 3", value)


def _entra(ref: ObjectRef, kind: IdentityType, spec: _Fields) -> Entra:
    tenant = _optional(spec, "tenantID", Tenant.parse)
    if tenant is None:
        raise _Unusable("spec.tenantID is missing")
    federated = kind is IdentityType.FEDERATED
    return Entra(
        tenant=tenant,
        authority=_optional(spec, "adEndpoint", Authority.parse),
        auxiliary_tenants=_auxiliary(spec),
        secret=None if federated else _secret(ref, spec),
        federation=_federation(spec) if federated else None,
    )


def _auxiliary(spec: _Fields) -> tuple[Tenant, ...]:
    value = _field(spec, "auxiliaryTenantIDs") or []
    if not isinstance(value, list):
        raise _wrong("auxiliaryTenantIDs", "a list", value)
    if len(value) > _MOST_TENANTS:
        raise _Unusable(f"spec.auxiliaryTenantIDs has more than {_MOST_TENANTS} tenants")
    entries = {str(number): each for number, each in enumerate(value)}
    found = [_optional(entries, name, Tenant.parse, "spec.auxiliaryTenantIDs") for name in entries]
    return tuple(tenant for tenant in found if tenant is not None)


def _secret(ref: ObjectRef, spec: _Fields) -> ObjectRef:
    value = _field(spec, "clientPassword")
    if not isinstance(value, dict):
        if value is not None:
            raise _wrong("clientPassword", "an object with the name of a secret", value)
        raise _Unusable("spec.clientPassword is missing")
    name, namespace = _field(value, "name"), _field(value, "namespace") or ref.namespace
    if name is None or name == "":
        raise _Unusable("spec.clientPassword.name is missing")
    return ObjectRef(
        _named("clientPassword.namespace", namespace), _named("clientPassword.name", name)
    )


def _named(which: str, value: object) -> str:
    """Return a valid Kubernetes name: it becomes part of a path and of a selector."""
    if _is_name(value):
        return str(value)
    raise _wrong(which, "a name of Kubernetes", value)


def _is_name(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= _LONGEST_NAME
        and OBJECT_NAME.fullmatch(value) is not None
    )


def _federation(spec: _Fields) -> Federation:
    value = _field(spec, "federation")
    if value is None:
        return Federation()
    if not isinstance(value, dict):
        raise _wrong("federation", "an object", value)
    subject, audience = value.get("subject") or AssertionSubject.POD, value.get("audience") or ""
    if not isinstance(subject, str) or subject not in set(AssertionSubject):
        raise _wrong("federation.subject", "pod or identity", subject)
    if not isinstance(audience, str) or not _AUDIENCE.fullmatch(audience):
        raise _wrong(
            "federation.audience", "at most 600 characters of ASCII without spaces", audience
        )
    via = _optional(value, "via", ResourceId.parse, "spec.federation")
    return Federation(subject=AssertionSubject(subject), audience=audience, via=via)


def _binding(found: _Custom) -> AzureIdentityBinding:
    spec = found.spec
    weight = spec.get("weight") or 0
    if not isinstance(weight, int) or isinstance(weight, bool):
        raise _wrong("weight", "an integer", weight)
    return AzureIdentityBinding(
        ref=found.ref,
        identity=_name(spec, "azureIdentity"),
        selector=_label_value("selector", _text(spec, "selector", _LONGEST_LABEL)),
        weight=weight,
    )


def _label_value(which: str, value: str) -> str:
    """Return a value that a label can have: MIC asks for pods by the selectors of all bindings."""
    if _is_label_value(value):
        return value
    raise _wrong(which, "a value that a label can have", value)


def _is_label_value(value: str) -> bool:
    return len(value) <= _LONGEST_LABEL and _LABEL_VALUE.fullmatch(value) is not None


def _exception(found: _Custom) -> AzurePodIdentityException:
    labels = _field(found.spec, "podLabels") or {}
    if not isinstance(labels, dict) or not all(isinstance(each, str) for each in labels.values()):
        raise _wrong("podLabels", "labels and their values", labels)
    if len(labels) > _MOST_OF_EXCEPTION or any(map(_is_no_label, labels.items())):
        raise _wrong(
            "podLabels", f"at most {_MOST_OF_EXCEPTION} labels that a pod can have", labels
        )
    return AzurePodIdentityException(
        ref=found.ref, pod_labels=labels, identities=_identities(found.spec)
    )


def _is_no_label(label: tuple[str, str]) -> bool:
    key, value = label
    # A key may have the name of a domain and a slash before its own.
    long = len(key) > _LONGEST_NAME + 1 + _LONGEST_LABEL or len(value) > _LONGEST_LABEL
    return long or not _LABEL_KEY.fullmatch(key) or (value != "" and not _is_label_value(value))


def _identities(spec: _Fields) -> tuple[ClientId | ResourceId, ...]:
    value = _field(spec, "azureIdentities") or []
    if not isinstance(value, list):
        raise _wrong("azureIdentities", "a list of client ids or resource ids", value)
    if len(value) > _MOST_OF_EXCEPTION:
        raise _wrong("azureIdentities", f"a list of at most {_MOST_OF_EXCEPTION}", value)
    return tuple(_either(each) for each in value)


def _either(value: object) -> ClientId | ResourceId:
    is_arm = isinstance(value, str) and value.strip().startswith("/")
    try:
        return ResourceId.parse(value) if is_arm else ClientId.parse(value)
    except InvalidId as error:
        raise _Unusable(f"spec.azureIdentities {error}") from error


def _assigned(found: _Custom) -> AzureAssignedIdentity:
    spec, status = found.spec, found.status
    identity = _reference(spec, "azureIdentityRef")
    state = _field(status, "status")
    if state is None or state == "":
        state = Assignment.ASSIGNED  # as releases before 1.6 left it
    if not isinstance(state, str) or state not in set(Assignment):
        raise _Unusable(
            f"status.status must be Created, Assigned or Unassigned, not {_shown(state)}"
        )
    return AzureAssignedIdentity(
        ref=found.ref,
        pod=ObjectRef(_name(spec, "podNamespace"), _name(spec, "pod")),
        identity=identity,
        node=_name(spec, "nodename"),
        state=Assignment(state),
    )


def _reference(spec: _Fields, name: str) -> ObjectRef:
    """Return the name in the copy of an object that the record carries."""
    copy = _field(spec, name) or spec.get(name.lower())
    meta = copy.get("metadata") if isinstance(copy, dict) else None
    if not isinstance(meta, dict):
        raise _Unusable(f"spec.{name}.metadata is missing")
    name_of, namespace = _field(meta, "name"), _field(meta, "namespace") or ""
    if name_of is None or name_of == "":
        raise _Unusable(f"spec.{name}.metadata.name is missing")
    return ObjectRef(_short(name, namespace), _short(name, name_of))


def _short(reference: str, value: object) -> str:
    if value == "" or _is_name(value):
        return str(value)
    raise _wrong(f"{reference}.metadata", "a name and a namespace of Kubernetes", value)


def _parse(
    raw: Raw, kind: str, build: Callable[[_Custom], _T], *, any_size: bool = False
) -> _T | Malformed:
    """Return the value that `build` makes of the object in `raw`, or a Malformed.

    Raises ValueError for an object without metadata: no API server stores one.
    """
    try:
        found = decoded(_JSON, raw)
    except BROKEN_JSON as error:
        raise ValueError(f"not an {kind}: {error}") from error
    meta, spec = found.metadata, None
    ref = ObjectRef(intern(meta.namespace), meta.name)
    try:
        if any_size and len(found.spec) > BUDGETS[kind].object:
            found.spec = short_fields(found.spec)
        spec, told, old = _read(kind, found)
        status = told or old
        fields = status if isinstance(status, dict) else {}
        return build(_Custom(ref, meta.annotations or {}, _spec(spec), fields))
    except _Unusable as error:
        selector = _field(spec, "selector") if isinstance(spec, dict) else ""
        is_label = isinstance(selector, str) and kind == BINDING_KIND and _is_label_value(selector)
        return Malformed(
            ref=ref,
            kind=kind,
            why=str(error),
            selector=str(selector) if is_label else "",
            left_out=isinstance(error, _TooLarge),
        )


def short_fields(spec: msgspec.Raw) -> msgspec.Raw:
    """Return the fields that an identity or a binding may have, as far as they are short.

    Of a spec that is no object none.
    """
    try:
        fields = msgspec.structs.asdict(decoded(_RAW_FIELDS, spec))
    except BROKEN_JSON:
        return msgspec.Raw(b"{}")
    short = {name: value for name, value in fields.items() if len(value) <= _LONGEST_FIELD}
    return msgspec.Raw(msgspec.json.encode(short))


def _read(kind: str, found: _Json) -> list[Any]:
    """Return spec and status; raise _Unusable for those that are over the budget of an object.

    Only an AzureAssignedIdentity's status means anything: others write into the rest.
    """
    parts = [found.spec, found.status, found.old_status][: 3 if kind == ASSIGNED_KIND else 1]
    size, most = sum(map(len, parts)), BUDGETS[kind].object
    if size > most:
        raise _TooLarge(f"it has {size} bytes in spec and status, more than {most}")
    try:
        return [*map(ANY.decode, parts), None, None][:3]
    except BROKEN_JSON as error:
        raise _Unusable(f"its spec or status cannot be decoded: {error}") from error


def _rendered(kind: str, ref: ObjectRef, spec: _Fields) -> _Fields:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"namespace": ref.namespace, "name": ref.name},
        "spec": spec,
    }


def _field(spec: _Fields, name: str) -> object:
    """Return the field by its name, or by the spelling of old releases (`ClientID`)."""
    value: object = spec.get(name)
    return value if value is not None else spec.get(name[0].upper() + name[1:])


def _optional(
    spec: _Fields, name: str, read: Callable[[object], _T], path: str = "spec"
) -> _T | None:
    """Return the field, parsed by `read`; None if it is missing or empty."""
    value = _field(spec, name)
    if value is None or value == "":
        return None
    try:
        return read(value)
    except InvalidId as error:
        raise _Unusable(f"{path}.{name} {error}") from error


def _text(spec: _Fields, name: str, longest: int = _LONGEST_NAME) -> str:
    """Return a field that must be a string, not empty and not longer than `longest`.

    Kubernetes has no longer names, and every node would keep them in memory.
    """
    value = _field(spec, name)
    if value is None or value == "":
        raise _Unusable(f"spec.{name} is {'missing' if value is None else 'empty'}")
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    if len(value) > longest:
        raise _wrong(name, f"a string of at most {longest} characters", value)
    return value


def _name(spec: _Fields, name: str) -> str:
    """Return a field that must be the name of an object of Kubernetes."""
    return _named(name, _text(spec, name))


def _wrong(name: str, must: str, value: object) -> _Unusable:
    return _Unusable(f"spec.{name} must be {must}, not {_shown(value)}")


def _shown(value: object) -> str:
    """Return a value as text for a message, at most 80 characters."""
    return _REPR.repr(value)[:80]


def _spec(value: object) -> _Fields:
    if isinstance(value, dict):
        return value
    raise _Unusable("spec is missing" if value is None else "spec must be an object")

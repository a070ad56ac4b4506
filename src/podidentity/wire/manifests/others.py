"""What binds, excepts, records and annotates, from JSON to the values of the core and back.

Fields: https://azure.github.io/aad-pod-identity/docs/concepts/ and, of service accounts,
https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html
"""

from __future__ import annotations

from typing import Any

import msgspec

from podidentity.core.authorities import Tenant
from podidentity.core.ids import ClientId, InvalidId, ObjectRef, ResourceId
from podidentity.core.resources import (
    Assignment,
    AzureAssignedIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    WorkloadIdentity,
)
from podidentity.wire.manifests.reading import (
    LONGEST_LABEL,
    LONGEST_NAME,
    Custom,
    Fields,
    Meta,
    Raw,
    Unusable,
    field,
    parse,
    rendered,
    shown,
    text,
    wrong,
)

BINDING_KIND = "AzureIdentityBinding"
EXCEPTION_KIND = "AzurePodIdentityException"
ASSIGNED_KIND = "AzureAssignedIdentity"
SERVICE_ACCOUNT_KIND = "ServiceAccount"

_CLIENT_ID = "azure.workload.identity/client-id"
_TENANT_ID = "azure.workload.identity/tenant-id"
_MOST = 100
"""Labels, and identities, of one exception: all nodes keep them in memory."""


class _Account(msgspec.Struct):
    metadata: Meta


_ACCOUNT = msgspec.json.Decoder(_Account)


def parse_binding(raw: Raw) -> AzureIdentityBinding | Malformed:
    """Return the AzureIdentityBinding in `raw`, or why it cannot be used; ValueError: no name."""
    return parse(raw, BINDING_KIND, _binding)


def render_binding(binding: AzureIdentityBinding) -> dict[str, Any]:
    """Return the object to send to the API server."""
    spec: Fields = {"azureIdentity": binding.identity, "selector": binding.selector}
    if binding.weight:
        spec["weight"] = binding.weight
    return rendered(BINDING_KIND, binding.ref, spec)


def parse_exception(raw: Raw) -> AzurePodIdentityException | Malformed:
    """Return the AzurePodIdentityException in `raw`, or why it cannot be used."""
    return parse(raw, EXCEPTION_KIND, _exception)


def parse_assigned(raw: Raw) -> AzureAssignedIdentity | Malformed:
    """Return the AzureAssignedIdentity in `raw`, or why it cannot be used."""
    return parse(raw, ASSIGNED_KIND, _assigned)


def parse_service_account(raw: Raw) -> WorkloadIdentity | Malformed | ObjectRef:
    """Return what azure-workload-identity's annotations say; the name alone where there are none.

    Raises ValueError where it has no name.
    """
    try:
        meta = _ACCOUNT.decode(raw).metadata
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a {SERVICE_ACCOUNT_KIND}: {error}") from error
    ref = ObjectRef(meta.namespace, meta.name)
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


def _binding(found: Custom) -> AzureIdentityBinding:
    spec = found.spec
    weight = spec.get("weight") or 0
    if not isinstance(weight, int) or isinstance(weight, bool):
        raise wrong("weight", "an integer", weight)
    return AzureIdentityBinding(
        ref=found.ref,
        identity=text(spec, "azureIdentity"),
        selector=text(spec, "selector", LONGEST_LABEL),
        weight=weight,
    )


def _exception(found: Custom) -> AzurePodIdentityException:
    labels = field(found.spec, "podLabels") or {}
    if not isinstance(labels, dict) or not all(isinstance(each, str) for each in labels.values()):
        raise wrong("podLabels", "labels and their values", labels)
    if len(labels) > _MOST or any(map(_is_no_label, labels.items())):
        raise wrong("podLabels", f"at most {_MOST} labels that a pod can have", labels)
    return AzurePodIdentityException(
        ref=found.ref, pod_labels=labels, identities=_identities(found.spec)
    )


def _is_no_label(label: tuple[str, str]) -> bool:
    key, value = label
    # A key may have the name of a domain and a slash before its own.
    return len(key) > LONGEST_NAME + 1 + LONGEST_LABEL or len(value) > LONGEST_LABEL


def _identities(spec: Fields) -> tuple[ClientId | ResourceId, ...]:
    value = field(spec, "azureIdentities") or []
    if not isinstance(value, list):
        raise wrong("azureIdentities", "a list of client ids or resource ids", value)
    if len(value) > _MOST:
        raise wrong("azureIdentities", f"a list of at most {_MOST}", value)
    return tuple(_either(each) for each in value)


def _either(value: object) -> ClientId | ResourceId:
    is_arm = isinstance(value, str) and value.strip().startswith("/")
    try:
        return ResourceId.parse(value) if is_arm else ClientId.parse(value)
    except InvalidId as error:
        raise Unusable(f"spec.azureIdentities {error}") from error


def _assigned(found: Custom) -> AzureAssignedIdentity:
    spec, status = found.spec, found.status
    identity = _reference(spec, "azureIdentityRef")
    state = field(status, "status")
    if state is None or state == "":
        state = Assignment.ASSIGNED  # as releases before 1.6 left it
    if not isinstance(state, str) or state not in set(Assignment):
        raise Unusable(f"status.status must be Created, Assigned or Unassigned, not {shown(state)}")
    return AzureAssignedIdentity(
        ref=found.ref,
        pod=ObjectRef(text(spec, "podNamespace"), text(spec, "pod")),
        identity=identity,
        node=text(spec, "nodename"),
        state=Assignment(state),
    )


def _reference(spec: Fields, name: str) -> ObjectRef:
    """Return the name of the object of which the record carries a copy."""
    copy = field(spec, name) or spec.get(name.lower())
    meta = copy.get("metadata") if isinstance(copy, dict) else None
    if not isinstance(meta, dict):
        raise Unusable(f"spec.{name}.metadata is missing")
    name_of, namespace = field(meta, "name"), field(meta, "namespace") or ""
    if name_of is None or name_of == "":
        raise Unusable(f"spec.{name}.metadata.name is missing")
    return ObjectRef(_short(name, namespace), _short(name, name_of))


def _short(reference: str, value: object) -> str:
    if isinstance(value, str) and len(value) <= LONGEST_NAME:
        return value
    raise wrong(f"{reference}.metadata", "a name and a namespace of Kubernetes", value)

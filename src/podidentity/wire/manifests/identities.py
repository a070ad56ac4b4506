"""AzureIdentities, from JSON to the value of the core and back.

Fields: https://azure.github.io/aad-pod-identity/docs/concepts/azureidentity/ and, for what was
added, docs/reference/compatibility.md.
"""

from __future__ import annotations

import re
from typing import Any

from podidentity.core.authorities import Authority, Tenant
from podidentity.core.ids import ClientId, ObjectId, ObjectRef, ResourceId
from podidentity.core.resources import (
    SYSTEM_ASSIGNED,
    AzureIdentity,
    Entra,
    Federation,
    IdentityType,
    Malformed,
    Subject,
)
from podidentity.wire.manifests.reading import (
    LONGEST_NAME,
    Custom,
    Fields,
    Raw,
    Unusable,
    field,
    optional,
    parse,
    rendered,
    wrong,
)

IDENTITY_KIND = "AzureIdentity"
_BEHAVIOR = "aadpodidentity.k8s.io/Behavior"
_MOST_TENANTS = 3
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)


def parse_identity(raw: Raw) -> AzureIdentity | Malformed:
    """Return the AzureIdentity in `raw`, or why it cannot be used; ValueError: it has no name."""
    return parse(raw, IDENTITY_KIND, _identity)


def render_identity(identity: AzureIdentity) -> dict[str, Any]:
    """Return the object to send to the API server."""
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
    return rendered(IDENTITY_KIND, identity.ref, spec)


def _rendered_entra(entra: Entra) -> Fields:
    spec: Fields = {"tenantID": str(entra.tenant)}
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


def _identity(found: Custom) -> AzureIdentity:
    spec = found.spec
    kind = _type(spec)
    client_id = optional(spec, "clientID", ClientId.parse)
    system = kind is IdentityType.USER_ASSIGNED and _is_system_assigned(spec)
    if client_id is None and not system:
        raise Unusable("spec.clientID is missing")
    if client_id is not None and system:
        raise Unusable(
            f"spec.clientID must not be given where spec.resourceID is {SYSTEM_ASSIGNED}"
        )
    return AzureIdentity(
        ref=found.ref,
        type=kind,
        client_id=client_id,
        resource_id=None if system else optional(spec, "resourceID", ResourceId.parse),
        object_id=optional(spec, "objectID", ObjectId.parse),
        system_assigned=system,
        namespaced=found.annotations.get(_BEHAVIOR) == "namespaced",
        entra=None if kind is IdentityType.USER_ASSIGNED else _entra(found.ref, kind, spec),
    )


def _is_system_assigned(spec: Fields) -> bool:
    value = field(spec, "resourceID")
    return isinstance(value, str) and value.strip().lower() == SYSTEM_ASSIGNED


def _type(spec: Fields) -> IdentityType:
    value = spec.get("type")
    if value is None:
        return IdentityType.USER_ASSIGNED
    if isinstance(value, int) and not isinstance(value, bool) and value in list(IdentityType):
        return IdentityType(value)
    raise wrong("type", "0, 1, 2 or 3", value)


def _entra(ref: ObjectRef, kind: IdentityType, spec: Fields) -> Entra:
    tenant = optional(spec, "tenantID", Tenant.parse)
    if tenant is None:
        raise Unusable("spec.tenantID is missing")
    federated = kind is IdentityType.FEDERATED
    return Entra(
        tenant=tenant,
        authority=optional(spec, "adEndpoint", Authority.parse),
        auxiliary_tenants=_auxiliary(spec),
        secret=None if federated else _secret(ref, spec),
        federation=_federation(spec) if federated else None,
    )


def _auxiliary(spec: Fields) -> tuple[Tenant, ...]:
    value = field(spec, "auxiliaryTenantIDs") or []
    if not isinstance(value, list):
        raise wrong("auxiliaryTenantIDs", "a list", value)
    if len(value) > _MOST_TENANTS:
        raise Unusable(f"spec.auxiliaryTenantIDs has more than {_MOST_TENANTS} tenants")
    entries = {str(number): each for number, each in enumerate(value)}
    found = [optional(entries, name, Tenant.parse, "spec.auxiliaryTenantIDs") for name in entries]
    return tuple(tenant for tenant in found if tenant is not None)


def _secret(ref: ObjectRef, spec: Fields) -> ObjectRef:
    value = field(spec, "clientPassword")
    if not isinstance(value, dict):
        if value is not None:
            raise wrong("clientPassword", "an object with the name of a secret", value)
        raise Unusable("spec.clientPassword is missing")
    name, namespace = field(value, "name"), field(value, "namespace") or ref.namespace
    if name is None or name == "":
        raise Unusable("spec.clientPassword.name is missing")
    return ObjectRef(_named("namespace", namespace), _named("name", name))


def _named(which: str, value: object) -> str:
    """Return a name that Kubernetes gives: it enters a path and a selector."""
    if isinstance(value, str) and len(value) <= LONGEST_NAME and _NAME.fullmatch(value):
        return value
    raise wrong(f"clientPassword.{which}", "a name of Kubernetes", value)


def _federation(spec: Fields) -> Federation:
    value = field(spec, "federation")
    if value is None:
        return Federation()
    if not isinstance(value, dict):
        raise wrong("federation", "an object", value)
    subject, audience = value.get("subject") or Subject.POD, value.get("audience") or ""
    if not isinstance(subject, str) or subject not in set(Subject):
        raise wrong("federation.subject", "pod or identity", subject)
    if not isinstance(audience, str) or len(audience) > 600:
        raise wrong("federation.audience", "a string of at most 600 characters", audience)
    via = optional(value, "via", ResourceId.parse, "spec.federation")
    return Federation(subject=Subject(subject), audience=audience, via=via)

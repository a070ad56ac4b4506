"""Objects of two namespaces for the rules, with short names and small numbers for ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podidentity.core.resources import (
    BINDING_LABEL,
    Assignment,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    ClientId,
    Entra,
    IdentityType,
    ObjectId,
    ObjectRef,
    Pod,
    ResourceId,
    Tenant,
)

TENANT = Tenant.parse("72f988bf-86f1-41af-91ab-2d7cd011db47")


def client_id(number: int) -> ClientId:
    return ClientId.parse(f"00000000-0000-0000-0000-{number:012}")


def object_id(number: int) -> ObjectId:
    return ObjectId.parse(f"10000000-0000-0000-0000-{number:012}")


def resource_id(number: int, group: str = "G") -> ResourceId:
    return ResourceId.parse(
        f"/subscriptions/s/resourceGroups/{group}/providers"
        f"/Microsoft.ManagedIdentity/userAssignedIdentities/id-{number}"
    )


def identity(namespace: str, name: str, number: int = 1, **changes: Any) -> AzureIdentity:
    """Return a user-assigned identity whose three ids are those of `number`."""
    fields: dict[str, Any] = {
        "ref": ObjectRef(namespace, name),
        "type": IdentityType.USER_ASSIGNED,
        "client_id": client_id(number),
        "resource_id": resource_id(number),
        "object_id": object_id(number),
    }
    return AzureIdentity(**(fields | changes))


def principal(namespace: str, name: str, **entra: Any) -> AzureIdentity:
    """Return a service principal whose secret is in its own namespace."""
    fields: dict[str, Any] = {"tenant": TENANT, "secret": ObjectRef(namespace, "secret")}
    return identity(
        namespace,
        name,
        type=IdentityType.SERVICE_PRINCIPAL,
        resource_id=None,
        object_id=None,
        entra=Entra(**(fields | entra)),
    )


def system(namespace: str, name: str) -> AzureIdentity:
    """Return the identity of the node itself."""
    return identity(
        namespace, name, client_id=None, resource_id=None, object_id=None, system_assigned=True
    )


def binding(
    namespace: str, name: str, of: str, selector: str, weight: int = 0
) -> AzureIdentityBinding:
    return AzureIdentityBinding(
        ref=ObjectRef(namespace, name), identity=of, selector=selector, weight=weight
    )


def exception(
    namespace: str,
    name: str,
    labels: Mapping[str, str],
    identities: tuple[ClientId | ResourceId, ...] = (),
) -> AzurePodIdentityException:
    return AzurePodIdentityException(
        ref=ObjectRef(namespace, name), pod_labels=labels, identities=identities
    )


def record(namespace: str, name: str, state: str, **changes: Any) -> AzureAssignedIdentity:
    """Return the controller's word that identity `namespace`/`name` is on node n1 for blue/pod."""
    fields: dict[str, Any] = {
        "ref": ObjectRef("default", f"{namespace}-{name}-{state}"),
        "pod": ObjectRef("blue", "pod"),
        "identity": ObjectRef(namespace, name),
        "node": "n1",
        "state": Assignment(state),
    }
    return AzureAssignedIdentity(**(fields | changes))


def pod(
    namespace: str = "blue",
    selector: str | None = "app",
    more: Mapping[str, str] | None = None,
    **facts: Any,
) -> Pod:
    """Return pod `namespace`/pod of node n1; `more` are labels beside that of the binding."""
    labels = dict(more or {}) | ({} if selector is None else {BINDING_LABEL: selector})
    known: dict[str, Any] = {
        "ref": ObjectRef(namespace, "pod"),
        "uid": "uid",
        "node": "n1",
        "labels": labels,
        "addresses": ("10.244.0.2",),
    }
    return Pod(**(known | facts))

"""The options of `add`, checked against each other before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from podidentity.cli.parameters import SELECTOR
from podidentity.core.resources import (
    AssertionSubject,
    AzureIdentity,
    AzureIdentityBinding,
    ClientId,
    Entra,
    Federation,
    IdentityType,
    ObjectRef,
    ResourceId,
)
from podidentity.wire.rbac import Grantee

_Command = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRequest:
    """The identity to add, and how."""

    ref: ObjectRef
    selector: str
    type: IdentityType = IdentityType.USER_ASSIGNED
    resource_id: ResourceId | None = None
    client_id: ClientId | None = None
    system_assigned: bool = False
    entra: Entra | None = None
    """Set for types 1, 2 and 3."""
    service_account: str = ""
    """"": all service accounts of the namespace."""
    grant: bool = True
    attach: bool = True
    wait: bool = True
    seconds: float | None = None
    """How long to wait for a machine; None: as long as any takes."""

    @property
    def identity(self) -> AzureIdentity:
        return AzureIdentity(
            ref=self.ref,
            type=self.type,
            client_id=self.client_id,
            resource_id=self.resource_id,
            system_assigned=self.system_assigned,
            entra=self.entra,
        )

    @property
    def binding(self) -> AzureIdentityBinding:
        return AzureIdentityBinding(
            ref=binding_ref(self.ref), identity=self.ref.name, selector=self.selector
        )

    @property
    def grantee(self) -> Grantee:
        return Grantee(self.ref.namespace, self.service_account)

    @property
    def on_machines(self) -> bool:
        return self.type is IdentityType.USER_ASSIGNED and not self.system_assigned


def binding_ref(identity: ObjectRef) -> ObjectRef:
    """Return the name of the binding that `add` creates, the same as in AKS's add-on."""
    return ObjectRef(identity.namespace, f"{identity.name}-binding")


def add_request_of(given: Mapping[str, Any]) -> AddRequest:
    kind = _type(given)
    _needed(kind, given)
    name = given["name"]
    context = click.get_current_context()
    return AddRequest(
        ref=ObjectRef(given["namespace"], name),
        selector=given["binding_selector"] or SELECTOR.convert(name, None, context),
        type=kind,
        resource_id=given["identity_resource_id"],
        client_id=given["client_id"],
        system_assigned=given["system_assigned"],
        entra=_entra(kind, given),
        service_account=given["service_account"] or "",
        grant=given["grant"],
        attach=given["attach"],
        wait=given["wait"],
        seconds=given["timeout"],
    )


def _type(given: Mapping[str, Any]) -> IdentityType:
    implied = 3 if given["federated"] else 1 if given["secret"] else 0
    kind = IdentityType(implied if given["number"] is None else int(given["number"]))
    if given["federated"] and kind is not IdentityType.FEDERATED:
        raise click.UsageError("--federated and --type contradict.")
    return kind


# The options of each type; other types refuse them.
_TYPED = ("identity_resource_id", "system_assigned", "client_id", "tenant_id", "secret")
_FEDERATED = ("subject", "via")
_FIELDS: dict[IdentityType, tuple[str, ...]] = {
    IdentityType.USER_ASSIGNED: ("identity_resource_id", "system_assigned", "client_id"),
    IdentityType.SERVICE_PRINCIPAL: ("client_id", "tenant_id", "secret"),
    IdentityType.CERTIFICATE: ("client_id", "tenant_id", "secret"),
    IdentityType.FEDERATED: ("identity_resource_id", "client_id", "tenant_id", *_FEDERATED),
}


def _needed(kind: IdentityType, given: Mapping[str, Any]) -> None:
    for name in (*_TYPED, *_FEDERATED):
        if given[name] and name not in _FIELDS[kind]:
            raise click.UsageError(f"{_flag(name)} is not for type {kind.value}.")
    if kind is IdentityType.USER_ASSIGNED:
        _needed_of_managed(given)
    elif kind is IdentityType.FEDERATED:
        if not given["tenant_id"] or not (given["client_id"] or given["identity_resource_id"]):
            raise click.UsageError(
                "Type 3 needs --tenant-id, and --client-id or --identity-resource-id."
            )
        if given["subject"] and given["via"]:
            raise click.UsageError("--subject is not for --via: the managed identity signs in.")
    elif not all(given[name] for name in _FIELDS[kind]):
        needs = ", ".join(map(_flag, _FIELDS[kind]))
        raise click.UsageError(f"Type {kind.value} needs {needs}.")


def _needed_of_managed(given: Mapping[str, Any]) -> None:
    if bool(given["identity_resource_id"]) == given["system_assigned"]:
        raise click.UsageError("--identity-resource-id or --system-assigned is needed.")
    if given["system_assigned"] and given["client_id"]:
        raise click.UsageError("--system-assigned has no --client-id.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _entra(kind: IdentityType, given: Mapping[str, Any]) -> Entra | None:
    if kind is IdentityType.USER_ASSIGNED:
        return None
    if kind is not IdentityType.FEDERATED:
        secret = ObjectRef(given["namespace"], given["secret"])
        return Entra(tenant=given["tenant_id"], secret=secret)
    subject = AssertionSubject(given["subject"] or AssertionSubject.POD)
    federation = Federation(subject=subject, via=given["via"])
    return Entra(tenant=given["tenant_id"], federation=federation)

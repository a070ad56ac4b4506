"""The `podIdentityProfile` of a cluster: what a request asks for, and how it is shown.

https://learn.microsoft.com/rest/api/aks/managed-clusters/create-or-update. How a missing feature is
worded, people met in https://github.com/Azure/azure-quickstart-templates/issues/12928 and, with the
link, in https://github.com/Azure/azure-cli-extensions/issues/3807; the words for malformed values
are ours.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec.structs import replace

from podidentity_sandbox.azure.arm.call import ArmError
from podidentity_sandbox.azure.state import Located, Principal

# ---- The profile, as its JSON has it

LIMIT = 200
"""Identities, and exceptions, of a cluster:
https://learn.microsoft.com/azure/aks/use-azure-ad-pod-identity#limitations."""
Namespace = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?)?\Z")]
ResourceId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"(?i)^/subscriptions/[^/]+/resourcegroups/[^/]+"
        r"/providers/microsoft\.managedidentity/userassignedidentities/[^/]+\Z"
    ),
]


class IdentityIds(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The names of a managed identity."""

    resource_id: ResourceId
    client_id: str | None = None
    object_id: str | None = None


class PodIdentity(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A managed identity for pods of a namespace, and how far its assignment is."""

    name: Name | None = None
    """None in a request that leaves it to AKS."""
    namespace: Namespace
    identity: IdentityIds
    binding_selector: str | None = None
    """None: the name."""
    provisioning_state: str = ""
    """Assigned, Updating, Deleting or Failed."""
    provisioning_info: Any = None
    """The error, where it failed."""

    def settled(self, error: ArmError | None) -> PodIdentity:
        """Return it once its assignment has succeeded, or failed with that error."""
        if error is None:
            return replace(self, provisioning_state="Assigned", provisioning_info=None)
        info = {"error": {"error": {"code": error.code, "message": str(error)}}}
        return replace(self, provisioning_state="Failed", provisioning_info=info)


class PodException(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Pods, by their labels, that reach IMDS directly."""

    name: Name | None = None
    namespace: Namespace
    pod_labels: dict[str, str]


class AddOn(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The pod identity add-on of a cluster."""

    enabled: bool | None = None
    allow_network_plugin_kubenet: bool | None = None
    """Whether it was accepted that kubenet lets pods forge addresses."""
    user_assigned_identities: (
        Annotated[tuple[PodIdentity, ...], msgspec.Meta(max_length=LIMIT)] | None
    ) = None
    user_assigned_identity_exceptions: (
        Annotated[tuple[PodException, ...], msgspec.Meta(max_length=LIMIT)] | None
    ) = None

    @property
    def identities(self) -> tuple[PodIdentity, ...]:
        return self.user_assigned_identities or ()

    @property
    def exceptions(self) -> tuple[PodException, ...]:
        return self.user_assigned_identity_exceptions or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedCluster(Located):
    """The cluster whose nodes the sandbox runs."""

    TYPE: ClassVar[str] = "Microsoft.ContainerService/managedClusters"
    principal: Principal
    """By which the cluster acts in Azure."""
    kubelet_id: str
    """Resource id of the identity of its nodes."""
    add_on: AddOn | None = None
    """None until it was first mentioned."""
    attached: frozenset[str] = frozenset()
    """Ids, in lower case, of identities that AKS gave to the nodes, and so takes away again."""
    state: str = "Succeeded"


def wanted(sent: object, old: AddOn | None) -> AddOn:
    """Return the add-on that `sent` asks for; what is to go stays as Deleting. Raises ArmError."""
    try:
        asked = msgspec.convert(sent, AddOn)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from error
    if not asked.enabled:
        asked = AddOn(enabled=False)
    known = {_key(one): one for one in old.identities} if old else {}
    identities: dict[tuple[str, str], PodIdentity] = {}
    for one in asked.identities:
        named = replace(one, name=one.name or f"pod-identity-{uuid.uuid4().hex[:8]}")
        key = _key(named)
        if key in identities:
            raise _bad(f"pod identity {'/'.join(key)} is there twice")
        before = known.get(key)
        same = before and before.provisioning_state == "Assigned" and _asks(before) == _asks(named)
        new = replace(named, provisioning_state="Updating", provisioning_info=None)
        identities[key] = before if before and same else new
    going = [
        replace(one, provisioning_state="Deleting", provisioning_info=None)
        for key, one in known.items()
        if key not in identities
    ]
    exceptions: dict[tuple[str, str], PodException] = {}
    for each in asked.exceptions:
        excepted = replace(each, name=each.name or f"pod-identity-{uuid.uuid4().hex[:8]}")
        if _key(excepted) in exceptions:
            raise _bad(f"exception {'/'.join(_key(excepted))} is there twice")
        exceptions[_key(excepted)] = excepted
    return replace(
        asked,
        user_assigned_identities=(*identities.values(), *going) or None,
        user_assigned_identity_exceptions=tuple(exceptions.values()) or None,
    )


def rendered(add_on: AddOn) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(add_on)
    return shown


def _key(one: PodIdentity | PodException) -> tuple[str, str]:
    """Return namespace and name, which no other of the cluster has."""
    return one.namespace, one.name or ""


def _asks(one: PodIdentity) -> tuple[str | None, ...]:
    ids = one.identity
    return one.binding_selector, ids.resource_id.lower(), ids.client_id, ids.object_id


def _bad(why: str) -> ArmError:
    message = f"The value of parameter podIdentityProfile is invalid: {why}."
    return ArmError(400, "InvalidParameter", message)

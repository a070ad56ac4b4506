"""The `podIdentityProfile` of a cluster: what a request asks for, and how it is shown.

https://learn.microsoft.com/rest/api/aks/managed-clusters/create-or-update. How a missing feature is
worded, people met in https://github.com/Azure/azure-quickstart-templates/issues/12928 and, with the
link, in https://github.com/Azure/azure-cli-extensions/issues/3807; the words for malformed values
are ours.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from podidentity_sandbox.azure.arm.call import ArmError
from podidentity_sandbox.azure.state import Located, Principal

# ---- A managed cluster with its add-on, as frozen values


@dataclass(frozen=True, slots=True, kw_only=True)
class PodIdentity:
    """A managed identity for pods of a namespace, and how far its assignment is."""

    namespace: str
    name: str
    selector: str | None
    """None: the name."""
    resource_id: str
    client_id: str
    object_id: str
    state: str = "Updating"
    """Assigned, Updating, Deleting or Failed."""
    error: tuple[str, str] | None = None
    """Code and message, where it failed."""

    @property
    def key(self) -> tuple[str, str]:
        """A key that no other pod identity of the cluster has."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PodException:
    """Pods, by their labels, that reach IMDS directly."""

    namespace: str
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOn:
    """The pod identity add-on of a cluster."""

    enabled: bool = False
    kubenet: bool = False
    """Whether it was accepted that kubenet lets pods forge addresses."""
    identities: tuple[PodIdentity, ...] = ()
    exceptions: tuple[PodException, ...] = ()


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


# ---- The profile

LIMIT = 200
"""Identities, and exceptions, of a cluster:
https://learn.microsoft.com/azure/aks/use-azure-ad-pod-identity#limitations."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_IDENTITY = re.compile(
    r"/subscriptions/[^/]+/resourcegroups/[^/]+"
    r"/providers/microsoft\.managedidentity/userassignedidentities/[^/]+",
    re.IGNORECASE,
)


def wanted(sent: object, old: AddOn | None) -> AddOn:
    """Return the add-on that `sent` asks for; what is to go stays as Deleting. Raises ArmError."""
    profile = _object(sent, "podIdentityProfile")
    enabled = bool(profile.get("enabled"))
    known = {one.key: one for one in old.identities} if old else {}
    identities = _identities(profile, known) if enabled else {}
    going = [
        replace(one, state="Deleting", error=None)
        for key, one in known.items()
        if key not in identities
    ]
    return AddOn(
        enabled=enabled,
        kubenet=enabled and bool(profile.get("allowNetworkPluginKubenet")),
        identities=(*identities.values(), *going),
        exceptions=_exceptions(profile) if enabled else (),
    )


def feature_missing() -> ArmError:
    """Return the refusal of a subscription without the preview feature."""
    return ArmError(
        400,
        "BadRequest",
        "PodIdentity addon is not allowed since feature"
        " 'Microsoft.ContainerService/EnablePodIdentityPreview' is not enabled. Please see"
        " https://aka.ms/aks/previews for how to enable features.",
    )


def rendered(add_on: AddOn) -> dict[str, Any]:
    """Return the profile as ARM shows it."""
    answer: dict[str, Any] = {"enabled": add_on.enabled}
    if add_on.kubenet:
        answer["allowNetworkPluginKubenet"] = True
    if add_on.identities:
        answer["userAssignedIdentities"] = [_shown(one) for one in add_on.identities]
    if add_on.exceptions:
        answer["userAssignedIdentityExceptions"] = [
            {"name": one.name, "namespace": one.namespace, "podLabels": dict(one.labels)}
            for one in add_on.exceptions
        ]
    return answer


def _shown(one: PodIdentity) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "name": one.name,
        "namespace": one.namespace,
        "identity": {
            "resourceId": one.resource_id,
            "clientId": one.client_id,
            "objectId": one.object_id,
        },
        "provisioningState": one.state,
    }
    if one.selector:
        answer["bindingSelector"] = one.selector
    if one.error:
        code, message = one.error
        # Twice `error`: so it is in Azure's own specification.
        answer["provisioningInfo"] = {"error": {"error": {"code": code, "message": message}}}
    return answer


def _identities(
    profile: Mapping[str, Any], known: Mapping[tuple[str, str], PodIdentity]
) -> dict[tuple[str, str], PodIdentity]:
    found: dict[tuple[str, str], PodIdentity] = {}
    for where, item in _items(profile, "userAssignedIdentities"):
        asked = _identity(item, where)
        if asked.key in found:
            raise _bad(where, f"pod identity {asked.namespace}/{asked.name} is there twice")
        old = known.get(asked.key)
        same = old and _asks(old) == _asks(asked) and old.state == "Assigned"
        found[asked.key] = old if old and same else asked
    return found


def _asks(one: PodIdentity) -> tuple[str | None, ...]:
    return one.selector, one.resource_id.lower(), one.client_id, one.object_id


def _identity(item: Mapping[str, Any], where: str) -> PodIdentity:
    identity = _object(item.get("identity"), f"{where}.identity")
    resource_id = str(identity.get("resourceId") or "")
    if not _IDENTITY.fullmatch(resource_id):
        raise _bad(f"{where}.identity.resourceId", f"'{resource_id}' is no id of an identity")
    selector = item.get("bindingSelector")
    return PodIdentity(
        namespace=_namespace(item, where),
        name=_name(item, where),
        selector=str(selector) if selector else None,
        resource_id=resource_id,
        client_id=str(identity.get("clientId") or ""),
        object_id=str(identity.get("objectId") or ""),
    )


def _exceptions(profile: Mapping[str, Any]) -> tuple[PodException, ...]:
    found: dict[tuple[str, str], PodException] = {}
    for where, item in _items(profile, "userAssignedIdentityExceptions"):
        labels = _object(item.get("podLabels"), f"{where}.podLabels")
        if not all(isinstance(value, str) for value in labels.values()):
            raise _bad(f"{where}.podLabels", "labels are strings")
        one = PodException(
            namespace=_namespace(item, where), name=_name(item, where), labels=dict(labels)
        )
        if (one.namespace, one.name) in found:
            raise _bad(where, f"exception {one.namespace}/{one.name} is there twice")
        found[one.namespace, one.name] = one
    return tuple(found.values())


def _items(profile: Mapping[str, Any], kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    items = profile.get(kind) or []
    where = f"podIdentityProfile.{kind}"
    if not isinstance(items, list) or len(items) > LIMIT:
        raise _bad(where, f"a list of {LIMIT} at most")
    return [(f"{where}[{n}]", _object(item, f"{where}[{n}]")) for n, item in enumerate(items)]


def _namespace(item: Mapping[str, Any], where: str) -> str:
    namespace = str(item.get("namespace") or "")
    if not _LABEL.fullmatch(namespace):
        raise _bad(f"{where}.namespace", f"'{namespace}' is no name of a namespace")
    return namespace


def _name(item: Mapping[str, Any], where: str) -> str:
    name = str(item.get("name") or "") or f"pod-identity-{uuid.uuid4().hex[:8]}"
    if not _NAME.fullmatch(name):
        raise _bad(f"{where}.name", f"'{name}' is no name of an object")
    return name


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad(where, "an object is required")
    return value


def _bad(where: str, why: str) -> ArmError:
    message = f"The value of parameter {where} is invalid: {why}."
    return ArmError(400, "InvalidParameter", message)

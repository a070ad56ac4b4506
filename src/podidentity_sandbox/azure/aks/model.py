"""A managed cluster with its pod identity add-on, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from podidentity_sandbox.azure.directory import Principal

KIND = "Microsoft.ContainerService/managedClusters"


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
        """What no other pod identity of the cluster shares."""
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
class ManagedCluster:
    """The cluster whose nodes the sandbox runs."""

    id: str
    name: str
    location: str
    tags: Mapping[str, str]
    principal: Principal
    """By which the cluster acts in Azure."""
    kubelet_id: str
    """Resource id of the identity of its nodes."""
    add_on: AddOn | None = None
    """None until it was first mentioned."""
    attached: frozenset[str] = frozenset()
    """Ids, in lower case, of identities that AKS gave to the nodes, and so takes away again."""
    state: str = "Succeeded"

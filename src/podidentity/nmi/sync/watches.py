"""The watches that fill the WatchedCluster, and their state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from podidentity.adapters.cluster import Custom, WatchedCluster
from podidentity.adapters.reflector import ObjectLog, Reflectors, Source
from podidentity.core.budgets import BUDGETS
from podidentity.core.decision import as_it_counts
from podidentity.core.ports import Clock
from podidentity.core.resources import AzurePodIdentityException, Malformed, ObjectRef, Pod
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    PODS,
    SERVICE_ACCOUNTS,
    KubeApi,
    Resource,
)
from podidentity.wire.manifests import (
    ASSIGNED_KIND,
    BINDING_KIND,
    EXCEPTION_KIND,
    IDENTITY_KIND,
    SERVICE_ACCOUNT_KIND,
    parse_assigned,
    parse_binding,
    parse_exception,
    parse_identity,
    parse_service_account,
)
from podidentity.wire.pods import parse_pod

_log = logging.getLogger("podidentity.watch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The objects that the agent watches beside the custom resources of all namespaces."""

    node: str
    records: bool = False
    """The controller's AzureAssignedIdentities, in standard mode."""
    labelled: bool = True
    """Only records with the node's name as a label (`--enableScaleFeatures`)."""
    exception_namespaces: frozenset[str] | None = None
    """Where exceptions count; None: everywhere."""


_Parsed = Custom | ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A kind of objects, and how they are parsed."""

    name: str
    resource: Resource
    parse: Callable[[msgspec.Raw], _Parsed]


_KINDS = (
    _Kind(name=IDENTITY_KIND, resource=AZURE_IDENTITIES, parse=parse_identity),
    _Kind(name=BINDING_KIND, resource=AZURE_IDENTITY_BINDINGS, parse=parse_binding),
    _Kind(name=EXCEPTION_KIND, resource=AZURE_POD_IDENTITY_EXCEPTIONS, parse=parse_exception),
    _Kind(name=SERVICE_ACCOUNT_KIND, resource=SERVICE_ACCOUNTS, parse=parse_service_account),
)
_RECORDS = _Kind(name=ASSIGNED_KIND, resource=AZURE_ASSIGNED_IDENTITIES, parse=parse_assigned)


class Watches(Reflectors):
    """Keeps `cluster` equal to the objects of the API server."""

    def __init__(
        self,
        server: KubeApi,
        cluster: WatchedCluster,
        clock: Clock,
        *,
        scope: Scope,
    ) -> None:
        self._cluster, self._scope = cluster, scope
        self._told: dict[tuple[str, ObjectRef], Malformed] = {}
        self._objects = ObjectLog(clock)
        sources = [
            Source(
                what=f"pods of node {scope.node}",
                path=PODS.path(),
                params={"fieldSelector": f"spec.nodeName={scope.node}"},
                put=self._put_pod,
                remove=cluster.remove_pod,
                listed=self._listed,
                budget=BUDGETS["Pod"].namespace,
            )
        ]
        sources += [self._source(kind) for kind in _KINDS]
        if scope.records:
            labelled = {"labelSelector": f"nodename={scope.node}"} if scope.labelled else {}
            sources.append(self._source(_RECORDS, labelled))
        super().__init__(server, sources, clock)

    def _source(self, kind: _Kind, params: Mapping[str, str] | None = None) -> Source:
        return Source(
            what=kind.resource.plural,
            path=kind.resource.path(),
            params=dict(params or {}),
            put=lambda raw: self._put(kind, kind.parse(raw)),
            remove=lambda ref: self._remove(kind.name, ref),
            listed=self._listed,
            budget=BUDGETS[kind.name].namespace,
            left_out=lambda namespace, ref: self._cluster.leave_out(kind.name, namespace, ref),
        )

    def _listed(self) -> None:
        if not self._cluster.synced and self.all_read:
            self._cluster.mark_synced()
            _log.info("the cluster has been read: requests can be decided")

    def _put_pod(self, raw: msgspec.Raw) -> Pod:
        pod = parse_pod(raw)
        self._cluster.put_pod(pod)
        return pod

    def _put(self, kind: _Kind, found: _Parsed) -> _Parsed:
        if isinstance(found, ObjectRef):
            # A service account without annotations; it may have had some before.
            self._remove(kind.name, found)
            return found
        if isinstance(found, Malformed):
            self._warn(found)
        else:
            self._told.pop((kind.name, found.ref), None)
        if isinstance(found, AzurePodIdentityException):
            found = as_it_counts(found, self._scope.exception_namespaces)
        self._cluster.put(found)
        return found

    def _remove(self, kind: str, ref: ObjectRef) -> None:
        self._told.pop((kind, ref), None)
        self._cluster.remove(kind, ref)

    def _warn(self, found: Malformed) -> None:
        """Log each unusable object once."""
        if self._told.get((found.kind, found.ref)) != found:
            self._told[found.kind, found.ref] = found
            told = "%s %s cannot be used: %s"
            self._objects.warning(found.ref.namespace, told, found.kind, found.ref, found.why)

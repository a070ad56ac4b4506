"""What MIC watches at the API server, told to the controller as events.

    pods with the binding label · nodes · AzureIdentities · bindings · exceptions
    AzureAssignedIdentities · the ConfigMap that pauses MIC · where RBAC decides, its
    ClusterRoles and ClusterRoleBindings

While one list must be read anew because the API server may have another history, as after etcd was
put back, a record may be known before the pod that needs it. So all are read anew then, and until
each was the controller deletes and detaches nothing.

An update that changes nothing of what the controller knows is not told. Of identities, bindings and
exceptions the objects themselves are kept: records hold copies of them. All replicas watch, so that
the next leader begins with what it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf

import msgspec

from podidentity.adapters.reflector import ObjectLog, Reflectors, Source
from podidentity.core.budgets import BUDGETS
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.ports import Clock
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    ObjectRef,
    Pod,
)
from podidentity.mic.calls import (
    LISTS,
    About,
    BindingSeen,
    Event,
    ExceptionSeen,
    IdentitySeen,
    NodeGone,
    NodeSeen,
    ObjectGone,
    Pausing,
    PermissionsChanged,
    PodGone,
    PodSeen,
    RecordGone,
    RecordSeen,
    StoredRecord,
    Synced,
    Unclear,
)
from podidentity.mic.grants import Grants
from podidentity.mic.objects import (
    Live,
    parse_config_map,
    parse_live,
    parse_record,
)
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    NODES,
    PODS,
    KubeApi,
    Resource,
)
from podidentity.wire.manifests import (
    ASSIGNED_KIND,
    parse_binding,
    parse_exception,
    parse_identity,
)
from podidentity.wire.nodes import parse_provider_id
from podidentity.wire.pauses import PAUSES, Pauses, parse_pauses
from podidentity.wire.pods import parse_pod

Tell = Callable[[Event], None]

_OF_RECORDS = 4
"""MIC reads the records of all nodes, NMI those of one. In cross-namespace mode one namespace has
them all, and 64 MiB hold 27,000."""

_log = logging.getLogger("podidentity.watch")


class ControllerWatches(Reflectors):
    """Follows the cluster, and tells its follower each event."""

    def __init__(
        self, server: KubeApi, clock: Clock, *, namespace: str, asks_permission: bool
    ) -> None:
        """`namespace` is MIC's own; `asks_permission`: whether RBAC decides."""
        self._tell: Tell = lambda _: None
        self.synced = False
        self._doubts = False
        """As the controller was told."""
        self._objects = ObjectLog(clock)
        self._pods: dict[ObjectRef, str] = {}
        self._nodes: dict[str, str] = {}
        self._live: dict[About, dict[ObjectRef, Live]] = {about: {} for about in About}
        self._records: dict[ObjectRef, str] = {}
        self._too_large: set[tuple[About, ObjectRef]] = set()
        self._grants = Grants()
        self.pauses = Pauses()
        labelled = {"labelSelector": BINDING_LABEL}
        named = {"fieldSelector": f"metadata.name={PAUSES}"}
        sources = [
            self._source(PODS, self._put_pod, self._remove_pod, kind="Pod", **labelled),
            self._source(NODES, self._put_node, self._remove_node),
            *(
                self._source(
                    resource, partial(self._put, about), partial(self._remove, about), kind=about
                )
                for about, resource in _RESOURCES.items()
            ),
            self._source(
                AZURE_ASSIGNED_IDENTITIES,
                self._put_record,
                self._remove_record,
                kind=ASSIGNED_KIND,
            ),
            self._source(
                CONFIG_MAPS,
                lambda raw: self._pause(parse_pauses(parse_config_map(raw))),
                lambda _: self._pause(Pauses()),
                namespace=namespace,
                **named,
            ),
        ]
        if asks_permission:
            sources += [
                self._source(
                    CLUSTER_ROLES,
                    lambda raw: self._permit(self._grants.put_role(raw)),
                    lambda ref: self._permit(self._grants.remove_role(ref.name)),
                ),
                self._source(
                    CLUSTER_ROLE_BINDINGS,
                    lambda raw: self._permit(self._grants.put_binding(raw)),
                    lambda ref: self._permit(self._grants.remove_binding(ref.name)),
                ),
            ]
        super().__init__(server, sources, clock)

    def _source(
        self,
        resource: Resource,
        put: Callable[[msgspec.Raw], object],
        remove: Callable[[ObjectRef], None],
        *,
        kind: str = "",
        namespace: str = "",
        **params: str,
    ) -> Source:
        times = _OF_RECORDS if kind == ASSIGNED_KIND else 1
        return Source(
            what=resource.plural,
            path=resource.path(namespace),
            params=params,
            put=put,
            remove=remove,
            listed=self._listed,
            doubted=self._doubt,
            budget=times * BUDGETS[kind].namespace if kind else inf,
            left_out=lambda place, ref: self._tell(Unclear(place, kind, ref is not None)),
        )

    def follow(self, tell: Tell) -> None:
        """Have `tell` get each event; before `run`."""
        self._tell = tell

    def live(self, about: About, ref: ObjectRef) -> Live | None:
        return self._live[about].get(ref)

    # Callbacks

    def _listed(self) -> None:
        if not self.synced and self.all_read:
            self.synced = True
            _log.info("the cluster has been read: %s pods need identities", len(self._pods))
            self._tell(Synced())
        if self._doubts and self._all_anew:
            self._doubts = False
            self._tell(Unclear("", LISTS, holds=False))

    def _doubt(self) -> None:
        self._doubts = True
        self._tell(Unclear("", LISTS, holds=True))
        for each in self.followed():
            each.renew()

    @property
    def certain(self) -> bool:
        return self.all_followed and self._all_anew

    @property
    def _all_anew(self) -> bool:
        return all(each.anew for each in self.followed())

    def _put_pod(self, raw: msgspec.Raw) -> Pod:
        pod = parse_pod(raw)
        before = self._pods.get(pod.ref)
        if before not in {None, pod.uid}:
            self._tell(PodGone(pod.ref, str(before)))
        self._pods[pod.ref] = pod.uid
        self._tell(PodSeen(pod))
        return pod

    def _remove_pod(self, ref: ObjectRef) -> None:
        uid = self._pods.pop(ref, None)
        if uid is not None:
            self._tell(PodGone(ref, uid))

    def _put_node(self, raw: msgspec.Raw) -> None:
        name, provider_id = _name(raw), parse_provider_id(raw)
        if self._nodes.get(name) != provider_id:
            self._nodes[name] = provider_id
            self._tell(NodeSeen(name, provider_id))

    def _remove_node(self, ref: ObjectRef) -> None:
        if self._nodes.pop(ref.name, None) is not None:
            self._tell(NodeGone(ref.name))

    def _put(self, about: About, raw: msgspec.Raw) -> _Parsed:
        live = parse_live(raw, about)
        found = _PARSERS[about](raw)
        is_too_large = isinstance(found, Malformed) and found.left_out
        self._note_too_large(about, live.ref, holds=is_too_large)
        before = self._live[about].get(live.ref)
        if isinstance(found, Malformed) or about is About.EXCEPTION:
            live = replace(live, copy=b"")
        self._live[about][live.ref] = live
        is_news = before is None or before.revision != live.revision
        if is_news and isinstance(found, Malformed):
            told = "%s %s cannot be used: %s"
            self._objects.warning(found.ref.namespace, told, found.kind, found.ref, found.why)
        self._tell(_seen(found, live))
        return found

    def _note_too_large(self, about: About, ref: ObjectRef, *, holds: bool) -> None:
        if holds != ((about, ref) in self._too_large):
            self._too_large ^= {(about, ref)}
            self._tell(Unclear(ref.namespace, f"{about} {ref.name}", holds))

    def _remove(self, about: About, ref: ObjectRef) -> None:
        self._note_too_large(about, ref, holds=False)
        if self._live[about].pop(ref, None) is not None:
            self._tell(ObjectGone(about, ref))

    def _put_record(self, raw: msgspec.Raw) -> StoredRecord:
        stored = parse_record(raw)
        before = self._records.get(stored.ref)
        if before not in {None, stored.uid}:
            self._tell(RecordGone(stored.ref, str(before)))
        self._records[stored.ref] = stored.uid
        self._tell(RecordSeen(stored))
        return stored

    def _remove_record(self, ref: ObjectRef) -> None:
        uid = self._records.pop(ref, None)
        if uid is not None:
            self._tell(RecordGone(ref, uid))

    def _permit(self, namespaces: set[str]) -> None:
        for each in [None] if "" in namespaces else sorted(namespaces):
            self._tell(PermissionsChanged(each))

    def _pause(self, pauses: Pauses) -> None:
        if pauses == self.pauses:
            return
        self.pauses = pauses
        _log.warning("%s", pauses)
        self._tell(Pausing(pauses.all, frozenset(filter(None, map(_host, pauses.hosts)))))


_Parsed = AzureIdentity | AzureIdentityBinding | AzurePodIdentityException | Malformed
_PARSERS: dict[About, Callable[[msgspec.Raw], _Parsed]] = {
    About.IDENTITY: parse_identity,
    About.BINDING: parse_binding,
    About.EXCEPTION: parse_exception,
}


def _seen(found: _Parsed, live: Live) -> Event:
    condition, revision = live.condition, live.revision
    kind = found.kind if isinstance(found, Malformed) else type(found).__name__
    if kind == About.IDENTITY:
        return IdentitySeen(identity=found, revision=revision, condition=condition)  # type: ignore[arg-type] # by its kind
    if kind == About.BINDING:
        return BindingSeen(binding=found, revision=revision, condition=condition)  # type: ignore[arg-type] # by its kind
    return ExceptionSeen(exception=found, condition=condition)  # type: ignore[arg-type] # by its kind


_RESOURCES = {
    About.IDENTITY: AZURE_IDENTITIES,
    About.BINDING: AZURE_IDENTITY_BINDINGS,
    About.EXCEPTION: AZURE_POD_IDENTITY_EXCEPTIONS,
}


def _host(text: str) -> Host | None:
    try:
        return Host.parse(text)
    except NotAnAzureNode as error:
        _log.warning("ConfigMap %s: %s", PAUSES, error)
        return None


class _Meta(msgspec.Struct):
    name: str = ""


class _Named(msgspec.Struct):
    metadata: _Meta


_NAMED = msgspec.json.Decoder(_Named)


def _name(raw: msgspec.Raw) -> str:
    return _NAMED.decode(raw).metadata.name

"""Which identities each pod and each host should have, kept up to date event by event.

The rules are those by which NMI decides a request (`decision.match`, and RBAC's permission to use):
a pod gets a record exactly where a request of it could be allowed. An event touches only the pods
that it concerns, so that it costs the same in a cluster of two hundred pods and of twenty thousand.
The result depends on the objects alone, not on the order in which they came.

A namespace may bind hundreds of identities to thousands of pods, and the needs of each pod are
kept. So the more there would be, the fewer bindings of each pod count (`shares`): by what there is,
so that this depends on no order either.

A pod without a node needs nothing yet, and one whose processes have ended nothing any more. Only a
user-assigned identity (type 0) is attached to a machine. A pod of the node's network, which asks
IMDS itself, counts only by the operator's choice (`node_network`), and then as any other. Two pods
are told apart by their uid where the second has the name of the first; ids of Azure are compared
without case.

Where identities are attached to all hosts alike (`everywhere`), what counts is which identities
pods of the cluster may use, and those that a binding offers to the default service account of its
namespace: so a new node is ready before its first pod.

https://azure.github.io/aad-pod-identity/docs/concepts/azureassignedidentity/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import NamedTuple, TypeVar

from podidentity.core.decision import Entitlement, Rules, Use, match, uses_of
from podidentity.core.hosts import Host
from podidentity.core.indexes import BindingIndex
from podidentity.core.ledger import Wanted
from podidentity.core.permissions import Asked, IdentityPermission, NeededPermissions
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    IdentityType,
    Malformed,
    ObjectRef,
    Pod,
    ResourceId,
    WorkloadIdentity,
)
from podidentity.core.shares import SHARES, Shares

LONGEST_NAME = 253
"""Characters of an object's name.
https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""
_KEPT = 230
_OFFERED = "*"
"""Begins the name of what stands for the future pods of a binding; no pod has such a name."""
_CROSS_NAMESPACE = "default"
"""The namespace of records about identities that any namespace may use, as it was before."""

_K = TypeVar("_K")
_M = TypeVar("_M")
_V = TypeVar("_V")


class Key(NamedTuple):
    """What a record is about: an identity of a pod."""

    pod: ObjectRef
    identity: ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """An identity that a pod needs."""

    pod: ObjectRef
    uid: str
    node: str
    identity: AzureIdentity
    binding: AzureIdentityBinding
    host: Host | None = None
    """Where it must be attached; None if it need not, or on every host."""
    decided: bool
    """Whether the permission is known: until then nothing is given, and nothing taken."""

    @property
    def key(self) -> Key:
        return Key(self.pod, self.identity.ref)


@dataclass(slots=True)
class Changes:
    """What differs since the last time."""

    records: dict[ObjectRef, None] = field(default_factory=dict)
    """Names of records for which another need holds, or none any more."""
    hosts: dict[Host, None] = field(default_factory=dict)
    questions: dict[Use, None] = field(default_factory=dict)
    """Permissions that are not known, and were not asked for before."""
    identities: dict[ObjectRef, None] = field(default_factory=dict)
    """Those whose `permission` may be another one."""
    shares: dict[str, int] = field(default_factory=dict)
    """Namespaces with a pod of which not all bindings count, and how many of each pod do; as long
    as a namespace needs anything, told again only of fewer."""


def attachment(identity: AzureIdentity) -> ResourceId | None:
    """Return the id to attach to the pod's host; None for an identity that is not attached."""
    if identity.type is not IdentityType.USER_ASSIGNED or identity.system_assigned:
        return None
    return identity.resource_id


def is_attachable(identity: AzureIdentity) -> bool:
    """Whether a record of the identity can ever say Assigned: one of type 0 needs its ARM id."""
    is_user_assigned = identity.type is IdentityType.USER_ASSIGNED and not identity.system_assigned
    return not is_user_assigned or identity.resource_id is not None


class Assignments:
    """The desired state. It is the Directory of `decision.match`, for all pods with the label."""

    def __init__(
        self, rules: Rules, *, everywhere: bool = False, asks: bool, node_network: bool = False
    ) -> None:
        self._rules = rules
        self._everywhere = everywhere
        self._node_network = node_network
        self._asks = asks
        self._pods: dict[ObjectRef, Pod] = {}
        self._hosts: dict[str, Host] = {}
        """By node."""
        self._nodes: dict[Host, dict[str, None]] = {}
        self._identities: dict[ObjectRef, AzureIdentity | Malformed] = {}
        self._bindings = BindingIndex()
        self._exceptions: dict[str, dict[ObjectRef, AzurePodIdentityException]] = {}
        self._permissions = NeededPermissions()

        # Indexes: from what changes to the pods that it concerns.
        self._pods_by_selector: dict[str, dict[str, dict[ObjectRef, None]]] = {}
        self._pods_by_namespace: dict[str, dict[ObjectRef, None]] = {}
        self._pods_by_node: dict[str, dict[ObjectRef, None]] = {}
        self._shares = Shares(cross_namespace=rules.cross_namespace)
        self._bindings_by_identity: dict[ObjectRef, dict[ObjectRef, AzureIdentityBinding]] = {}

        self._dirty: dict[ObjectRef, None] = {}
        self._needs: dict[ObjectRef, dict[ObjectRef, Need]] = {}
        """By pod and identity."""
        self._claims: dict[ObjectRef, dict[Key, Need]] = {}
        """By the record's name, as it was before there were hashed ones."""
        self._records: dict[ObjectRef, Need] = {}
        self._on_hosts: dict[Host | None, dict[str, dict[Key, Need]]] = {}
        """By host and ARM id in lower case."""
        self._of_host: dict[Host | None, tuple[dict[str, Wanted], frozenset[str]]] = {}
        """What is wanted and undecided on a host, until a need on it changes."""
        self._changes = Changes()

    # What happens.

    def see_pod(self, pod: Pod) -> None:
        if pod.host_network and self._node_network:
            pod = replace(pod, host_network=False)
        before = self._pods.get(pod.ref)
        if not pod.selector:
            if before is not None:
                self.lose_pod(pod.ref, before.uid)
            return
        if before is not None:
            if _same(before, pod):
                return
            self._unindex(before)
        self._pods[pod.ref] = pod
        spaces = self._pods_by_selector.setdefault(pod.selector, {})
        _index(spaces, pod.ref.namespace, pod.ref)
        _index(self._pods_by_namespace, pod.ref.namespace, pod.ref)
        _index(self._pods_by_node, pod.node, pod.ref)
        self._count(before, pod)
        self._dirty[pod.ref] = None

    def lose_pod(self, ref: ObjectRef, uid: str) -> None:
        """Take that the pod of this uid is gone; a later one of its name stays."""
        pod = self._pods.get(ref)
        if pod is None or pod.uid != uid:
            return
        del self._pods[ref]
        self._unindex(pod)
        self._count(pod, None)
        self._dirty[ref] = None

    def see_node(self, name: str, host: Host | None) -> None:
        """Take a node and its machine; None if the machine is none of Azure's, or not known yet."""
        before = self._hosts.get(name)
        if before == host:
            return
        if before is not None:
            _unindex(self._nodes, before, name)
            self._changes.hosts[before] = None
            del self._hosts[name]
        if host is not None:
            # Nodes of one scale set share one value, whatever their spelling.
            known = self._nodes.get(host)
            if known:
                host = self._hosts[next(iter(known))]
            self._hosts[name] = host
            _index(self._nodes, host, name)
            self._changes.hosts[host] = None
        self._touch(self._pods_by_node.get(name, ()))

    def lose_node(self, name: str) -> None:
        self.see_node(name, None)

    def see_identity(self, identity: AzureIdentity | Malformed) -> None:
        if self._identities.get(identity.ref) == identity:
            return
        self._identities[identity.ref] = identity
        self._touch_bound(identity.ref)

    def lose_identity(self, ref: ObjectRef) -> None:
        if self._identities.pop(ref, None) is not None:
            self._touch_bound(ref)

    def see_binding(self, binding: AzureIdentityBinding | Malformed) -> None:
        if self._bindings.get(binding.ref) == binding:
            return
        self.lose_binding(binding.ref)
        self._bindings.put(binding)
        if isinstance(binding, AzureIdentityBinding):
            self._count_binding(binding, 1)
            target = ObjectRef(binding.ref.namespace, binding.identity)
            self._bindings_by_identity.setdefault(target, {})[binding.ref] = binding
            self._touch_selected(binding)
            if self._everywhere:
                self.see_pod(_offered(binding))

    def lose_binding(self, ref: ObjectRef) -> None:
        binding = self._bindings.remove(ref)
        if isinstance(binding, AzureIdentityBinding):
            self._count_binding(binding, -1)
            _unindex(self._bindings_by_identity, ObjectRef(ref.namespace, binding.identity), ref)
            self._touch_selected(binding)
            if self._everywhere:
                offered = _offered(binding)
                self.lose_pod(offered.ref, offered.uid)

    def see_exception(self, exception: AzurePodIdentityException) -> None:
        """Take an AzurePodIdentityException that came or changed: its pods need nothing."""
        of_namespace = self._exceptions.setdefault(exception.ref.namespace, {})
        if of_namespace.get(exception.ref) != exception:
            of_namespace[exception.ref] = exception
            self._touch(self._pods_by_namespace.get(exception.ref.namespace, ()))

    def lose_exception(self, ref: ObjectRef) -> None:
        """Take that an AzurePodIdentityException is gone, or cannot be read any more."""
        if ref in self._exceptions.get(ref.namespace, {}):
            _unindex(self._exceptions, ref.namespace, ref)
            self._touch(self._pods_by_namespace.get(ref.namespace, ()))

    def answer(self, use: Use, *, allowed: bool) -> None:
        self._touch(self._permissions.answer(use, allowed=allowed))

    # What follows.

    @property
    def outdated(self) -> bool:
        return bool(self._dirty or self._changes.hosts)

    def refresh(self) -> Changes:
        """Decide again on the pods that something concerned; return what differs."""
        dirty, self._dirty = self._dirty, {}
        for ref in dirty:
            self._decide(ref)
        changes, self._changes = self._changes, Changes()
        return changes

    @property
    def records(self) -> Mapping[ObjectRef, Need]:
        """The records that there should be: by name, the need that each tells of."""
        return self._records

    def record(self, ref: ObjectRef) -> Need | None:
        """Return the need of which the record of this name should tell; None: no such record."""
        return self._records.get(ref)

    def born(self, ref: ObjectRef) -> float:
        """Return when the pod of this record came; 0 for a record that no pod needs."""
        need = self._records.get(ref)
        pod = None if need is None else self._pods.get(need.pod)
        return 0.0 if pod is None else pod.started

    def name(self, need: Need) -> ObjectRef:
        plain = _plain(need, self._rules)
        claims = self._claims.get(plain, {})
        if len(claims) == 1 and len(plain.name) <= LONGEST_NAME:
            # Nearly all: of a thousand records each is asked for when their host is read.
            return plain
        names = self._names(plain, claims)
        return next((ref for ref, each in names.items() if each.key == need.key), plain)

    def wanted(self, host: Host) -> Mapping[str, Wanted]:
        """Return the identities that should be attached to `host`, by ARM id in lower case."""
        return self._needed_on(host)[0]

    def undecided(self, host: Host) -> frozenset[str]:
        """Return ARM ids in lower case that may be needed on `host`: the permission is not known.

        They are not attached, and not detached either.
        """
        return self._needed_on(host)[1]

    def _needed_on(self, host: Host) -> tuple[dict[str, Wanted], frozenset[str]]:
        where = None if self._everywhere else host
        known = self._of_host.get(where)
        if known is not None:
            # A scale set has a thousand pods, and is looked at several times for one of them.
            return known
        wanted, undecided = {}, []
        for folded, needs in self._on_hosts.get(where, {}).items():
            decided = [each.identity for each in needs.values() if each.decided]
            if len(decided) < len(needs):
                undecided.append(folded)
            if decided and decided[0].resource_id is not None:
                client = str(decided[0].client_id or "")
                clients = {str(each.client_id) for each in decided} if self._asks else ()
                wanted[folded] = Wanted(decided[0].resource_id, client, frozenset(clients))
        found = (wanted, frozenset(undecided))
        if wanted or undecided:
            self._of_host[where] = found
        return found

    def needs_of(self, identity: ObjectRef) -> list[Need]:
        pods: dict[ObjectRef, None] = {}
        for binding in self._bindings_alike(identity):
            for of_namespace in self._selected_pods(binding):
                pods.update(of_namespace)
        needs = (self._needs.get(pod, {}).get(identity) for pod in pods)
        return [each for each in needs if each is not None]

    def needed_by(self, host: Host, folded: str) -> Iterable[Need]:
        found = self._on_hosts.get(None if self._everywhere else host, {})
        return found.get(folded, {}).values()

    def in_use(
        self,
        host: Host,
        pods: Iterable[Pod],
        identities: Iterable[AzureIdentity | Malformed],
        bindings: Iterable[AzureIdentityBinding | Malformed],
        unclear: frozenset[str] = frozenset(),
    ) -> frozenset[str] | None:
        """Return what `pods` may need on `host` by these objects, as ARM ids in lower case.

        None: a pod on it may need anything, because objects of its namespace, one of `unclear`,
        are not known. The objects were listed just now, and may be ahead of what this was told. A
        pod of a node that is not known may run on this host; an exception takes nothing away.
        """
        if unclear and self._everywhere:
            return None
        listed = Assignments(
            self._rules,
            everywhere=self._everywhere,
            asks=self._asks,
            node_network=self._node_network,
        )
        for identity in identities:
            listed.see_identity(identity)
        for binding in bindings:
            listed.see_binding(binding)
        for pod in pods:
            if self._everywhere or self._hosts.get(pod.node, host) == host:
                if unclear and (self._rules.cross_namespace or pod.ref.namespace in unclear):
                    return None
                listed.see_node(pod.node, host)
                listed.see_pod(pod)
        for use in listed.refresh().questions:
            allowed = self._permissions.known(use)
            if allowed is not None:
                listed.answer(use, allowed=allowed)
        listed.refresh()
        return frozenset(listed._on_hosts.get(None if self._everywhere else host, ()))

    @property
    def hosts(self) -> Iterable[Host]:
        return self._nodes

    def has_nodes(self, host: Host) -> bool:
        return host in self._nodes

    def host(self, node: str) -> Host | None:
        return self._hosts.get(node)

    def asked(self, use: Use) -> bool:
        return self._permissions.matters(use)

    def uses(self, namespace: str | None) -> list[Use]:
        """Return the permissions that matter, of the service accounts of a namespace or of all."""
        return self._permissions.uses(namespace)

    def permission(self, identity: ObjectRef) -> IdentityPermission:
        """Return whether the pods of its namespace that an identity is bound to may use it."""
        return self._permissions.of(identity)

    def bindings_to(self, identity: ObjectRef) -> Iterable[AzureIdentityBinding]:
        return self._bindings_by_identity.get(identity, {}).values()

    # The Directory.

    def bindings(self, namespace: str, selector: str) -> Sequence[AzureIdentityBinding]:
        return self._bindings.heaviest(namespace, selector)

    def malformed_bindings(self, _: str, __: str) -> Sequence[Malformed]:
        """Return nothing: why a pod has no identity is told by NMI and `explain`."""
        return ()

    def identity(self, ref: ObjectRef) -> AzureIdentity | Malformed | None:
        return self._identities.get(ref)

    def namespaces_with(self, selector: str) -> Sequence[str]:
        return self._bindings.namespaces_with(selector)

    def exceptions(self, namespace: str) -> Sequence[AzurePodIdentityException]:
        return tuple(self._exceptions.get(namespace, {}).values())

    def assigned(self, _: ObjectRef) -> Sequence[AzureAssignedIdentity]:
        """Return nothing: records follow from the decision here."""
        return ()

    def workload_identity(self, _: ObjectRef) -> WorkloadIdentity | Malformed | None:
        """Return nothing: a pod without the label needs no record."""
        return None

    # One pod.

    def _decide(self, ref: ObjectRef) -> None:
        pod = self._pods.get(ref)
        found: list[Need] = []
        asked: dict[ObjectRef, tuple[Use, ...]] = {}
        if pod is not None:
            is_placed = bool(pod.node) or self._everywhere
            # Most pods of a large cluster have a label that no binding selects.
            bound = self._shares.bound(ref.namespace, pod.selector)
            if bound:
                most = self._shares.of(ref.namespace)
                if most < bound and self._shares.is_news(ref.namespace):
                    self._changes.shares[ref.namespace] = most
                # A pod that is not scheduled is not counted yet, and asks for permissions alone.
                most = most if is_placed else SHARES[-1]
                for entitlement in match(pod, self, self._rules, most=most).entitlements:
                    need = self._need(pod, entitlement, asked)
                    if need is not None and is_placed:
                        found.append(need)
        self._keep_asked(ref, tuple(asked.items()))
        self._keep_needs(ref, {each.identity.ref: each for each in found})

    def _need(
        self, pod: Pod, entitlement: Entitlement, asked: dict[ObjectRef, tuple[Use, ...]]
    ) -> Need | None:
        identity, binding = entitlement.identity, entitlement.binding
        if binding is None or not is_attachable(identity):
            return None
        permitted: bool | None = True
        if self._asks:
            needed = asked[identity.ref] = uses_of(pod, entitlement)
            permitted = self._permissions.all(needed)
            if permitted is False:
                return None
        host = None
        if not self._everywhere and attachment(identity) is not None:
            host = self._hosts.get(pod.node)
            if host is None:
                return None
        return Need(
            pod=pod.ref,
            uid=pod.uid,
            node=pod.node,
            identity=identity,
            binding=binding,
            host=host,
            decided=permitted is not None,
        )

    def _keep_asked(self, ref: ObjectRef, asked: Asked) -> None:
        is_there = not ref.name.startswith(_OFFERED)
        before, new = self._permissions.keep(ref, asked, is_there=is_there)
        changes = self._changes
        for identity, _ in asked:
            changes.identities[identity] = None
        if before == asked:
            return
        for identity, _ in before:
            changes.identities[identity] = None
        changes.questions.update(dict.fromkeys(new))

    def _keep_needs(self, ref: ObjectRef, needs: dict[ObjectRef, Need]) -> None:
        before = self._needs.get(ref, {})
        if needs == before:
            return
        if needs:
            self._needs[ref] = needs
        else:
            del self._needs[ref]
        for identity, need in before.items():
            if needs.get(identity) != need:
                self._take_off_host(need)
                after = needs.get(identity)
                if after is None or after.identity.namespaced != need.identity.namespaced:
                    # Under another name, if any.
                    self._claim(need, holds=False)
        for identity, need in needs.items():
            if before.get(identity) != need:
                self._put_on_host(need)
                self._claim(need, holds=True)

    # Hosts.

    def _put_on_host(self, need: Need) -> None:
        found = attachment(need.identity)
        if found is None:
            return
        key, on_host = need.key, self._on_hosts.setdefault(need.host, {})
        on_host.setdefault(found.folded, {})[key] = need
        self._touch_host(need.host)

    def _take_off_host(self, need: Need) -> None:
        found = attachment(need.identity)
        if found is None:
            return
        on_host = self._on_hosts[need.host]
        key, needs = need.key, on_host[found.folded]
        del needs[key]
        if not needs:
            del on_host[found.folded]
            if not on_host:
                del self._on_hosts[need.host]
        self._touch_host(need.host)

    def _touch_host(self, host: Host | None) -> None:
        self._of_host.pop(host, None)
        if host is not None:
            self._changes.hosts[host] = None
        else:
            self._changes.hosts.update(dict.fromkeys(self._nodes))

    # Records. Where two have the same plain name, the first by pod and identity keeps it.

    def _claim(self, need: Need, *, holds: bool) -> None:
        """Take that `need` has a record, or that it has none any more."""
        if self._everywhere:
            return
        plain = _plain(need, self._rules)
        claims = self._claims.setdefault(plain, {})
        before = self._names(plain, claims)
        if holds:
            claims[need.key] = need
        else:
            del claims[need.key]
        after = self._names(plain, claims)
        if not claims:
            del self._claims[plain]
        for ref in before:
            if ref not in after:
                del self._records[ref]
                self._changes.records[ref] = None
        for ref, each in after.items():
            if before.get(ref) != each:
                self._records[ref] = each
                self._changes.records[ref] = None

    def _names(self, plain: ObjectRef, claims: Mapping[Key, Need]) -> dict[ObjectRef, Need]:
        if not claims:
            return {}
        if len(claims) == 1 and len(plain.name) <= LONGEST_NAME:
            return {plain: next(iter(claims.values()))}
        first = None if len(plain.name) > LONGEST_NAME else min(claims)
        return {
            plain if key == first else _hashed(plain, key): need for key, need in claims.items()
        }

    # Who is concerned.

    def _touch(self, pods: Iterable[ObjectRef]) -> None:
        self._dirty.update(dict.fromkeys(pods))

    def _touch_bound(self, identity: ObjectRef) -> None:
        for binding in self._bindings_alike(identity):
            self._touch_selected(binding)

    def _bindings_alike(self, identity: ObjectRef) -> Iterable[AzureIdentityBinding]:
        """Return of the bindings to an identity one for each selector: they select the same."""
        bindings = self._bindings_by_identity.get(identity, {}).values()
        return {each.selector: each for each in bindings}.values()

    def _count(self, before: Pod | None, now: Pod | None) -> None:
        """Count a pod that may need what is bound to it: of each other one fewer may count then."""
        was, becomes = self._counted(before), self._counted(now)
        if was == becomes:
            return
        if was is not None:
            self._touch_shared(self._shares.count_pods(*was, -1))
        if becomes is not None:
            self._touch_shared(self._shares.count_pods(*becomes, 1))

    def _counted(self, pod: Pod | None) -> tuple[str, str] | None:
        if pod is None or pod.ended or pod.host_network or not (pod.node or self._everywhere):
            return None
        return pod.ref.namespace, pod.selector

    def _count_binding(self, binding: AzureIdentityBinding, change: int) -> None:
        namespaces = self._shares.count_bindings(binding.ref.namespace, binding.selector, change)
        self._touch_shared(namespaces)

    def _touch_shared(self, namespaces: Iterable[str]) -> None:
        for namespace in namespaces:
            self._touch(self._pods_by_namespace.get(namespace, ()))

    def _touch_selected(self, binding: AzureIdentityBinding) -> None:
        for pods in self._selected_pods(binding):
            self._touch(pods)

    def _selected_pods(self, binding: AzureIdentityBinding) -> list[dict[ObjectRef, None]]:
        spaces = self._pods_by_selector.get(binding.selector, {})
        if self._rules.cross_namespace:
            return list(spaces.values())
        return [spaces.get(binding.ref.namespace, {})]

    def _unindex(self, pod: Pod) -> None:
        spaces = self._pods_by_selector[pod.selector]
        _unindex(spaces, pod.ref.namespace, pod.ref)
        if not spaces:
            del self._pods_by_selector[pod.selector]
        _unindex(self._pods_by_namespace, pod.ref.namespace, pod.ref)
        _unindex(self._pods_by_node, pod.node, pod.ref)


def _same(one: Pod, other: Pod) -> bool:
    """Whether two versions of a pod need the same: labels count, for exceptions."""
    return (
        one.uid == other.uid
        and one.node == other.node
        and one.ended == other.ended
        and one.labels == other.labels
        and one.host_network == other.host_network
        and one.service_account == other.service_account
    )


def _offered(binding: AzureIdentityBinding) -> Pod:
    return Pod(
        ref=ObjectRef(binding.ref.namespace, f"{_OFFERED}{binding.ref.name}"),
        uid="*",
        labels={BINDING_LABEL: binding.selector},
    )


def _plain(need: Need, rules: Rules) -> ObjectRef:
    """Return the name of a record as the archived project made it, however long."""
    identity = need.identity
    own = identity.namespaced or not rules.cross_namespace
    namespace = identity.ref.namespace if own else _CROSS_NAMESPACE
    return ObjectRef(namespace, f"{need.pod.name}-{need.pod.namespace}-{identity.ref.name}")


def _hashed(plain: ObjectRef, key: Key) -> ObjectRef:
    """Return a name that no other record has."""
    text = "/".join((*key.pod, *key.identity))
    digest = sha256(text.encode()).hexdigest()[:20]
    return ObjectRef(plain.namespace, f"{plain.name[:_KEPT].rstrip('.-')}-{digest}")


def _index(index: dict[_K, dict[_M, None]], key: _K, member: _M) -> None:
    index.setdefault(key, {})[member] = None


def _unindex(index: dict[_K, dict[_M, _V]], key: _K, member: _M) -> None:
    members = index[key]
    del members[member]
    if not members:
        del index[key]

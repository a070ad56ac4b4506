"""The watched objects of the cluster in memory, indexed for requests; a core.ports.Cluster.

A request costs a few dictionary look-ups, for any number of pods, bindings and identities. On the
node reflectors fill it; the commands fill it from lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from itertools import chain
from math import inf
from typing import Any, Self

from podidentity.core.budgets import over_budget
from podidentity.core.indexes import BindingIndex, Index
from podidentity.core.ports import Clock
from podidentity.core.resources import (
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    ObjectRef,
    Pod,
    WorkloadIdentity,
)

Custom = (
    AzureIdentity
    | AzureIdentityBinding
    | AzurePodIdentityException
    | AzureAssignedIdentity
    | WorkloadIdentity
    | Malformed
)

_KINDS: dict[type, str] = {
    AzureIdentity: "AzureIdentity",
    AzureIdentityBinding: "AzureIdentityBinding",
    AzurePodIdentityException: "AzurePodIdentityException",
    AzureAssignedIdentity: "AzureAssignedIdentity",
    WorkloadIdentity: "ServiceAccount",
}


def _keys_of_pod(pod: Pod) -> Iterable[Hashable]:
    return (*pod.addresses, (pod.ref.namespace,))


def _keys_of_exception(found: AzurePodIdentityException | Malformed) -> Iterable[Hashable]:
    return () if isinstance(found, Malformed) else (found.ref.namespace,)


def _keys_of_assigned(found: AzureAssignedIdentity | Malformed) -> Iterable[Hashable]:
    return () if isinstance(found, Malformed) else (found.pod,)


class WatchedCluster:
    """The pods of a node and the custom resources of all namespaces; a core.ports.Cluster."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._synced = False
        self.revision = 0
        """Grows with each change; a decision holds only for the same number."""
        self._pod_changed: dict[ObjectRef, float] = {}
        self._pod_seen: dict[ObjectRef, float] = {}
        self._pod_assigned: dict[ObjectRef, float] = {}
        # Only of namespaces with a pod on this node: the others need no time.
        self._namespace_changed: dict[str, float] = {}
        self._pods: Index[Pod] = Index(_keys_of_pod)
        self._identities: Index[AzureIdentity | Malformed] = Index()
        self._bindings = BindingIndex()
        self._exceptions: Index[AzurePodIdentityException | Malformed] = Index(_keys_of_exception)
        self._assigned: Index[AzureAssignedIdentity | Malformed] = Index(_keys_of_assigned)
        self._accounts: Index[WorkloadIdentity | Malformed] = Index()
        self._by_kind: dict[str, Index[Any]] = {
            "AzureIdentity": self._identities,
            "AzureIdentityBinding": self._bindings,
            "AzurePodIdentityException": self._exceptions,
            "AzureAssignedIdentity": self._assigned,
            "ServiceAccount": self._accounts,
        }
        self._left_out: dict[tuple[str, str], Malformed] = {}
        """The oldest object that the budget of a namespace leaves out, by kind and namespace."""
        self._change = asyncio.Event()
        self._followers: list[Callable[[str, ObjectRef], None]] = []

    @classmethod
    def of(
        cls,
        clock: Clock,
        *,
        pods: Iterable[Pod] = (),
        identities: Iterable[AzureIdentity | Malformed] = (),
        bindings: Iterable[AzureIdentityBinding | Malformed] = (),
        exceptions: Iterable[AzurePodIdentityException | Malformed] = (),
        assigned: Iterable[AzureAssignedIdentity | Malformed] = (),
        accounts: Iterable[WorkloadIdentity | Malformed] = (),
    ) -> Self:
        """Return a cluster that holds these, and is synced."""
        cluster = cls(clock)
        for pod in pods:
            cluster.put_pod(pod)
        for value in chain(identities, bindings, exceptions, assigned, accounts):
            cluster.put(value)
        cluster.mark_synced()
        return cluster

    # core.ports.Cluster

    @property
    def synced(self) -> bool:
        """Whether every list has been read once."""
        return self._synced

    def pods_at(self, address: str) -> Sequence[Pod]:
        """Return the pods that have the address (canonical text) and have not ended."""
        return [pod for pod in self._pods.by_key(address) if not pod.ended]

    def pod(self, ref: ObjectRef) -> Pod | None:
        return self._pods.get(ref)

    def pod_by_uid(self, uid: str) -> Pod | None:
        """Return the pod with this uid, by a scan of all pods."""
        return next((pod for pod in self._pods.values() if pod.uid == uid), None)

    def has_address(self, uid: str) -> bool:
        """Whether the pod with this uid is known, and an address of it."""
        pod = self.pod_by_uid(uid)
        return pod is not None and bool(pod.addresses)

    def changed_at(self, pod: Pod) -> float:
        """Return the time of the last change that concerns `pod`."""
        return max(
            self._pod_changed.get(pod.ref, -inf),
            self._pod_assigned.get(pod.ref, -inf),
            self.bound_at(pod),
        )

    def bound_at(self, pod: Pod) -> float:
        """Return the time of the last change of a binding or identity in the pod's namespace."""
        return self._namespace_changed.get(pod.ref.namespace, -inf)

    def seen_at(self, pod: Pod) -> float:
        """Return when the pod of this uid was put first, in monotonic seconds; `inf`: it is gone.

        That is not its start: a decision of before may be about another namespace of that name.
        """
        now = self._pods.get(pod.ref)
        return self._pod_seen[pod.ref] if now is not None and now.uid == pod.uid else inf

    def assigned_at(self, pod: Pod) -> float:
        return self._pod_assigned.get(pod.ref, -inf)

    def changed(self) -> Coroutine[Any, Any, None]:
        """Return at the next change after this call, even if it is awaited later."""
        return _set(self._change)

    def bindings(self, namespace: str, selector: str) -> Sequence[AzureIdentityBinding]:
        """Return the bindings of a namespace with exactly this selector, as far as they count."""
        return self._bindings.heaviest(namespace, selector)

    def malformed_bindings(self, namespace: str, selector: str) -> Sequence[Malformed]:
        """Return the bindings of a namespace and selector ("": of none) that cannot be used."""
        found = self._bindings.by_key((namespace, selector, "malformed"))
        # One that is left out may have any selector.
        others = () if selector else (self._left_out.get(("AzureIdentityBinding", namespace)),)
        return [each for each in (*found, *others) if isinstance(each, Malformed)]

    def identity(self, ref: ObjectRef) -> AzureIdentity | Malformed | None:
        """Return the identity of that name, or why it cannot be used, or None."""
        found = self._identities.get(ref)
        is_over = found is None and ("AzureIdentity", ref.namespace) in self._left_out
        return over_budget("AzureIdentity", ref) if is_over else found

    def namespaces_with(self, selector: str) -> Sequence[str]:
        """Return the namespaces that have a binding with this selector, sorted."""
        return self._bindings.namespaces_with(selector)

    def exceptions(self, namespace: str) -> Sequence[AzurePodIdentityException]:
        found = self._exceptions.by_key(namespace)
        return [each for each in found if isinstance(each, AzurePodIdentityException)]

    def assigned(self, pod: ObjectRef) -> Sequence[AzureAssignedIdentity]:
        """Return the controller's records about a pod."""
        found = self._assigned.by_key(pod)
        return [each for each in found if isinstance(each, AzureAssignedIdentity)]

    def workload_identity(self, service_account: ObjectRef) -> WorkloadIdentity | Malformed | None:
        """Return the workload identity of an annotated service account; None for others."""
        return self._accounts.get(service_account)

    # For the commands

    def pods(self) -> Sequence[Pod]:
        """Return all pods, in order of namespace and name."""
        return self._pods.sorted()

    def all_identities(self) -> Sequence[AzureIdentity | Malformed]:
        """Return all identities, in order of namespace and name."""
        return self._identities.sorted()

    def all_bindings(self) -> Sequence[AzureIdentityBinding | Malformed]:
        """Return all bindings, in order of namespace and name."""
        return self._bindings.sorted()

    # Updates

    def mark_synced(self) -> None:
        """Note that every list has been read once: later updates are changes."""
        self._synced = True
        self._wake()

    def follow(self, follower: Callable[[str, ObjectRef], None]) -> None:
        """Call `follower` with kind and name of each object after it has changed."""
        self._followers.append(follower)

    def put_pod(self, pod: Pod) -> None:
        before = self._pods.get(pod.ref)
        if not self._pods.put(pod):
            return
        if before is None or before.uid != pod.uid:
            self._pod_seen[pod.ref] = self._clock.monotonic()
            self._pod_changed[pod.ref] = self._first_seen(pod)
            self._pod_assigned.pop(pod.ref, None)
        elif before.selector != pod.selector:
            self._pod_changed[pod.ref] = self._clock.monotonic()
        self._tell("Pod", pod.ref)

    def remove_pod(self, ref: ObjectRef) -> None:
        self._pods.remove(ref)
        self._pod_seen.pop(ref, None)
        self._pod_changed.pop(ref, None)
        self._pod_assigned.pop(ref, None)
        if not self._pods.by_key((ref.namespace,)):
            self._namespace_changed.pop(ref.namespace, None)
        self._tell("Pod", ref)

    def put(self, value: Custom) -> None:
        """Add or replace an object; it may be malformed."""
        kind = value.kind if isinstance(value, Malformed) else _KINDS[type(value)]
        if self._by_kind[kind].put(value):
            self._custom_change(kind, value.ref)
            if isinstance(value, AzureAssignedIdentity):
                self._assignment_change(value)

    def remove(self, kind: str, ref: ObjectRef) -> None:
        if self._by_kind[kind].remove(ref) is not None:
            self._custom_change(kind, ref)

    def leave_out(self, kind: str, namespace: str, oldest: ObjectRef | None) -> None:
        """Note the oldest object of a namespace that its budget leaves out; None: none is."""
        if oldest is None:
            self._left_out.pop((kind, namespace), None)
        else:
            self._left_out[kind, namespace] = over_budget(kind, oldest)
        self._wake()

    def _first_seen(self, pod: Pod) -> float:
        """Return the pod's start in monotonic seconds; a pod of the first list may be old."""
        now = self._clock.monotonic()
        if self._synced or not pod.started:
            return now
        return now - max(0.0, self._clock.time() - pod.started)

    def _custom_change(self, kind: str, ref: ObjectRef) -> None:
        concerns = kind != "AzureAssignedIdentity" and self._pods.by_key((ref.namespace,))
        if self._synced and concerns:
            self._namespace_changed[ref.namespace] = self._clock.monotonic()
        self._tell(kind, ref)

    def _tell(self, kind: str, ref: ObjectRef) -> None:
        self._wake()
        for follower in self._followers:
            follower(kind, ref)

    def _assignment_change(self, record: AzureAssignedIdentity) -> None:
        """Note a change for the record's pod: Azure may still be propagating the attachment."""
        if self._synced and self._pods.get(record.pod) is not None:
            self._pod_assigned[record.pod] = self._clock.monotonic()

    def _wake(self) -> None:
        self.revision += 1
        self._change.set()
        self._change = asyncio.Event()


async def _set(event: asyncio.Event) -> None:
    await event.wait()

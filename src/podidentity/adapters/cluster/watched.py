"""The watched cluster in memory, indexed by what a request asks for.

A request costs look-ups in dictionaries, however many pods, bindings and identities there are.
Reflectors fill it on the node; the commands fill it from plain lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import chain
from math import inf
from typing import Any, Self

from podidentity.adapters.cluster.keys import keys_of_binding, keys_of_exception, keys_of_record
from podidentity.adapters.cluster.shelf import Shelf
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock
from podidentity.core.resources import (
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
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


class WatchedCluster:
    """The pods of a node and the custom resources of all namespaces; a core.ports.Cluster."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._synced = False
        self._revision = 0
        self._pod_changed: dict[ObjectRef, float] = {}
        self._namespace_changed: dict[str, float] = {}
        self._pods: Shelf[Pod] = Shelf(lambda pod: pod.addresses)
        self._identities: Shelf[AzureIdentity | Malformed] = Shelf()
        self._bindings: Shelf[AzureIdentityBinding | Malformed] = Shelf(keys_of_binding)
        self._exceptions: Shelf[AzurePodIdentityException | Malformed] = Shelf(keys_of_exception)
        self._assigned: Shelf[AzureAssignedIdentity | Malformed] = Shelf(keys_of_record)
        self._accounts: Shelf[WorkloadIdentity | Malformed] = Shelf()
        self._shelves: dict[str, Shelf[Any]] = {
            "AzureIdentity": self._identities,
            "AzureIdentityBinding": self._bindings,
            "AzurePodIdentityException": self._exceptions,
            "AzureAssignedIdentity": self._assigned,
            "ServiceAccount": self._accounts,
        }
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

    # What core.ports.Cluster promises.

    @property
    def synced(self) -> bool:
        """Whether every list has been read once."""
        return self._synced

    @property
    def revision(self) -> int:
        """A number that grows with each change: what was decided at an older one may be wrong."""
        return self._revision

    def pods_at(self, address: str) -> Sequence[Pod]:
        """Return the pods that have the address (canonical text) and have not ended."""
        return [pod for pod in self._pods.group(address) if not pod.ended]

    def pod(self, ref: ObjectRef) -> Pod | None:
        """Return the pod of that name."""
        return self._pods.get(ref)

    def pod_by_uid(self, uid: str) -> Pod | None:
        """Return the pod with this uid; a scan, for what is rare."""
        return next((pod for pod in self._pods.values() if pod.uid == uid), None)

    def pods_in(self, namespace: str) -> Sequence[Pod]:
        """Return the pods of a namespace, in any order; a scan, for what is rare."""
        return [pod for pod in self._pods.values() if pod.ref.namespace == namespace]

    def changed_at(self, pod: Pod) -> float:
        """Return when what decides about `pod` last changed."""
        return max(
            self._pod_changed.get(pod.ref, -inf),
            self._namespace_changed.get(pod.ref.namespace, -inf),
        )

    def changed(self) -> Coroutine[Any, Any, None]:
        """Return at the next change after this call, even if it is awaited later."""
        return _set(self._change)

    def bindings(self, namespace: str, selector: str) -> Sequence[AzureIdentityBinding]:
        """Return the bindings of a namespace with exactly this selector."""
        found = self._bindings.group((namespace, selector))
        return [each for each in found if isinstance(each, AzureIdentityBinding)]

    def malformed_bindings(self, namespace: str) -> Sequence[Malformed]:
        """Return the bindings of a namespace that cannot be used."""
        return [each for each in self._bindings.group(namespace) if isinstance(each, Malformed)]

    def identity(self, ref: ObjectRef) -> AzureIdentity | Malformed | None:
        """Return the identity of that name, or why it cannot be used, or None."""
        return self._identities.get(ref)

    def namespaces_with(self, selector: str) -> Sequence[str]:
        """Return the namespaces that have a binding with this selector, sorted."""
        return sorted({each.ref.namespace for each in self._bindings.group(("", selector))})

    def exceptions(self, namespace: str) -> Sequence[AzurePodIdentityException]:
        """Return the exceptions of a namespace that can be used."""
        found = self._exceptions.group(namespace)
        return [each for each in found if isinstance(each, AzurePodIdentityException)]

    def assigned(self, pod: ObjectRef) -> Sequence[AzureAssignedIdentity]:
        """Return the controller's records about a pod."""
        found = self._assigned.group(pod)
        return [each for each in found if isinstance(each, AzureAssignedIdentity)]

    def workload_identity(self, service_account: ObjectRef) -> WorkloadIdentity | Malformed | None:
        """Return what the annotations of a service account say; None where it has none."""
        return self._accounts.get(service_account)

    # For the commands, which look at everything.

    def pods(self) -> Sequence[Pod]:
        """Return all pods, in order of namespace and name."""
        return self._pods.sorted()

    def all_identities(self) -> Sequence[AzureIdentity | Malformed]:
        """Return all identities, in order of namespace and name."""
        return self._identities.sorted()

    def all_bindings(self) -> Sequence[AzureIdentityBinding | Malformed]:
        """Return all bindings, in order of namespace and name."""
        return self._bindings.sorted()

    # How it is filled.

    def mark_synced(self) -> None:
        """Every list has been read once: from now on what is put is news."""
        self._synced = True
        self._wake()

    def follow(self, follower: Callable[[str, ObjectRef], None]) -> None:
        """Call `follower` with kind and name of each object that changes, once it has."""
        self._followers.append(follower)

    def put_pod(self, pod: Pod) -> None:
        """Add or replace a pod."""
        before = self._pods.get(pod.ref)
        if not self._pods.put(pod):
            return
        if before is None or before.uid != pod.uid:
            self._pod_changed[pod.ref] = self._first_seen(pod)
        elif before.selector != pod.selector:
            self._pod_changed[pod.ref] = self._clock.monotonic()
        self._tell("Pod", pod.ref)

    def remove_pod(self, ref: ObjectRef) -> None:
        """Forget a pod."""
        self._pods.remove(ref)
        self._pod_changed.pop(ref, None)
        self._tell("Pod", ref)

    def put(self, value: Custom) -> None:
        """Add or replace an object, usable or not."""
        kind = value.kind if isinstance(value, Malformed) else _KINDS[type(value)]
        if self._shelves[kind].put(value):
            self._custom_change(kind, value.ref)
            if isinstance(value, AzureAssignedIdentity):
                self._assignment_change(value)

    def remove(self, kind: str, ref: ObjectRef) -> None:
        """Forget an object of a kind, as Kubernetes spells it."""
        if self._shelves[kind].remove(ref) is not None:
            self._custom_change(kind, ref)

    def _first_seen(self, pod: Pod) -> float:
        """Return when the pod started, on our clock: a pod of the first list may be old."""
        now = self._clock.monotonic()
        if self._synced or not pod.started:
            return now
        return now - max(0.0, self._clock.time() - pod.started)

    def _custom_change(self, kind: str, ref: ObjectRef) -> None:
        if self._synced and kind != "AzureAssignedIdentity":
            self._namespace_changed[ref.namespace] = self._clock.monotonic()
        self._tell(kind, ref)

    def _tell(self, kind: str, ref: ObjectRef) -> None:
        self._wake()
        for follower in self._followers:
            follower(kind, ref)

    def _assignment_change(self, record: AzureAssignedIdentity) -> None:
        """A record concerns its pod alone: what was attached just now may have to spread."""
        if self._synced and self._pods.get(record.pod) is not None:
            self._pod_changed[record.pod] = self._clock.monotonic()

    def _wake(self) -> None:
        self._revision += 1
        self._change.set()
        self._change = asyncio.Event()


async def _set(event: asyncio.Event) -> None:
    await event.wait()

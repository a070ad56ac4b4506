"""The watched cluster in memory, indexed by what a request asks for.

A request costs look-ups in dictionaries, however many pods, bindings and identities there are.
Reflectors fill it on the node; the commands fill it from plain lists.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Sequence
from math import inf
from typing import Any, Self, TypeVar

from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock
from podidentity.core.resources import AzureIdentity, AzureIdentityBinding, Malformed, Pod

_T = TypeVar("_T")


class WatchedCluster:
    """The pods of a node and the custom resources of all namespaces; a core.ports.Cluster."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._synced = False
        self._pods: dict[ObjectRef, Pod] = {}
        self._pod_changed: dict[ObjectRef, float] = {}
        self._namespace_changed: dict[str, float] = {}
        self._by_address: dict[str, dict[ObjectRef, Pod]] = defaultdict(dict)
        self._identities: dict[ObjectRef, AzureIdentity | Malformed] = {}
        self._bindings: dict[ObjectRef, AzureIdentityBinding | Malformed] = {}
        self._by_selector: dict[str, dict[ObjectRef, AzureIdentityBinding]] = defaultdict(dict)
        self._malformed: dict[str, dict[ObjectRef, Malformed]] = defaultdict(dict)
        self._change = asyncio.Event()

    @classmethod
    def of(
        cls,
        clock: Clock,
        *,
        pods: Iterable[Pod] = (),
        identities: Iterable[AzureIdentity | Malformed] = (),
        bindings: Iterable[AzureIdentityBinding | Malformed] = (),
    ) -> Self:
        """Return a cluster that holds these, and is synced."""
        cluster = cls(clock)
        for pod in pods:
            cluster.put_pod(pod)
        for identity in identities:
            cluster.put_identity(identity)
        for binding in bindings:
            cluster.put_binding(binding)
        cluster.mark_synced()
        return cluster

    # What core.ports.Cluster promises.

    @property
    def synced(self) -> bool:
        """Whether every list has been read once."""
        return self._synced

    def pods_at(self, address: str) -> Sequence[Pod]:
        """Return the pods that have the address (canonical text) and have not ended."""
        found = self._by_address.get(address)
        return [pod for pod in found.values() if not pod.ended] if found else ()

    def pod(self, ref: ObjectRef) -> Pod | None:
        """Return the pod of that name."""
        return self._pods.get(ref)

    def pod_by_uid(self, uid: str) -> Pod | None:
        """Return the pod with this uid; a scan, for what is rare."""
        return next((pod for pod in self._pods.values() if pod.uid == uid), None)

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
        found = self._by_selector.get(selector)
        if not found:
            return ()
        return [binding for ref, binding in found.items() if ref.namespace == namespace]

    def malformed_bindings(self, namespace: str) -> Sequence[Malformed]:
        """Return the bindings of a namespace that cannot be used."""
        found = self._malformed.get(namespace)
        return tuple(found.values()) if found else ()

    def identity(self, ref: ObjectRef) -> AzureIdentity | Malformed | None:
        """Return the identity of that name, or why it cannot be used, or None."""
        return self._identities.get(ref)

    def namespaces_with(self, selector: str) -> Sequence[str]:
        """Return the namespaces that have a binding with this selector, sorted."""
        return sorted({ref.namespace for ref in self._by_selector.get(selector, ())})

    # For the commands, which look at everything.

    def pods(self) -> Sequence[Pod]:
        """Return all pods, in order of namespace and name."""
        return [self._pods[ref] for ref in sorted(self._pods)]

    def all_identities(self) -> Sequence[AzureIdentity | Malformed]:
        """Return all identities, in order of namespace and name."""
        return [self._identities[ref] for ref in sorted(self._identities)]

    def all_bindings(self) -> Sequence[AzureIdentityBinding | Malformed]:
        """Return all bindings, in order of namespace and name."""
        return [self._bindings[ref] for ref in sorted(self._bindings)]

    # How it is filled.

    def mark_synced(self) -> None:
        """Every list has been read once: from now on what is put is news."""
        self._synced = True
        self._wake()

    def put_pod(self, pod: Pod) -> None:
        """Add or replace a pod."""
        before = self._pods.get(pod.ref)
        if before == pod:
            return
        self._unindex(before)
        self._pods[pod.ref] = pod
        for address in pod.addresses:
            self._by_address[address][pod.ref] = pod
        if before is None or before.uid != pod.uid:
            self._pod_changed[pod.ref] = self._first_seen(pod)
        elif before.selector != pod.selector:
            self._pod_changed[pod.ref] = self._clock.monotonic()
        self._wake()

    def remove_pod(self, ref: ObjectRef) -> None:
        """Forget a pod."""
        self._unindex(self._pods.pop(ref, None))
        self._pod_changed.pop(ref, None)
        self._wake()

    def put_identity(self, identity: AzureIdentity | Malformed) -> None:
        """Add or replace an identity."""
        if self._identities.get(identity.ref) == identity:
            return
        self._identities[identity.ref] = identity
        self._custom_change(identity.ref)

    def remove_identity(self, ref: ObjectRef) -> None:
        """Forget an identity."""
        if self._identities.pop(ref, None) is not None:
            self._custom_change(ref)

    def put_binding(self, binding: AzureIdentityBinding | Malformed) -> None:
        """Add or replace a binding."""
        if self._bindings.get(binding.ref) == binding:
            return
        self._drop_binding(binding.ref)
        self._bindings[binding.ref] = binding
        if isinstance(binding, Malformed):
            self._malformed[binding.ref.namespace][binding.ref] = binding
        else:
            self._by_selector[binding.selector][binding.ref] = binding
        self._custom_change(binding.ref)

    def remove_binding(self, ref: ObjectRef) -> None:
        """Forget a binding."""
        if self._drop_binding(ref):
            self._custom_change(ref)

    def _first_seen(self, pod: Pod) -> float:
        """Return when the pod started, on our clock: a pod of the first list may be old."""
        now = self._clock.monotonic()
        if self._synced or not pod.started:
            return now
        return now - max(0.0, self._clock.time() - pod.started)

    def _unindex(self, pod: Pod | None) -> None:
        if pod is not None:
            for address in pod.addresses:
                _drop(self._by_address, address, pod.ref)

    def _drop_binding(self, ref: ObjectRef) -> bool:
        binding = self._bindings.pop(ref, None)
        if isinstance(binding, Malformed):
            _drop(self._malformed, ref.namespace, ref)
        elif binding is not None:
            _drop(self._by_selector, binding.selector, ref)
        return binding is not None

    def _custom_change(self, ref: ObjectRef) -> None:
        if self._synced:
            self._namespace_changed[ref.namespace] = self._clock.monotonic()
        self._wake()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


def _drop(index: dict[str, dict[ObjectRef, _T]], key: str, ref: ObjectRef) -> None:
    """Remove an entry, and its group when that is empty."""
    group = index.get(key, {})
    group.pop(ref, None)
    if not group:
        index.pop(key, None)


async def _set(event: asyncio.Event) -> None:
    await event.wait()

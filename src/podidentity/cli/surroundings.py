"""All objects that the rules look at for one pod, as far as who is at the shell may read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.kube import Kube, KubeError
from podidentity.cli import record
from podidentity.core.hosts import Host
from podidentity.core.ids import ObjectRef
from podidentity.core.resources import Malformed, Pod, WorkloadIdentity
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    SERVICE_ACCOUNTS,
    Resource,
)
from podidentity.wire.manifests import (
    parse_assigned,
    parse_binding,
    parse_exception,
    parse_identity,
    parse_service_account,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What was read."""

    cluster: WatchedCluster
    records: Mapping[ObjectRef, Sequence[Host]]
    """For each AzureIdentity, the hosts that podidentity attached it to."""


async def surroundings(kube: Kube, pod: Pod) -> Surroundings:
    """Return what decides about `pod`.

    Identities and bindings of other namespaces belong to it, since one of them may be the reason;
    who may not read them gets those of the pod's namespace.
    """
    namespace = pod.ref.namespace
    identities = await _all(kube, AZURE_IDENTITIES, namespace, lambda raw: raw)
    cluster = WatchedCluster.of(
        SystemClock(),
        pods=[pod],
        identities=map(parse_identity, identities),
        bindings=await _all(kube, AZURE_IDENTITY_BINDINGS, namespace, parse_binding),
        exceptions=await _of(kube, AZURE_POD_IDENTITY_EXCEPTIONS, namespace, parse_exception),
        assigned=await _all(kube, AZURE_ASSIGNED_IDENTITIES, namespace, parse_assigned),
        accounts=await _accounts(kube, namespace),
    )
    objects = [json.loads(bytes(raw)) for raw in identities]
    records = {
        ObjectRef(each["metadata"]["namespace"], each["metadata"]["name"]): record.read(each)
        for each in objects
    }
    return Surroundings(cluster=cluster, records=records)


async def _all(
    kube: Kube, resource: Resource, namespace: str, parse: Callable[[msgspec.Raw], _T]
) -> list[_T]:
    try:
        return await _of(kube, resource, "", parse)
    except KubeError as error:
        if not error.forbidden:
            raise
    return await _of(kube, resource, namespace, parse)


async def _of(
    kube: Kube, resource: Resource, namespace: str, parse: Callable[[msgspec.Raw], _T]
) -> list[_T]:
    page = await kube.list_all(resource.path(namespace))
    return [parse(item) for item in page.items]


async def _accounts(kube: Kube, namespace: str) -> list[WorkloadIdentity | Malformed]:
    found = await _of(kube, SERVICE_ACCOUNTS, namespace, parse_service_account)
    return [each for each in found if not isinstance(each, ObjectRef)]

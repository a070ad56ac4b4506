"""The three watches that fill the cluster in memory, and what they say of themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.reflector import Reflector, Server, Source
from podidentity.core.ports import Clock
from podidentity.core.resources import Malformed
from podidentity.wire.kube import AZURE_IDENTITIES, AZURE_IDENTITY_BINDINGS, PODS
from podidentity.wire.manifests import parse_binding, parse_identity
from podidentity.wire.pods import parse_pod

_log = logging.getLogger("podidentity.watch")


class Watches:
    """Keeps `cluster` as the API server tells it."""

    def __init__(self, server: Server, cluster: WatchedCluster, node: str, clock: Clock) -> None:
        self._cluster = cluster
        sources = (
            Source(
                what=f"pods of node {node}",
                path=PODS.path(),
                params={"fieldSelector": f"spec.nodeName={node}"},
                put=lambda raw: cluster.put_pod(parse_pod(raw)),
                remove=cluster.remove_pod,
                listed=self._listed,
            ),
            Source(
                what="AzureIdentities",
                path=AZURE_IDENTITIES.path(),
                put=self._put_identity,
                remove=cluster.remove_identity,
                listed=self._listed,
            ),
            Source(
                what="AzureIdentityBindings",
                path=AZURE_IDENTITY_BINDINGS.path(),
                put=self._put_binding,
                remove=cluster.remove_binding,
                listed=self._listed,
            ),
        )
        self._reflectors = [Reflector(server, source, clock=clock) for source in sources]

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    def problems(self) -> Sequence[str]:
        """Return what has never been read; an absence of the API server later is none."""
        return [
            f"{reflector.what} not read yet{f': {reflector.trouble}' if reflector.trouble else ''}"
            for reflector in self._reflectors
            if not reflector.synced
        ]

    def _listed(self) -> None:
        if not self._cluster.synced and all(reflector.synced for reflector in self._reflectors):
            self._cluster.mark_synced()
            _log.info("the cluster has been read: requests can be decided")

    def _put_identity(self, raw: msgspec.Raw) -> None:
        identity = parse_identity(raw)
        _warn(identity, [self._cluster.identity(identity.ref)])
        self._cluster.put_identity(identity)

    def _put_binding(self, raw: msgspec.Raw) -> None:
        binding = parse_binding(raw)
        _warn(binding, self._cluster.malformed_bindings(binding.ref.namespace))
        self._cluster.put_binding(binding)


def _warn(found: object, known: Sequence[object]) -> None:
    """Say once what cannot be used, and why."""
    if isinstance(found, Malformed) and found not in known:
        _log.warning("%s %s cannot be used: %s", found.kind, found.ref, found.why)

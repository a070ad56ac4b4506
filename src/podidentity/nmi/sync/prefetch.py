"""Prefetches the tokens of pods that are new on the node.

Otherwise a pod's first request waits for IMDS or Entra, and on a node that starts a hundred pods
all of them wait at once. Seconds pass between the assignment of a pod to the node and its first
request; the token is fetched meanwhile.

The work is bounded and runs in the background, and requests have priority in IMDS's quota. A failed
prefetch is not reported: the pod's own request will fail the same way. Prefetching reacts to
changes, and costs nothing while nothing changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from podidentity.adapters.token_cache import TokenCache
from podidentity.core.authorities import PUBLIC, Cloud
from podidentity.core.decision import STRICT, Authorization, Entitlement, Rules, match, uses_of
from podidentity.core.errors import PodIdentityError, TokenRefused
from podidentity.core.ports import Clock, Cluster, Permissions
from podidentity.core.resources import AzureIdentity, Grant, IdentityType, ObjectRef, Pod

AT_ONCE = 2
MOST_PENDING = 256
"""Length of the queue: as many pods as the largest nodes hold. Others are not prefetched."""
MOST_IDENTITIES = 4
"""Identities of one pod that are prefetched, the best first."""
NEW = 120.0
"""Seconds after a change that concerns a pod in which it is prefetched: an identity may take that
long to come to the node. After it the pod has sent requests itself."""

Choice = Literal["auto", "off"] | tuple[str, ...]
"""The audiences: those requested on this node, else the defaults (auto); none; or a fixed list."""

_DEFAULTS = {
    "AzurePublicCloud": ("https://management.azure.com/", "https://vault.azure.net"),
    "AzureUSGovernmentCloud": (
        "https://management.usgovcloudapi.net/",
        "https://vault.usgovcloudapi.net",
    ),
    "AzureChinaCloud": ("https://management.chinacloudapi.cn/", "https://vault.azure.cn"),
}
"""Audiences of the resource manager and of vaults, the most frequent ones. Other clouds have none.
https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#vault-name-and-object-name
"""

_log = logging.getLogger("podidentity.prefetch")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefetchPolicy:
    """The operator's choices for prefetching."""

    choice: Choice = "auto"
    cloud: Cloud = PUBLIC
    authorization: Authorization = Authorization.RBAC
    rules: Rules = STRICT


class Prefetcher:
    """Prefetches tokens. `run` it as a task; the watches call `changed`."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        tokens: TokenCache,
        permissions: Permissions | None,
        spare: Callable[[], Awaitable[None]],
        clock: Clock,
        policy: PrefetchPolicy,
    ) -> None:
        """`spare` returns when IMDS has quota left for it; `permissions` None: all are granted."""
        self._cluster = cluster
        self._tokens = tokens
        self._permissions = permissions
        self._spare = spare
        self._clock = clock
        self._policy = policy
        self._pending: asyncio.Queue[ObjectRef] = asyncio.Queue(MOST_PENDING)
        self._queued: set[ObjectRef] = set()
        self._seen: dict[ObjectRef, tuple[str, str]] = {}
        """Uid and label of each pod at its last prefetch."""
        self._waiting: dict[ObjectRef, float] = {}
        """Pods without all of their identities, and the time until which they are checked again."""

    def changed(self, kind: str, ref: ObjectRef) -> None:
        """Queue a new pod, or the pods that wait for the changed object."""
        if self._policy.choice == "off":
            return
        if kind == "Pod":
            self._pod_changed(ref)
            return
        for waiting in [each for each in self._waiting if self._concerns(each, kind, ref)]:
            self._queue(waiting)

    def _concerns(self, pod: ObjectRef, kind: str, ref: ObjectRef) -> bool:
        """Whether `pod` may wait for this object: one of its namespace, or its record."""
        if kind == "AzureAssignedIdentity":
            # The controller keeps these in a namespace of its own.
            return any(each.ref == ref for each in self._cluster.assigned(pod))
        return pod.namespace == ref.namespace

    async def run(self) -> None:
        """Work on the queue until cancelled."""
        while not self._cluster.synced:
            await self._cluster.changed()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work())

    def _pod_changed(self, ref: ObjectRef) -> None:
        pod = self._cluster.pod(ref)
        if pod is None or pod.ended:
            self._seen.pop(ref, None)
            self._waiting.pop(ref, None)
        elif self._seen.get(ref) != (pod.uid, pod.selector):
            self._queue(ref)

    def _queue(self, ref: ObjectRef) -> None:
        if ref not in self._queued and not self._pending.full():
            self._queued.add(ref)
            self._pending.put_nowait(ref)

    async def _work(self) -> None:
        while True:
            ref = await self._pending.get()
            self._queued.discard(ref)
            try:
                await self._prepare(ref)
            except PodIdentityError as error:
                # The pod's own request will get the same error.
                _log.debug("nothing prefetched for pod %s: %s", ref, error)
            except Exception:  # noqa: BLE001 - a defect costs one pod its start, not the agent
                _log.exception("nothing prefetched for pod %s; please report this", ref)

    async def _prepare(self, ref: ObjectRef) -> None:
        pod = self._cluster.pod(ref)
        if pod is None or pod.ended:
            return
        self._seen[ref] = (pod.uid, pod.selector)
        until = self._cluster.changed_at(pod) + NEW
        if until <= self._clock.monotonic():
            return
        found = match(pod, self._cluster, self._policy.rules).entitlements[:MOST_IDENTITIES]
        here = [each for each in found if each.awaited is None]
        self._wait(pod.ref, until, still=not found or len(here) < len(found))
        for entitlement in here:
            if await self._permitted(pod, entitlement):
                await self._fetch(Grant(identity=entitlement.identity, pod=pod))

    def _wait(self, ref: ObjectRef, until: float, *, still: bool) -> None:
        """Check the pod again after changes in its namespace, if it still lacks an identity."""
        now = self._clock.monotonic()
        self._waiting = {each: end for each, end in self._waiting.items() if end > now}
        if not still:
            self._waiting.pop(ref, None)
        elif len(self._waiting) < MOST_PENDING:
            self._waiting[ref] = until

    async def _permitted(self, pod: Pod, entitlement: Entitlement) -> bool:
        permissions = self._permissions
        if permissions is None or self._policy.authorization is not Authorization.RBAC:
            return True
        since = self._cluster.seen_at(pod)
        for use in uses_of(pod, entitlement):
            known = permissions.known(use, since)
            if not (await permissions.ask(use, since) if known is None else known):
                return False
        return True

    async def _fetch(self, grant: Grant) -> None:
        for audience in self._audiences(grant.identity):
            if _asks_imds(grant.identity):
                await self._spare()
            try:
                await self._tokens.prepare(grant, audience)
            except TokenRefused as error:
                # The refusal may concern this audience only.
                _log.debug("nothing prefetched for audience %s: %s", audience, error)

    def _audiences(self, identity: AzureIdentity) -> Iterable[str]:
        choice = self._policy.choice
        if isinstance(choice, tuple):
            return choice
        asked = self._tokens.audiences(identity.ref)
        return asked or _DEFAULTS.get(self._policy.cloud.name, ())


def _asks_imds(identity: AzureIdentity) -> bool:
    federation = identity.entra.federation if identity.entra else None
    through = federation is not None and federation.via is not None
    return through or identity.type is IdentityType.USER_ASSIGNED

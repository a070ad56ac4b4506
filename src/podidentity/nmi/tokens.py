"""How tokens are kept, dropped and fetched ahead, assembled."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.imds import Imds
from podidentity.adapters.tokencache import TokenCache
from podidentity.core.decision import current_grants
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock, Permissions, TokenIssuer
from podidentity.nmi.sync.prefetch import Prefetcher, PrefetchPolicy


class Secrets(Protocol):
    """Who knows when a secret is rotated."""

    def follow(self, follower: Callable[[ObjectRef], None]) -> None:
        """Call `follower` with the name of each secret that is rotated or gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSide:
    """The cache, and what must run beside it."""

    cache: TokenCache
    run: Callable[[], Coroutine[Any, Any, None]]


def token_side(
    clock: Clock,
    stack: AsyncExitStack,
    *,
    cluster: WatchedCluster,
    issuer: TokenIssuer,
    imds: Imds,
    secrets: Secrets,
    permissions: Permissions | None,
    policy: PrefetchPolicy,
) -> TokenSide:
    """Build it; `stack` closes it."""
    cache = TokenCache(issuer, clock, current=partial(current_grants, directory=cluster))
    stack.push_async_callback(cache.close)
    prefetcher = Prefetcher(
        cluster=cluster,
        tokens=cache,
        permissions=permissions,
        spare=imds.spare,
        clock=clock,
        policy=policy,
    )
    # First what has ended goes: what is fetched next must not find it.
    cluster.follow(lambda _, ref: cache.changed(ref))
    cluster.follow(prefetcher.changed)
    secrets.follow(cache.changed)
    return TokenSide(cache=cache, run=prefetcher.run)

"""The Secrets that identities name, each watched by its name from its first use on.

An agent with the right to list Secrets could read them all; so it watches one at a time by name,
and RBAC can grant just these. By the watch it learns of a rotation at once, and requests need no
call of the API server.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from podidentity.adapters.reflector import Reflector, Source
from podidentity.core.errors import CredentialUnknown, TokenSourceDown
from podidentity.core.ports import Clock
from podidentity.core.resources import ObjectRef
from podidentity.core.secrets import Secret
from podidentity.waiting import first_of
from podidentity.wire.kube import SECRETS, KubeApi
from podidentity.wire.secrets import parse_secret

MOST = 64
"""Secrets watched at once: each one is a connection to the API server."""
IDLE = 1800.0
"""Seconds after its last use for which a Secret is watched."""
_WAIT = 5.0
_SWEEP = 300.0

_log = logging.getLogger("podidentity.watch")


@dataclass(slots=True, eq=False)
class _Watched:
    """A watched Secret."""

    used: float
    secret: Secret | None = None
    synced: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after the first answer of the API server, also after an error."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set and replaced each time the Secret is created or rotated."""
    task: asyncio.Task[None] | None = None


class WatchedSecrets:
    """A core.ports.Secrets. `run` it as a task."""

    def __init__(self, server: KubeApi, clock: Clock, *, most: int = MOST) -> None:
        self._server = server
        self._clock = clock
        self._most = most
        self._watched: dict[ObjectRef, _Watched] = {}
        self._followers: list[Callable[[ObjectRef], None]] = []
        # The key never leaves this process, so a leaked digest cannot be compared with anything.
        self._key = secrets.token_bytes(32)

    def follow(self, follower: Callable[[ObjectRef], None]) -> None:
        """Call `follower` with the name of each Secret after a rotation or deletion."""
        self._followers.append(follower)

    def known(self, ref: ObjectRef) -> Secret | None:
        """Return the current Secret; None if it is not read yet, or does not exist."""
        watched = self._watched.get(ref)
        if watched is None:
            return None
        watched.used = self._clock.monotonic()
        return watched.secret

    async def read(self, ref: ObjectRef) -> Secret:
        """Return the Secret after reading it; raise a TokenUnavailable."""
        watched = self._watched.get(ref) or self._watch(ref)
        watched.used = self._clock.monotonic()
        if not watched.answered.is_set():
            await first_of(watched.answered.wait(), self._clock.sleep(_WAIT))
        if watched.secret is not None:
            return watched.secret
        if watched.synced:
            raise CredentialUnknown(
                f"Secret {ref.name} does not exist, or cannot be read",
                status=401,
                error="invalid_client",
                # Look the event up when called: it is replaced each time the Secret arrives.
                comes=lambda: watched.news.wait(),
            )
        # The cause is only logged: it may name objects that the pod must not know.
        raise TokenSourceDown(f"Secret {ref.name} cannot be read at the moment")

    async def run(self) -> None:
        """End idle watches until cancelled; then end all of them."""
        try:
            while True:
                await self._clock.sleep(_SWEEP)
                oldest = self._clock.monotonic() - IDLE
                for ref in [ref for ref, each in self._watched.items() if each.used < oldest]:
                    self._end(ref)
        finally:
            for ref in list(self._watched):
                self._end(ref)

    def _watch(self, ref: ObjectRef) -> _Watched:
        if len(self._watched) >= self._most:
            self._end(self._dispensable(ref))
        watched = _Watched(used=self._clock.monotonic())
        source = Source(
            what=f"secret {ref}",
            path=SECRETS.path(ref.namespace),
            params={"fieldSelector": f"metadata.name={ref.name}"},
            put=lambda raw: self._put(ref, watched, raw),
            remove=lambda _: self._remove(ref, watched),
            listed=lambda: self._listed(watched),
            failed=watched.answered.set,
        )
        task = asyncio.create_task(Reflector(self._server, source, clock=self._clock).run())
        task.add_done_callback(lambda done: self._ended(ref, watched, done))
        watched.task = task
        self._watched[ref] = watched
        return watched

    def _dispensable(self, new: ObjectRef) -> ObjectRef:
        """Return the least recently used Secret of the namespace with most of them, `new` included.

        So a namespace evicts only its own Secrets.
        """
        crowd = Counter(ref.namespace for ref in (new, *self._watched))
        return min(self._watched, key=lambda ref: (-crowd[ref.namespace], self._watched[ref].used))

    def _put(self, ref: ObjectRef, watched: _Watched, raw: msgspec.Raw) -> None:
        watched.secret = parse_secret(raw, key=self._key)
        watched.news.set()
        watched.news = asyncio.Event()
        self._tell(ref)

    def _remove(self, ref: ObjectRef, watched: _Watched) -> None:
        watched.secret = None
        self._tell(ref)

    def _tell(self, ref: ObjectRef) -> None:
        for follower in self._followers:
            follower(ref)

    def _listed(self, watched: _Watched) -> None:
        watched.synced = True
        watched.answered.set()

    def _end(self, ref: ObjectRef) -> None:
        task = self._watched.pop(ref).task
        if task is not None:
            task.cancel()

    def _ended(self, ref: ObjectRef, watched: _Watched, done: asyncio.Task[None]) -> None:
        """Forget a Secret whose watch has ended: nothing would report its changes."""
        if self._watched.get(ref) is watched:
            del self._watched[ref]
        if not done.cancelled() and (error := done.exception()) is not None:
            _log.error("watching secret %s ended: %s", ref, type(error).__name__)

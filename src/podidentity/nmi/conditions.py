"""Whoever made an AzurePodIdentityException is told by a condition whether it has effect.

All nodes watch all exceptions; each speaks of those that are meant for a pod of its own. So that
one node writes what all would say, each waits a moment of its own, and then writes only what the
object does not say already. And each says the same of one version of an object once: nodes with
different flags, as during a rollout, would else contradict each other for ever.

What is written waits for nobody and nobody waits for it: where the API server is away, or more is
to be said than there is room for, it is dropped, and said with the next change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from zlib import crc32

from podidentity.core.excepting import Effect, effect, meant_for
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock
from podidentity.core.resources import AzurePodIdentityException, Malformed, Pod
from podidentity.core.usability import Rules
from podidentity.wire.conditions import Said, Word, parse_said, render_said
from podidentity.wire.kube import AZURE_POD_IDENTITY_EXCEPTIONS, KubeError

EFFECTIVE = "Effective"
"""The condition's type."""
SPREAD = 2.0
"""Seconds over which the nodes of a cluster begin to write."""
PACE = 0.2
"""Seconds between two writes of this agent."""
PAUSE = 60.0
"""Seconds without any after one that failed."""
ROOM = 500
"""Exceptions that wait to be spoken of."""

_log = logging.getLogger("podidentity.conditions")

Found = AzurePodIdentityException | Malformed


class Server(Protocol):
    """The part of `Kube` that is needed."""

    async def get(self, path: str) -> bytes:
        """Return an object; raise KubeError."""

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Change an object; raise KubeError."""


class Pods(Protocol):
    """The part of the watched cluster that is needed."""

    def pod(self, ref: ObjectRef) -> Pod | None:
        """Return the pod of that name."""

    def pods_in(self, namespace: str) -> Sequence[Pod]:
        """Return the node's pods of a namespace."""

    def exceptions(self, namespace: str) -> Sequence[AzurePodIdentityException]:
        """Return the exceptions of a namespace."""

    def follow(self, follower: Callable[[str, ObjectRef], None]) -> None:
        """Call `follower` with kind and name of each object that changes."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An exception as the watch tells it."""

    found: Found
    said: Said


class Conditions:
    """Writes the conditions of exceptions; `run` it as a task."""

    def __init__(
        self, server: Server, cluster: Pods, clock: Clock, *, rules: Rules, node: str
    ) -> None:
        self._server = server
        self._cluster = cluster
        self._clock = clock
        self._rules = rules
        self._moment = crc32(node.encode()) / 2**32 * SPREAD
        self._known: dict[ObjectRef, _Known] = {}
        self._done: dict[ObjectRef, tuple[str, Word]] = {}
        """Uid and word of what needs no word of ours any more."""
        self._waiting: dict[ObjectRef, None] = {}
        self._news = asyncio.Event()
        self._trouble = False
        cluster.follow(self._changed)

    def seen(self, found: Found, said: Said) -> None:
        """Take note of an exception, and of what it says of itself."""
        self._known[found.ref] = _Known(found, said)
        self._consider(found.ref)

    def gone(self, ref: ObjectRef) -> None:
        """Forget an exception."""
        for each in (self._known, self._done, self._waiting):
            each.pop(ref, None)

    def _changed(self, kind: str, ref: ObjectRef) -> None:
        pod = self._cluster.pod(ref) if kind == "Pod" else None
        if pod is None:
            return
        for exception in self._cluster.exceptions(ref.namespace):
            if meant_for(pod, exception, self._rules):
                self._consider(exception.ref)

    def _consider(self, ref: ObjectRef) -> None:
        if self._to_say(ref) is None or ref in self._waiting:
            return
        if len(self._waiting) < ROOM:
            self._waiting[ref] = None
            self._news.set()

    def _to_say(self, ref: ObjectRef) -> tuple[Said, Word, Effect] | None:
        """Return what the object should say and does not."""
        known = self._known.get(ref)
        if known is None:
            return None
        found = effect(known.found, self._cluster.pods_in(ref.namespace), self._rules)
        if found is None:
            return None
        word = Word(holds=found.holds, reason=found.reason, generation=known.said.generation)
        if known.said.word == word:
            self._done[ref] = (known.said.uid, word)
        if self._done.get(ref) == (known.said.uid, word):
            return None
        return known.said, word, found

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            await self._news.wait()
            await self._clock.sleep(self._moment)
            self._news.clear()
            while self._waiting:
                ref = next(iter(self._waiting))
                del self._waiting[ref]
                await self._say(ref)

    async def _say(self, ref: ObjectRef) -> None:
        wanted = self._to_say(ref)
        if wanted is None:
            return
        try:
            await self._write(ref, *wanted)
        except KubeError as error:
            if not self._trouble:
                _log.warning("conditions of exceptions cannot be written: %s", error)
            self._trouble = True
            self._waiting.clear()
            await self._clock.sleep(PAUSE)
        else:
            self._trouble = False
            await self._clock.sleep(PACE)

    async def _write(self, ref: ObjectRef, known: Said, word: Word, found: Effect) -> None:
        path = AZURE_POD_IDENTITY_EXCEPTIONS.path(ref.namespace, ref.name)
        raw = await self._read(path)
        now = parse_said(raw, EFFECTIVE)
        if not now.uid or (now.uid, now.generation) != (known.uid, known.generation):
            return  # it has changed, or is no more: the watch will tell
        if now.word != word:
            body = render_said(raw, EFFECTIVE, word, found.message, self._clock.time())
            if not await self._merged(f"{path}/status", body):
                return
        self._done[ref] = (known.uid, word)

    async def _read(self, path: str) -> bytes:
        """Return the object; nothing where it is no more."""
        try:
            return await self._server.get(path)
        except KubeError as error:
            if not error.not_found:
                raise
            return b""

    async def _merged(self, path: str, body: Mapping[str, Any]) -> bool:
        """Write; return False where somebody was faster."""
        try:
            await self._server.merge(path, body)
        except KubeError as error:
            if not error.conflict:
                raise
            return False
        return True

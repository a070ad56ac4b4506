"""A list and then a watch that never ends: how the agent's memory stays what the cluster is.

    list ──► watch ──► (ended by the server) ──► watch again from the last version
      ▲                │
      └── an error that the server states, an answer that makes no sense, a version smaller than
          the last one, or three failures in a row

A watch from a version that the server does not have tells nothing of what happened, and a restored
etcd may lack that version for hours. So, as in client-go's reflector, an error of a watch leads to
a new list; only a connection that breaks, or a server that asks for patience (429), is followed by
another watch from the same version. While the API server is away what is known stays, and keeps
serving. After a new list, what is no longer in it is removed.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
https://github.com/kubernetes/client-go/blob/master/tools/cache/reflector.go
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock
from podidentity.wire.kube import Event, KubeApi, KubeError, NotKubernetes, parse_object_version

FIRST_DELAY = 0.1
LONGEST_DELAY = 10.0
"""Seconds: a cluster's agents, all back at once after an outage, come within this time."""
SHORT_WATCH = 1.0
"""Seconds. A watch that ends sooner without a word is a failure, not the server's time-out."""
MOST_FAILURES = 3
"""Failures in a row after which the version is not trusted any more."""

_log = logging.getLogger("podidentity.watch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is watched, and who is told."""

    what: str
    """For messages: `pods of node n1`."""
    path: str
    put: Callable[[msgspec.Raw], None]
    """Takes an object that is new or changed; ValueError: it cannot be read."""
    remove: Callable[[ObjectRef], None]
    listed: Callable[[], None]
    """Called after each complete list."""
    params: Mapping[str, str] = field(default_factory=dict)
    """Selectors."""
    failed: Callable[[], None] = lambda: None
    """Called when the list or the watch fails; it is tried again all the same."""


class Reflector:
    """Keeps one source told. `run` it as a task; it ends only by being cancelled."""

    def __init__(
        self,
        server: KubeApi,
        source: Source,
        *,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._source = source
        self._clock = clock
        self._jitter = jitter
        self._known: set[ObjectRef] = set()
        self._version = ""
        self._failures = 0
        """In a row; the next attempt waits the longer."""
        self._failures_of_version = 0
        """In a row, of watches from the present version."""
        self._heard = clock.monotonic()
        self.what = source.what
        self.synced = False
        """Whether the list has been read once."""
        self.trouble = ""
        """Why the cluster cannot be watched just now; "" while it can."""

    @property
    def age(self) -> float:
        """Seconds since the API server last said anything about this source."""
        return self._clock.monotonic() - self._heard

    async def run(self) -> None:
        """Follow the source for ever."""
        while True:
            try:
                await self._follow()
            except NotKubernetes as error:
                self._version = ""
                await self._back_off(str(error))
            except KubeError as error:
                if not (error.unreachable or error.throttled):
                    self._version = ""
                await self._back_off(str(error))

    async def _follow(self) -> None:
        if not self._version:
            await self._list()
        begun = self._clock.monotonic()
        try:
            heard = await self._watch()
        finally:
            lasted = self._clock.monotonic() - begun >= SHORT_WATCH
            if lasted:
                self._succeeded()
        if not heard and not lasted:
            await self._back_off("the watch ended at once")

    async def _list(self) -> None:
        page = await self._server.list_all(self._source.path, self._source.params)
        # All names are read before anything is changed: a list that breaks off in the middle
        # must neither add nor forget.
        items = [(parse_object_version(item).ref, item) for item in page.items]
        before, self._known = self._known, set()
        for ref, item in items:
            self._put(ref, item)
        for ref in before - self._known:
            self._source.remove(ref)
        self._version, self._failures_of_version = page.resource_version, 0
        self._heard = self._clock.monotonic()
        self.synced = True
        self._source.listed()

    async def _watch(self) -> bool:
        """Return whether the server said anything before it ended the watch."""
        events = self._server.watch(
            self._source.path,
            self._source.params,
            resource_version=self._version,
            opened=self._opened,
        )
        heard = False
        async with aclosing(events):
            async for event in events:
                heard = True
                self._take(event)
                self._succeeded()
        return heard

    def _take(self, event: Event) -> None:
        meta = parse_object_version(event.object)
        if event.type in {"ADDED", "MODIFIED"}:
            self._put(meta.ref, event.object)
        elif event.type == "DELETED":
            self._forget(meta.ref)
        self._heard = self._clock.monotonic()
        if _is_older(meta.resource_version, self._version):
            raise NotKubernetes(
                f"version {meta.resource_version} follows {self._version}: the history went back"
            )
        self._version = meta.resource_version or self._version

    def _put(self, ref: ObjectRef, raw: msgspec.Raw) -> None:
        try:
            self._source.put(raw)
        except ValueError as error:
            _log.warning("%s: %s cannot be read and is ignored: %s", self._source.what, ref, error)
            self._forget(ref)
        except Exception:  # noqa: BLE001 - a defect costs one object, not the agents of all nodes
            _log.exception("%s: %s is ignored; please report this", self._source.what, ref)
            self._forget(ref)
        else:
            self._known.add(ref)

    def _forget(self, ref: ObjectRef) -> None:
        self._known.discard(ref)
        self._source.remove(ref)

    def _opened(self) -> None:
        if self.trouble:
            _log.info("watching %s again", self._source.what)
        self.trouble = ""
        self._heard = self._clock.monotonic()

    def _succeeded(self) -> None:
        self._failures = self._failures_of_version = 0

    async def _back_off(self, why: str) -> None:
        if not self.trouble:
            _log.warning("cannot watch %s, and try on: %s", self._source.what, why)
        self.trouble = why
        self._source.failed()
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._failures_of_version += 1
        if self._failures_of_version >= MOST_FAILURES:
            self._version = ""
        await self._clock.sleep(delay * (0.5 + self._jitter() / 2))


def _is_older(version: str, than: str) -> bool:
    """Whether `version` comes before `than`; False where the two cannot be compared.

    From Kubernetes 1.35 on versions are decimal numbers that can be compared; etcd's always were.
    https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/5504-comparable-resource-version
    """
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)

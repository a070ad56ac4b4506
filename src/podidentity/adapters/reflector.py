"""A list followed by an endless watch, which keep objects in memory equal to those of the cluster.

    list ──► watch ──► (ended by the server) ──► watch again from the last version
      ▲                │
      └── resync after: an error from the server, an answer that is no Kubernetes JSON, a version
          smaller than the last one, or three failures in a row

A watch from a version that the server does not have is silent, and a restored etcd may lack that
version for hours. So, as in client-go's reflector, an error of a watch leads to a new list. Only
after a broken connection or a 429 the watch is opened again from the same version. After a watch
that broke, or ended before its time, a list of one object shows first that the server has that
version. While the API server is away the known objects stay in use. After a new list, objects that
it does not contain are removed.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
https://github.com/kubernetes/client-go/blob/master/tools/cache/reflector.go
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from math import inf

import msgspec

from podidentity.backoff import backoff
from podidentity.core.budgets import Ration, kept_bytes
from podidentity.core.ports import Clock
from podidentity.core.rate_limits import RateLimiter
from podidentity.core.resources import ObjectRef
from podidentity.lasting import STARTING, Lasting
from podidentity.wire.kube import (
    WATCH_SECONDS,
    Event,
    KubeApi,
    KubeError,
    NotKubernetes,
    ObjectVersion,
    Page,
    parse_object_version,
)

FIRST_DELAY = 0.1
LONGEST_DELAY = 10.0
"""Seconds: after an outage the agents of a cluster reconnect spread over this time."""
SHORT_WATCH = 1.0
"""Seconds. A watch that ends sooner without an event has failed; it is no timeout of the server."""
MOST_FAILURES = 3
"""Failures in a row after which the reflector lists again."""

STALE = 30.0
"""Seconds without the API server after which people are warned. A restart takes less."""
SILENCE = 90.0
"""Seconds. An API server that sends bookmarks sends one a minute: one that is silent hangs."""

AT_ONCE, OF_OBJECT = 64 << 10, 1 << 10
"""Bytes of objects that are taken before others have a turn: 3 ms of hostile JSON. To take a small
object costs as much as to read a kilobyte."""

LINES_AT_ONCE, LINES_PER_SECOND = 20, 1 / 60
"""Of the log, about the objects of one namespace."""
_DIGITS = 40
"""Of a version that is compared; those of etcd have at most twenty."""

_log = logging.getLogger("podidentity.watch")


class ObjectLog:
    """The log of what is wrong with single objects: a few lines for each namespace.

    A tenant may change an object all the time, and would drive all else out of the logs of all
    nodes.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines = RateLimiter(LINES_PER_SECOND, LINES_AT_ONCE)
        self._silenced: set[str] = set()

    def warning(self, namespace: str, message: str, *args: object) -> None:
        if not self._lines.take(namespace, self._clock.monotonic()):
            self._silenced.discard(namespace)
            _log.warning(message, *args)
        elif namespace not in self._silenced:
            self._silenced.add(namespace)
            _log.warning(
                "namespace %s has more objects that cannot be used, of which little is said here; "
                "podidentity check names them",
                namespace or "''",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A list of objects to watch, and the callbacks for its changes."""

    what: str
    """For messages: `pods of node n1`."""
    path: str
    put: Callable[[msgspec.Raw], object]
    """Called with each new or changed object; raises ValueError if it cannot be read.

    Returns what is kept of it, which counts in the budget of its namespace.
    """
    remove: Callable[[ObjectRef], None]
    listed: Callable[[], None]
    """Called after each complete list."""
    params: Mapping[str, str] = field(default_factory=dict)
    budget: float = inf
    """Bytes of memory for what is kept of each namespace."""
    left_out: Callable[[str, ObjectRef | None], None] = lambda _, __: None
    """Called with a namespace and its oldest object that the budget leaves out.

    That is before any of the objects is removed. None: nothing is left out any more.
    """
    failed: Callable[[], None] = lambda: None
    """Called when the list or the watch fails, before it is retried."""
    doubted: Callable[[], None] = lambda: None
    """Called when the API server may have another history than it had, before it is read; but not
    again while a list that `renew` asked for is still to come."""


class Reflector:
    """Lists and watches one source. `run` it as a task; it ends only by cancellation."""

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
        self._objects = ObjectLog(clock)
        self._kept = Ration(source.budget)
        self._left_out: dict[str, ObjectRef] = {}
        """By namespace, as the source was told."""
        self._version = ""
        self._failures = 0
        """In a row; the delay before the next attempt grows with it."""
        self._failures_of_version = 0
        """In a row, of watches from the current version."""
        self._refusals = Lasting()
        self._lost = False
        """Whether a watch ended early since the server showed that it has our version."""
        self._heard = clock.monotonic()
        self._bookmarked = False
        self._watching: asyncio.Timeout | None = None
        self._renewals = 0
        self.anew = True
        """Whether a complete list has begun since the last `renew`."""
        self.what = source.what
        self.synced = False
        """Whether the list has been read once."""
        self.trouble = ""
        """Why the source cannot be watched now; "" while it can."""

    @property
    def age(self) -> float:
        """Seconds since the API server last sent anything about this source."""
        return self._clock.monotonic() - self._heard

    @property
    def stale(self) -> float:
        """How many seconds old the known objects may be; 0 while the source is followed."""
        lost = self.trouble or (self._bookmarked and self.age >= SILENCE)
        return self.age if self.synced and lost else 0.0

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except NotKubernetes as error:
                self._doubt()
                await self._back_off(str(error))
            except KubeError as error:
                if not (error.unreachable or error.throttled):
                    self._doubt()
                self._lost |= error.unreachable
                await self._back_off(str(error), error)

    async def _follow(self) -> None:
        if self._version and self._lost and not self._kept.stale:
            await self._compare()
        while not self._version or self._kept.stale:
            await self._list()
        self._lost = False
        begun = self._clock.monotonic()
        try:
            heard = await self._watch()
        finally:
            seconds = self._clock.monotonic() - begun
            lasted = seconds >= SHORT_WATCH
            if lasted:
                self._succeeded()
        # If something that is left out may fit now, it is listed now. A watch takes minutes.
        self._lost = seconds < WATCH_SECONDS
        if not heard and not lasted and not self._kept.stale:
            await self._back_off("the watch ended at once")

    async def _compare(self) -> None:
        """Forget our version if the server's history ends before it."""
        page = await self._server.list(self._source.path, {**self._source.params, "limit": "1"})
        if is_older(page.resource_version, self._version):
            _log.warning(
                "the API server went back from version %s to %s: listing %s again",
                self._version,
                page.resource_version,
                self._source.what,
            )
            self._doubt()

    def renew(self) -> None:
        self._renewals, self.anew, self._kept.stale = self._renewals + 1, False, True
        if self._watching is not None:
            self._watching.reschedule(0.0)
            self._watching = None

    def _doubt(self) -> None:
        self._version = ""
        if self.synced and self.anew:
            self._source.doubted()

    async def _list(self) -> None:
        """Read the list page by page, so that one page at a time is in memory.

        All names of a page are parsed before the first change: one with a broken object must not
        add anything. Only the whole list says what is not there any more.
        """
        before, self._kept = self._kept, Ration(self._source.budget)
        version, renewals = "", self._renewals
        try:
            pages = self._server.pages(self._source.path, self._source.params)
            async with aclosing(pages):
                async for page in pages:
                    if is_older(page.resource_version, self._version):
                        self._doubt()
                    metas = [parse_object_version(item) async for _, item in in_turns(page)]
                    async for number, item in in_turns(page):
                        self._put(metas[number], item)
                    version = page.resource_version
        except BaseException:
            for ref in self._kept.resume(before):
                self._source.remove(ref)
            self._kept.stale = True
            raise
        for ref in before.refs():
            if ref not in self._kept:
                self._source.remove(ref)
        for namespace in {*self._left_out, *self._kept.namespaces()}:
            self._tell_left_out(namespace)
        self._version, self._failures_of_version = version, 0
        self._heard = self._clock.monotonic()
        self.synced, self.anew = True, renewals == self._renewals
        self._source.listed()

    async def _watch(self) -> bool:
        """Watch until the server ends it; return whether any event came."""
        events = self._server.watch(
            self._source.path,
            self._source.params,
            resource_version=self._version,
            opened=self._opened,
        )
        heard = False
        try:
            async with asyncio.timeout(None) as self._watching, aclosing(events):
                async for event in events:
                    heard = True
                    self._take(event)
                    self._succeeded()
        except TimeoutError:
            return heard  # by `renew`
        finally:
            self._watching = None
        self._heard = self._clock.monotonic()
        return heard

    def _take(self, event: Event) -> None:
        meta = parse_object_version(event.object)
        if event.type in {"ADDED", "MODIFIED"}:
            self._put(meta, event.object)
        elif event.type == "DELETED":
            self._forget(meta)
        self._heard = self._clock.monotonic()
        self._bookmarked |= event.type == "BOOKMARK"
        if is_older(meta.resource_version, self._version):
            raise NotKubernetes(
                f"version {meta.resource_version} follows {self._version}: the history went back"
            )
        self._version = meta.resource_version or self._version

    def _put(self, meta: ObjectVersion, raw: msgspec.Raw) -> None:
        ref = meta.ref
        if self._kept.has_no_room(ref, meta.created):
            self._tell_left_out(ref.namespace)
            self._kept.lose(ref)
            self._source.remove(ref)
            return
        try:
            kept = self._source.put(raw)
        except ValueError as error:
            told = "%s: %s cannot be read and is ignored: %s"
            self._objects.warning(ref.namespace, told, self._source.what, ref, error)
            self._forget(meta)
        except Exception:  # noqa: BLE001 - a defect costs one object, not the agents of all nodes
            _log.exception("%s: %s is ignored; please report this", self._source.what, ref)
            self._forget(meta)
        else:
            out = self._kept.keep(ref, meta.created, kept_bytes(kept))
            if out:
                self._tell_left_out(ref.namespace)
            for each in out:
                self._source.remove(each)

    def _forget(self, meta: ObjectVersion) -> None:
        self._kept.lose(meta.ref, meta.created)
        self._source.remove(meta.ref)

    def _tell_left_out(self, namespace: str) -> None:
        """Tell the source, and people once, if another object of a namespace is left out first."""
        ref = self._kept.left_out(namespace)
        if ref == self._left_out.get(namespace):
            return
        if ref is not None and namespace not in self._left_out:
            told = "%s: namespace %s is over its budget: %s and all younger ones are left out"
            self._objects.warning(namespace, told, self._source.what, namespace, ref)
        if ref is None:
            del self._left_out[namespace]
        else:
            self._left_out[namespace] = ref
        self._source.left_out(namespace, ref)

    def _opened(self) -> None:
        if self.trouble:
            _log.info("watching %s again", self._source.what)
        self.trouble = ""
        self._refusals.passed()
        self._heard = self._clock.monotonic()

    def _succeeded(self) -> None:
        self._failures = self._failures_of_version = 0

    async def _back_off(self, why: str, error: KubeError | None = None) -> None:
        """Wait; a server that is overloaded names the time, and is not asked for a list."""
        lasts = False
        if error is None or not error.forbidden:
            self._refusals.passed()
        elif self._refusals.refused(self._clock.monotonic()):
            lasts = why != self.trouble
        else:
            why = STARTING
        if lasts or not self.trouble:
            _log.warning("cannot watch %s, and try on: %s", self._source.what, why)
        self.trouble = why
        self._source.failed()
        self._failures += 1
        delay = backoff(FIRST_DELAY, self._failures, LONGEST_DELAY)
        self._failures_of_version += error is None or not error.throttled
        if self._failures_of_version >= MOST_FAILURES and self._version:
            self._doubt()
        jitter = self._jitter()
        asked = error.wait(jitter) if error else 0.0
        await self._clock.sleep(max(delay * (1 + jitter) / 2, asked))


async def in_turns(page: Page) -> AsyncIterator[tuple[int, msgspec.Raw]]:
    """Yield the objects of a page with their numbers, and let other tasks work in between."""
    size = AT_ONCE  # the page itself was just decoded
    for number, item in enumerate(page.items):
        if size >= AT_ONCE:
            size = 0
            await asyncio.sleep(0)
        yield number, item
        size += OF_OBJECT + len(item)


def is_older(version: str, than: str) -> bool:
    """Whether `version` comes before `than`; False if the two cannot be compared.

    From Kubernetes 1.35 on versions are decimal numbers that can be compared; etcd's always were.
    https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/5504-comparable-resource-version
    """
    # Those of etcd have 64 bits, and Python reads no number of thousands of digits.
    comparable = all(each.isdecimal() and len(each) <= _DIGITS for each in (version, than))
    return comparable and int(version) < int(than)


class Reflectors:
    """All lists that a program follows."""

    def __init__(self, server: KubeApi, sources: Sequence[Source], clock: Clock) -> None:
        self._reflectors = [Reflector(server, source, clock=clock) for source in sources]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    def problems(self) -> Sequence[str]:
        """Return the lists that were never read; a later outage of the API server is no problem."""
        return [
            f"{reflector.what} not read yet{f': {reflector.trouble}' if reflector.trouble else ''}"
            for reflector in self._reflectors
            if not reflector.synced
        ]

    def warnings(self) -> Sequence[str]:
        """Return a warning while the objects of a list may be older than `STALE`."""
        oldest = max(self._reflectors, key=lambda reflector: reflector.stale)
        if oldest.stale < STALE:
            return ()
        why = (oldest.trouble or "the API server sends nothing").rstrip(".").replace(";", ",")
        return (
            f"NMI decides on what it knew {oldest.stale:.0f} s ago, because it cannot watch "
            f"{oldest.what} ({why}); it tries again every few seconds, see that the API server "
            "answers NMI",
        )

    def followed(self) -> list[Reflector]:
        return list(self._reflectors)

    @property
    def all_followed(self) -> bool:
        """Whether each list is followed now. An API server that starts shows some of them first."""
        return all(each.synced and not each.trouble for each in self._reflectors)

    @property
    def all_read(self) -> bool:
        return all(reflector.synced for reflector in self._reflectors)

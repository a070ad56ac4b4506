"""Which of MIC's replicas works: the holder of a Lease; the others watch, and are warm.

    candidate ──── the Lease is free, or was seen unchanged for its duration ────► leader
        ▲                                                                            │
        └── another one holds it, or no renewal was answered for two thirds of it ───┘

Two clocks are never compared: a candidate measures by its own monotonic clock from when it saw the
record change, as client-go does, and a leader from when it sent its last renewal. So a leader that
stood still stops by itself before another one may begin: `leading` is asked before each write. What
was under way then may still arrive, and meets the ledger's resourceVersion.

While a controller of AAD Pod Identity holds its lock, ours waits: two planners would undo each
other's work. Its lock is a record in an annotation of Endpoints, or the same Lease.

https://github.com/kubernetes/client-go/blob/master/tools/leaderelection/leaderelection.go
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

from podidentity.adapters.reflector import Reflector, Source, is_older
from podidentity.core.ports import Clock
from podidentity.core.resources import ObjectRef
from podidentity.waiting import first_of
from podidentity.wire.kube import ENDPOINTS, LEASES, KubeApi, KubeError
from podidentity.wire.leases import (
    Lock,
    NotALock,
    parse_lease,
    parse_old_lock,
    released,
    render_lease,
    render_patch,
    taken,
)

RENEWED = 1 / 4
"""Part of the duration after which a leader renews, and a candidate looks."""
TRUSTED = 2 / 3
"""Part of the duration for which a leader works after it has sent a renewal that was answered."""
SPREAD = 0.2
"""Part of a candidate's pause by which candidates differ."""
RELEASE_SECONDS = 2.0
"""A planned stop waits so long for the API server: the next leader would wait for the Lease."""
RELEASE_PAUSE = 0.1
"""Seconds until it tries again where the server failed and named no time."""

_T = TypeVar("_T")
_log = logging.getLogger("podidentity.mic")


class _Seen:
    """A record, and since when it has not changed, by our clock."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.since = 0.0

    def see(self, lock: Lock, now: float) -> None:
        if lock.mark != self.lock.mark:
            self.since = now
        self.lock = lock

    def is_newer_than(self, version: str) -> bool:
        """Whether that version is older: a watch may tell later what a write has told already."""
        return is_older(version, self.lock.version)

    def held_until(self, default: int) -> float:
        """Return until when its holder may still be at work; 0 for nobody's."""
        if not self.lock.holder:
            return 0.0
        return self.since + (self.lock.seconds or default)


class Election:
    """One candidate. `run` it as a task, and `release` at a planned stop."""

    def __init__(
        self,
        server: KubeApi,
        clock: Clock,
        *,
        me: str,
        lock: ObjectRef,
        seconds: int,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._clock = clock
        self._me = me
        self._lock = lock
        self._seconds = seconds
        self._led: Callable[[float], None] = lambda _: None
        self._lost: Callable[[], None] = lambda: None
        self._jitter = jitter
        self._lease, self._old = _Seen(), _Seen()
        self._until = 0.0
        """Monotonic; until then we lead."""
        self._believes = False
        """Whether `led` was called, and `lost` not yet."""
        self._stopped = False
        self._news = asyncio.Event()
        self._trouble = ""
        self._told = ""
        self.elections = 0
        """How often it became the leader."""

    def follow(self, led: Callable[[float], None], lost: Callable[[], None]) -> None:
        """Have `led` called when it becomes the leader and at each renewal, with until when it is.

        `lost` is called when it is that no more. Times are monotonic.
        """
        self._led, self._lost = led, lost

    @property
    def leading(self) -> bool:
        """Whether we may write: nobody else can be leader at this moment."""
        return self._clock.monotonic() < self._until

    @property
    def leader(self) -> str:
        """Who leads, as far as is known; "" for nobody."""
        return self._me if self.leading else self._lease.lock.holder

    @property
    def waits_for(self) -> str:
        """What is waited for before we may lead; "" if we lead."""
        if self.leading:
            return ""
        if self._clock.monotonic() < self._old.held_until(self._seconds):
            return (
                f"a controller of AAD Pod Identity, {self._old.lock.holder}, holds its lock "
                f"(Endpoints {self._lock}); delete its Deployment, and this one begins"
            )
        holder = self._lease.lock.holder
        return f"{holder} leads" if holder and holder != self._me else "the Lease is not taken yet"

    def problems(self) -> Sequence[str]:
        """Return what an operator must correct before anybody can lead."""
        return (self._trouble,) if self._trouble else ()

    async def run(self) -> None:
        """Try to lead, and go on leading, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._campaign())

    async def release(self) -> None:
        """Give the Lease up, so that the next leader need not wait; lead no more."""
        self._stopped = True
        held = self.leading
        self._end("")
        if not held:
            return
        lock = self._lease.lock
        body = render_patch(lock.version, released(lock, self._clock.time()))
        # Nobody is hurt where that fails: the others wait for the end of the Lease.
        with suppress(KubeError, TimeoutError):
            await self._within(RELEASE_SECONDS, self._give_up(body))

    # Inside

    async def _give_up(self, body: Mapping[str, Any]) -> None:
        """Write the released Lease, and again where the server fails; raise KubeError.

        The version in `body` keeps a second one from harm where the answer of the first was lost.
        """
        while True:
            try:
                await self._server.merge(self._path, body)
            except KubeError as error:
                failed = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
                if not (failed or error.throttled or error.unreachable):
                    raise
                pause = max(RELEASE_PAUSE, float(error.retry_after))
            else:
                return
            await self._clock.sleep(pause)

    @property
    def _path(self) -> str:
        return LEASES.path(self._lock.namespace, self._lock.name)

    async def _watch(self) -> None:
        """Follow the Lease: one that is released is taken at once."""

        def put(raw: msgspec.Raw) -> None:
            found = parse_lease(raw)
            if self._lease.is_newer_than(found.version):
                return
            self._lease.see(found, self._clock.monotonic())
            if found.holder != self._me:
                self._news.set()

        source = Source(
            what="leases",
            path=LEASES.path(self._lock.namespace),
            params={"fieldSelector": f"metadata.name={self._lock.name}"},
            put=put,
            remove=lambda _: self._news.set(),
            listed=lambda: None,
        )
        await Reflector(self._server, source, clock=self._clock).run()

    async def _campaign(self) -> None:
        while not self._stopped:
            self._news.clear()
            await self._turn()
            await self._pause()

    async def _turn(self) -> None:
        """Renew or try to lead once."""
        try:
            if self._believes:
                await self._renew()
            else:
                await self._try()
        except NotALock as error:
            self._failed(f"the lock {self._lock} cannot be read: {error}")
        except TimeoutError:
            self._failed("the API server does not answer about the Lease in time")
        except KubeError as error:
            self._failed(_cause(error, self._lock))
        else:
            if self._trouble:
                _log.info("the Lease %s can be asked for again", self._lock)
            self._trouble = ""
        if self._believes and not self.leading:
            self._end("the Lease could not be renewed in time")
        self._say()

    async def _renew(self) -> None:
        if await self._archived():
            self._end(f"a controller of AAD Pod Identity works: {self._old.lock.holder}")
            # The other replicas wait for it just as well.
            return
        left = self._until - self._clock.monotonic()
        try:
            if self._lease.lock.holder == self._me:
                await self._within(left, self._write())
                return
        except KubeError as error:
            if not error.conflict and not error.not_found:
                raise
        await self._within(left, self._look())
        if self._lease.lock.holder == self._me:
            await self._within(left, self._write())
        else:
            self._end(f"{self._lease.lock.holder or 'nobody'} has the Lease")

    async def _try(self) -> None:
        patience = self._seconds * TRUSTED
        if await self._archived():
            return
        await self._within(patience, self._look())
        now, lock = self._clock.monotonic(), self._lease.lock
        if lock.holder != self._me and now < self._lease.held_until(self._seconds):
            return
        try:
            await self._within(patience, self._write())
        except KubeError as error:
            if not error.conflict:
                raise  # another candidate was faster: the next look shows who

    async def _archived(self) -> bool:
        """Whether an archived controller may be at work."""
        patience = self._seconds * TRUSTED
        if self._believes:
            patience = self._until - self._clock.monotonic()
        path = ENDPOINTS.path(self._lock.namespace, self._lock.name)
        try:
            found = parse_old_lock(await self._within(patience, self._server.get(path)))
        except KubeError as error:
            if not error.not_found:
                raise
            found = Lock()
        self._old.see(found, self._clock.monotonic())
        return self._clock.monotonic() < self._old.held_until(self._seconds)

    async def _look(self) -> None:
        try:
            found = parse_lease(await self._server.get(self._path))
        except KubeError as error:
            if not error.not_found:
                raise
            found = Lock()
        self._lease.see(found, self._clock.monotonic())

    async def _write(self) -> None:
        """Take the Lease or renew it: one write, refused if it has changed since it was seen."""
        sent, lock = self._clock.monotonic(), self._lease.lock
        spec = taken(lock, self._me, self._seconds, self._clock.time())
        if lock.version:
            stored = await self._server.merge(self._path, render_patch(lock.version, spec))
        else:
            body = render_lease(self._lock.namespace, self._lock.name, spec)
            stored = await self._server.create(LEASES.path(self._lock.namespace), body)
        self._lease.see(parse_lease(stored), self._clock.monotonic())
        if self._stopped:
            return
        # From when it was sent: nobody saw the change earlier than that.
        self._until = sent + self._seconds * TRUSTED
        if not self.leading:
            return
        if not self._believes:
            self._believes = True
            self.elections += 1
            _log.info("%s leads", self._me)
        self._led(self._until)

    def _end(self, why: str) -> None:
        self._until = 0.0
        if self._believes:
            self._believes = False
            if why:
                _log.warning("%s leads no more, and writes nothing: %s", self._me, why)
            self._lost()

    def _failed(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning("%s", trouble)
        self._trouble = trouble

    def _say(self) -> None:
        """Log what is waited for, when that changes."""
        waits = self.waits_for
        if waits != self._told and waits:
            _log.info("not leading: %s", waits)
        self._told = waits

    async def _pause(self) -> None:
        """Wait for the next turn; a candidate not longer than until the Lease ends."""
        now, pause = self._clock.monotonic(), self._seconds * RENEWED
        if self._believes:
            left = self._until - now
            # After a failure sooner, so that a renewal is tried several times.
            pause = min(pause if not self._trouble else pause / 4, max(left, 0.0))
        else:
            pause *= 1 + SPREAD * self._jitter()
            ends = max(self._lease.held_until(self._seconds), self._old.held_until(self._seconds))
            if not self._trouble and now < ends:
                pause = min(pause, ends - now)
        await first_of(self._news.wait(), self._clock.sleep(pause))

    async def _within(self, seconds: float, asking: Awaitable[_T]) -> _T:
        """Return the answer, or raise TimeoutError after `seconds` of our clock."""
        answer = asyncio.ensure_future(asking)
        ended = asyncio.ensure_future(self._clock.sleep(max(seconds, 0.0)))
        try:
            await asyncio.wait({answer, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise TimeoutError
            return answer.result()
        finally:
            ended.cancel()
            if answer.cancel():
                # Its connection is closed before anybody goes on.
                await asyncio.wait({answer})


def _cause(error: KubeError, lock: ObjectRef) -> str:
    if error.forbidden:
        return (
            f"MIC may not ask for the Lease or the Endpoints {lock}: {error}; its Role "
            "podidentity-mic in that namespace gives it get, list, watch, create and patch on "
            "leases, and get on endpoints"
        )
    return str(error)

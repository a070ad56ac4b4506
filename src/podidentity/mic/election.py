"""Leader election: the MIC replica that holds a Lease works, the other replicas stay warm.

    candidate ──── the Lease is free, or unchanged for its duration ────► leader
        ▲                                                                   │
        └── another replica holds it, or the last answered renewal is too old

No two clocks are compared. A candidate counts the duration from when it saw the Lease change. A
leader counts from when it sent its last answered renewal, which is earlier, and stops `MARGIN`
seconds before the duration ends. So two replicas never lead at once, and a leader that stood still
knows it: `leading` is asked before each write. A write that is under way then meets the ledger's
resourceVersion.

A renewal is one PUT with the resourceVersion of the last one. The API server has a priority level
for `get`, `create` and `update` of Leases by accounts of kube-system. A merge patch has no part in
it.

MIC waits while a controller of AAD Pod Identity holds its lock, because two planners would undo
each other's work. That lock is an annotation of Endpoints, read by a task of its own, or the same
Lease.

https://github.com/kubernetes/client-go/blob/master/tools/leaderelection/leaderelection.go
https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from math import inf
from typing import TypeVar

import msgspec

from podidentity.adapters.reflector import Reflector, Source, is_older
from podidentity.core.ports import Clock
from podidentity.core.resources import ObjectRef
from podidentity.lasting import STARTING, Lasting
from podidentity.waiting import first_of
from podidentity.wire.kube import ENDPOINTS, LEASES, KubeApi, KubeError
from podidentity.wire.leases import (
    Lock,
    NotALock,
    parse_lease,
    parse_old_lock,
    released,
    render_lease,
    taken,
)

RENEWED = 1 / 4
"""Part of the duration after which a leader sends the next renewal, and a candidate looks."""
MARGIN = 2.0
"""Seconds before the end of the Lease at which a leader stops; a third of a short Lease."""
SPREAD = 0.2
"""Part of a candidate's pause by which candidates differ."""
RELEASE_SECONDS = 12.0
"""A planned stop waits so long for the API server: the next leader would wait for the Lease. The
kubelet kills MIC after 15 s."""
RELEASE_PAUSE = 0.1
"""Seconds until it tries again where the server failed and named no time; then twice as many."""
RARELY = 15.0
"""Seconds between two reads of the archived lock, and the age of a read that a candidate needs."""
SOON = 2.0
"""Seconds between two reads after one failed, or found the lock held within `REMEMBERED`."""
REMEMBERED = 600.0
BLIND = 60.0
"""Seconds without a read of the archived lock after which a leader stops; `RARELY` if the lock was
held within `REMEMBERED`."""

_T = TypeVar("_T")
_log = logging.getLogger("podidentity.mic")


class _Seen:
    """A lock, and until when another holder counts by our clock."""

    def __init__(self, me: str, default: int) -> None:
        self._me = me
        self._default = default
        self.lock = Lock()
        self.until = 0.0

    def see(self, lock: Lock, now: float) -> None:
        """Take a version of the lock. A deleted lock counts to its end: its holder works on."""
        if lock.holder and lock.holder != self._me:
            if lock.mark != self.lock.mark:
                self.until = now + (lock.seconds or self._default)
        elif lock.version and not lock.holder:
            self.until = 0.0
        self.lock = lock


class _Troubles:
    """By kind of object, why the last request about it failed."""

    def __init__(self, lock: ObjectRef) -> None:
        self._lock = lock
        self._refusals: dict[str, Lasting] = {}
        self._why: dict[str, str] = {}

    def of(self, kind: str) -> str:
        return self._why.get(kind, "")

    def all(self) -> tuple[str, ...]:
        return tuple(filter(None, self._why.values()))

    def take(self, kind: str, error: Exception | None, now: float) -> None:
        """Take what came of a request; log a new cause once."""
        forbidden = isinstance(error, KubeError) and error.forbidden
        if not forbidden:
            self._refusals.pop(kind, None)
        if error is None:
            if self._why.pop(kind, ""):
                _log.info("the API server answers about the %s %s again", kind, self._lock)
            return
        why = str(error)
        if isinstance(error, NotALock):
            why = f"the lock {self._lock} cannot be read: {error}"
        elif isinstance(error, TimeoutError):
            why = f"the API server does not answer about the {kind} {self._lock} in time"
        elif forbidden:
            lasts = self._refusals.setdefault(kind, Lasting()).refused(now)
            why = f"{error} {_RIGHTS}" if lasts else STARTING
        if why != self._why.get(kind):
            _log.warning("%s", why)
        self._why[kind] = why


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
        self._trusted = seconds - min(MARGIN, seconds / 3)
        """How long an answered renewal counts, in seconds from its sending."""
        self._patience = self._trusted / 2
        """Seconds after which a request is given up and sent again. The connection of the first
        one is closed by then, and so are those that were not used meanwhile (`IDLE`)."""
        self._lease, self._old = _Seen(me, seconds), _Seen("", seconds)
        self._until, self._sent = 0.0, 0.0
        """Until when we lead; when the last turn began. Monotonic, as all times here."""
        self._unanswered: float | None = None
        """When the earliest renewal without an answer was sent."""
        self._renewed = ""
        """renewTime of the last renewal that was answered."""
        self._read_at, self._held_at = -inf, -inf
        """When the last good read of the archived lock was sent; when one found it held."""
        self._ask, self._read = asyncio.Event(), asyncio.Event()
        self._believes = False
        """Whether `led` was called, and `lost` not yet."""
        self._stopped = False
        self._news, self._turn = asyncio.Event(), asyncio.Lock()
        self._troubles = _Troubles(lock)
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
        if self._clock.monotonic() < self._old.until:
            return (
                f"a controller of AAD Pod Identity, {self._old.lock.holder}, holds its lock "
                f"(Endpoints {self._lock}); delete its Deployment, and this one begins"
            )
        holder = self._lease.lock.holder
        return f"{holder} leads" if holder and holder != self._me else "the Lease is not taken yet"

    def problems(self) -> Sequence[str]:
        """Return what an operator must correct before anybody can lead."""
        return self._troubles.all()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_archived())
            group.create_task(self._watch())
            group.create_task(self._campaign())

    async def release(self) -> None:
        """Give the Lease up, so that the next leader need not wait; lead no more."""
        self._stopped = True
        self._end("")
        # If that fails the other replicas wait for the end of the Lease.
        with suppress(KubeError, NotALock, TimeoutError):
            await self._within(RELEASE_SECONDS, self._give_up())

    # Inside

    async def _give_up(self) -> None:
        """Write the released Lease, and again where the server fails; raise KubeError."""
        pause = RELEASE_PAUSE
        async with self._turn:  # a renewal that is under way changes the version
            while self._lease.lock.holder == self._me:
                spec = released(self._lease.lock, self._clock.time())
                try:
                    await self._server.replace(self._path, self._body(spec))
                except KubeError as error:
                    if error.conflict:
                        # The answer of a renewal or of the first attempt was lost.
                        await self._look()
                        continue
                    failed = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
                    if not (failed or error.throttled or error.unreachable):
                        raise
                    await self._clock.sleep(max(pause, float(error.retry_after)))
                    pause *= 2
                else:
                    return

    def _body(self, spec: dict[str, object]) -> dict[str, object]:
        return render_lease(self._lock.namespace, self._lock.name, spec, self._lease.lock)

    @property
    def _path(self) -> str:
        return LEASES.path(self._lock.namespace, self._lock.name)

    async def _watch(self) -> None:
        """Follow the Lease: one that is released is taken at once."""

        def put(raw: msgspec.Raw) -> None:
            found = parse_lease(raw)
            # A watch may tell later what a write has told already.
            if is_older(found.version, self._lease.lock.version):
                return
            self._lease.see(found, self._clock.monotonic())
            if found.holder != self._me:
                self._end(f"{found.holder or 'nobody'} has the Lease")
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
            self._sent = self._clock.monotonic()
            async with self._turn:
                await self._asked("Lease", self._renew() if self._believes else self._try())
            if self._believes and not self.leading:
                self._end("the Lease could not be renewed in time")
            self._say()
            await self._pause()

    async def _renew(self) -> None:
        earlier = self._unanswered
        if earlier is None:
            self._unanswered = self._sent
        try:
            await self._write(min(self._patience, self._until - self._sent))
        except KubeError as error:
            if not error.conflict and not error.not_found:
                raise
            await self._within(self._until - self._clock.monotonic(), self._look())
            lock = self._lease.lock
            if lock.holder != self._me:
                self._end(f"{lock.holder or 'nobody'} has the Lease")
                return
            if earlier is not None and lock.renewed != self._renewed:
                # An earlier renewal was made. No candidate saw it before the earliest one was sent.
                self._renewed = lock.renewed
                self._lead(earlier + self._trusted)
            self._sent = -inf  # the next one goes out at once
        self._unanswered = None

    async def _try(self) -> None:
        if not (self._lease.lock.version and self._clock.monotonic() >= self._lease.until):
            await self._within(self._patience, self._look())
        if self._clock.monotonic() < self._lease.until:
            return
        if self._clock.monotonic() > self._read_at + RARELY:
            self._read.clear()
            self._ask.set()
            with suppress(TimeoutError):
                await self._within(self._patience, self._read.wait())
        now = self._clock.monotonic()
        if self._stopped or now > self._read_at + RARELY or now < self._old.until:
            return
        try:
            await self._write(self._patience)
        except KubeError as error:
            if not error.conflict and not error.not_found:
                raise
            # Another candidate was faster, the Lease was deleted, or a request was made unseen.
            await self._within(self._patience, self._look())
            if self._clock.monotonic() >= self._lease.until:
                self._news.set()

    async def _follow_archived(self) -> None:
        """Read the archived controller's lock, and end leading where it works or may work."""
        while True:
            sent, patience = self._clock.monotonic(), self._patience
            if self._believes:
                patience = min(patience, self._blind_at - sent)
            asking = self._within(patience, self._read_archived())
            if await self._asked("Endpoints", asking):
                self._read_at = sent
                self._read.set()
            self._ask.clear()
            now, trouble = self._clock.monotonic(), self._troubles.of("Endpoints")
            if now < self._old.until:
                self._held_at = now
                self._end(f"a controller of AAD Pod Identity works: {self._old.lock.holder}")
            elif self._believes and now >= self._blind_at:
                self._end(f"AAD Pod Identity's controller may work, and cannot be seen: {trouble}")
            self._say()
            pause = SOON if trouble or now < self._held_at + REMEMBERED else RARELY
            if self._believes:
                pause = min(pause, max(self._blind_at - now, 0.0))
            await first_of(self._ask.wait(), self._clock.sleep(pause))

    @property
    def _blind_at(self) -> float:
        """When a leader must have read the archived lock again."""
        seen = self._clock.monotonic() < self._held_at + REMEMBERED
        return self._read_at + (RARELY if seen else BLIND)

    async def _read_archived(self) -> None:
        path = ENDPOINTS.path(self._lock.namespace, self._lock.name)
        try:
            self._old.see(parse_old_lock(await self._server.get(path)), self._clock.monotonic())
        except KubeError as error:
            if not error.not_found:
                raise
            self._old.until = 0.0

    async def _look(self) -> None:
        try:
            found = parse_lease(await self._server.get(self._path))
        except KubeError as error:
            if not error.not_found:
                raise
            found = Lock()
        self._lease.see(found, self._clock.monotonic())

    async def _write(self, patience: float) -> None:
        """Take the Lease or renew it by one request, refused if the Lease has changed."""
        sent, lock = self._clock.monotonic(), self._lease.lock
        body = self._body(taken(lock, self._me, self._seconds, self._clock.time()))
        if lock.version:
            asking = self._server.replace(self._path, body)
        else:
            asking = self._server.create(LEASES.path(self._lock.namespace), body)
        stored = parse_lease(await self._within(patience, asking))
        self._lease.see(stored, self._clock.monotonic())
        self._renewed = stored.renewed
        self._lead(sent + self._trusted)

    def _lead(self, until: float) -> None:
        # An answer may come after something else has ended the lead.
        begins = max(self._lease.until, self._old.until)
        if self._stopped or not begins <= self._clock.monotonic() < min(until, self._blind_at):
            return
        self._until = until
        if not self._believes:
            self._believes = True
            self.elections += 1
            _log.info("%s leads", self._me)
        self._led(until)

    def _end(self, why: str) -> None:
        self._until, self._unanswered = 0.0, None
        if self._believes:
            self._believes = False
            if why:
                _log.warning("%s leads no more, and writes nothing: %s", self._me, why)
            self._lost()

    async def _asked(self, kind: str, asking: Awaitable[None]) -> bool:
        """Return whether these requests were answered; keep why not."""
        failure: Exception | None = None
        try:
            await asking
        except (KubeError, NotALock, TimeoutError) as error:
            failure = error
        self._troubles.take(kind, failure, self._clock.monotonic())
        return failure is None

    def _say(self) -> None:
        waits = self.waits_for
        if waits != self._told and waits:
            _log.info("not leading: %s", waits)
        self._told = waits

    async def _pause(self) -> None:
        """Wait for the next turn; a candidate not longer than until the locks end."""
        now, pause = self._clock.monotonic(), self._seconds * RENEWED
        failed = bool(self._troubles.of("Lease"))
        if self._believes:
            # From sending to sending. After a failure sooner, so that a renewal has several tries.
            soonest = self._seconds * RENEWED / 4 if failed else pause
            pause = min(self._sent + pause - now, soonest, self._until - now)
        else:
            pause *= 1 + SPREAD * self._jitter()
            ends = max(self._lease.until, self._old.until)
            if not failed and now < ends:
                pause = min(pause, ends - now)
        if pause > 0:
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


_RIGHTS = (
    "MIC's Role in that namespace gives it get, list, watch, create, update and patch on leases, "
    "and get on endpoints. Apply it again: podidentity enable --mic."
)

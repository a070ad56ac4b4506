"""One host: from what it should have to the next call, one at a time.

    read ── plan ── gather ── list what is in use ── ledger ── change ── poll ── ledger
     ▲                                                           │        │
     └────────────── conflict, preemption, no answer, failure ───┴────────┘

`HostWork.next` looks at what is known and gives the one call that is due, `HostWork.take` takes its
result; nothing else moves. So a host never has two calls under way, and after a crash or a lost
answer the same look finds where to go on: the ledger says what was begun.

A host is read before each change; what is absent in that read becomes ours by the change, and the
change names the version that was read. An identity is *proved* when a read of a settled host or an
operation that has succeeded showed it: only then a record may say Assigned. Before a detach a
quorum of the API server is asked what is in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from math import inf
from typing import Literal, Protocol

from podidentity.backoff import backoff
from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.ledger import (
    LONGEST_CHANGE,
    MOST_AT_ONCE,
    HostPlan,
    Ledger,
    Wanted,
    immutable,
    plan,
)
from podidentity.mic.calls import (
    Accepted,
    Action,
    Condition,
    Failure,
    Fault,
    InUse,
    ListUse,
    LogLine,
    PatchHost,
    PollOperation,
    Progress,
    ReadHost,
    ReadLedger,
    Result,
    StoredLedger,
    WriteLedger,
)
from podidentity.mic.conditions import of_failure

GATHER, QUIET = 2.5, 0.4
"""Seconds for which changes of a host are gathered at most, and after the last of them.

What comes a moment later waits for a whole change of a scale set, 40 to 60 s: so a rollout of many
pods within two seconds is one change. A pod alone waits `QUIET`. One second at most would be two
changes, and twice the time for the last pod (docs/performance.md has the figures).
"""
FRESH = 5.0
"""Seconds for which a read, a list or a written ledger allows the change that follows it."""
PATIENCE = 900.0
"""Seconds for which another's change of the host is waited for."""
LONGEST_OPERATION = 1800.0
"""Seconds after which a change that does not end is looked at again."""
HELD = 30.0
"""Seconds between two looks at what a list shows in use and the watch does not."""
IDLE = 900.0
"""Seconds after which a host of which nothing is wanted is forgotten."""

_AGAIN = 5.0
_FIRST_POLL, _LONGEST_POLL = 1.0, 60.0
_LONGEST_PAUSE, _LONGEST_FAILED = 60.0, 600.0
_FORBIDDEN, _DENIED = 30.0, 3600.0
"""Seconds until a change is tried again that a missing right, or a deny assignment, forbids."""

_AILING = 3
"""Failures in a row after which people are told."""

Kind = Literal["read", "write", "poll"]


class Status(Enum):
    """What is known of an identity on a host."""

    PROVED = auto()
    LISTED = auto()
    """The host lists it, but a change of it is under way or has failed."""
    ABSENT = auto()
    UNKNOWN = auto()
    """The host is not read yet."""


@dataclass(frozen=True, slots=True)
class RefusedIdentity:
    """Azure's refusal of one identity on one host."""

    until: float
    """When it is tried again."""
    tries: int
    message: str
    clients: frozenset[str] = frozenset()
    """The client ids by which it was wanted: by others it may be attached at once."""

    def holds(self, now: float, wanted: Wanted | None) -> bool:
        return now < self.until and (wanted is None or wanted.clients == self.clients)


class Surroundings(Protocol):
    """What the work on a host sees of the rest of the controller."""

    def wanted(self, host: Host) -> Mapping[str, Wanted]: ...
    def undecided(self, host: Host) -> frozenset[str]: ...

    def in_use(self, host: Host, listed: InUse) -> frozenset[str] | None:
        """Return those that the listed pods may need; None: they may need any."""

    @property
    def doubts(self) -> bool:
        """Whether lists are read anew, so that nothing may be detached."""

    def has_nodes(self, host: Host) -> bool: ...

    def admit(self, host: Host, kind: Kind, now: float) -> bool:
        """Whether Azure may be called now; otherwise the host is called when it may."""

    def closed(self, host: Host, kind: Kind, now: float) -> bool:
        """Whether Azure has asked for no more calls for now."""

    def leave(self, host: Host, kind: Kind) -> None:
        """Take that the host does not want to call Azure now, though it was admitted."""

    def paused(self, host: Host) -> bool: ...
    def report(self, report: LogLine) -> None: ...


@dataclass(slots=True)
class _Known:
    """What is known of a host."""

    seen: HostIdentities | None = None
    read_at: float = -inf
    unread: bool = False
    """It must be read before anything is decided."""
    unreadable: bool = False
    """A right to read it is missing."""
    proved: frozenset[str] = frozenset()
    gone: bool = False
    updating_since: float | None = None
    awaits_list: bool = False
    """A list that is under way will show it, so it is not read alone."""
    listable: bool = False
    """Nothing was done with it since a list of its group, and of the ledgers, began."""
    book_listable: bool = False
    idle_since: float | None = None


@dataclass(slots=True)
class _Round:
    """The change that is being prepared, or is under way."""

    gather_from: float | None = None
    gather_until: float = -inf
    admitted: bool = False
    listed_at: float = -inf
    fenced_at: float = -inf
    sent: HostPlan = field(default_factory=HostPlan)
    most: int = MOST_AT_ONCE
    operation: str = ""
    begun: float = -inf
    poll_at: float = -inf


class HostWork:
    """The work on one host. Times are seconds since 1970."""

    def __init__(
        self,
        host: Host,
        around: Surroundings,
        *,
        grace: float,
        protected: frozenset[str] = frozenset(),
    ) -> None:
        self.host = host
        self._around = around
        self._grace = grace
        self._protected = protected

        self.due: float | None = None
        """When `next` is to be called again, whatever happens."""
        self.changed: dict[str, None] = {}
        """Ids of which the status or the refusal changed; the controller takes them out."""
        self.refused: dict[str, RefusedIdentity] = {}
        self.trouble: Failure | None = None
        """Why the host cannot be changed at all."""

        self._flight: Action | None = None
        self._rest_until = -inf
        self._barred_until = -inf
        """Until then no change is tried: the host may not be changed at all."""
        self._failures = 0

        self._known = _Known()
        # The ledger, as it is stored.
        self._book = Ledger(host=host)
        self._version = ""
        self._book_known = True
        self._ended = True
        """Whether all changes of which the ledger speaks have ended."""
        self._landed: frozenset[str] = frozenset()
        """What changes may have attached of what the ledger says is being attached."""

        # What is ours and not needed.
        self._unused: dict[str, float] = {}
        self._held: dict[str, float] = {}

        self._round = _Round()
        self._statuses: dict[str, Status] = {}

    # What is known.

    @property
    def busy(self) -> bool:
        return self._flight is not None or bool(self._round.operation)

    def status(self, folded: str) -> Status:
        if self._known.gone:
            return Status.ABSENT
        if self._known.seen is None:
            return Status.UNKNOWN
        if folded not in self._known.seen.user:
            return Status.ABSENT
        if folded in self._known.proved and folded not in self._book.detaching:
            return Status.PROVED
        return Status.LISTED

    def refusal(self, folded: str) -> Condition | None:
        """Return why the host cannot have an identity; None if it can, or may yet."""
        refused = self.refused.get(folded)
        if refused is not None:
            failure = Failure(kind=Fault.BAD_IDENTITIES, message=refused.message)
            return of_failure(failure, self.host)
        if self.trouble is not None and self.status(folded) is not Status.PROVED:
            return of_failure(self.trouble, self.host)
        return None

    def ailment(self) -> str:
        """Return why the host is not as it should be, and MIC cannot help it; "" if it can."""
        if self.trouble is not None:
            return self.trouble.message or self.trouble.kind.value
        return f"{self._failures} tries in a row have failed" if self._failures >= _AILING else ""

    def droppable(self, now: float) -> bool:
        if self.busy or not self._book.empty:
            return False
        if self._known.gone and not self._version and not self._around.has_nodes(self.host):
            return True
        if self._around.wanted(self.host):
            return False
        if self._version and self._known.unread:
            return False
        idle = self._known.idle_since is not None and now >= self._known.idle_since + IDLE
        return idle or not self._around.has_nodes(self.host)

    # What happens.

    def adopt(self, stored: StoredLedger) -> None:
        """Take the ledger as another leader, or this one before, left it."""
        lost = stored.malformed or (stored.ledger is None and not self._book.empty)
        if lost:
            self._around.report(
                LogLine(
                    "ledger-lost",
                    f"The ledger of {self.host.name} is lost"
                    f"{f': {stored.malformed}' if stored.malformed else ''}. What MIC attached to "
                    "it before is not detached any more.",
                    "Detach by hand what no pod needs: docs/how-to/run-mic.md says how.",
                    self.host,
                )
            )
        self._book = stored.ledger or Ledger(host=self.host)
        self._version = stored.version
        self._book_known = True
        self._ended = not self._book.unresolved
        self._landed = frozenset(self._book.attaching)
        # What the other one did is on the host, not in what was read before.
        self._known.unread = True

    def touch(self, now: float) -> None:
        wanted = self._around.wanted(self.host)
        for folded in [each for each in self._unused if each in wanted]:
            del self._unused[folded]
        if wanted:
            self._known.idle_since = None
        if self._round.gather_from is not None:
            self._round.gather_until = min(self._round.gather_from + GATHER, now + QUIET)
        self._note_statuses(wanted)

    def look_again(self) -> None:
        """Have the host read: another may have changed it."""
        self._known.unread = True

    def expect(self) -> None:
        if not self.busy:
            self._known.listable = True
            self._known.awaits_list = self._known.seen is None

    def expect_ledger(self) -> None:
        self._known.book_listable = not self.busy

    def compare(self, stored: StoredLedger) -> None:
        """Take the ledger that a list shows: a MIC that lost its leadership may have written it."""
        if not self._known.book_listable or stored.version == self._version:
            return
        if self._flight is None:
            self.adopt(stored)
        else:
            # What is being read of the host may be older than the ledger, which is read first then.
            self._book_known = False

    def show(self, seen: HostIdentities | None, now: float) -> None:
        """Take what a list of the group shows of the host; None: it does not show it."""
        self._known.awaits_list = False
        if not self._known.listable or self.busy:
            return
        self._known.listable = False
        if seen is None:
            self._known.unread = True
        else:
            self._see(seen, now)
            self._note_statuses(self._around.wanted(self.host))

    # The next call.

    def next(self, now: float) -> Action | None:
        """Return the call that is due, if one is; `due` says when to look again."""
        self.due = None
        if self._flight is not None:
            return None
        action = self._choose(now)
        if action is not None:
            self._flight = action
            self._known.awaits_list = self._known.listable = False
            # A read of the host leaves the ledger as it is.
            self._known.book_listable &= isinstance(action, ReadHost)
        return action

    def _choose(self, now: float) -> Action | None:
        if self._round.operation:
            return self._poll(now)
        if now < self._rest_until:
            return self._wait(self._rest_until)
        if not self._book_known:
            return ReadLedger(self.host)
        wanted = self._around.wanted(self.host)
        if wanted or not self._book.empty:
            self._known.idle_since = None
        elif self._known.idle_since is None:
            self._known.idle_since = now
        if self._known.seen is None or self._known.unread:
            needed = wanted or self._version or self._known.seen is not None
            return self._read(now) if needed else None
        if self._known.gone:
            return self._leave(now, wanted)
        return self._change(now, self._known.seen, wanted)

    def _change(
        self, now: float, seen: HostIdentities, wanted: Mapping[str, Wanted]
    ) -> Action | None:
        # By the time of the read: what came since then is not in it.
        book = self._book.resolved(
            seen, self._known.read_at, ended=self._ended, landed=self._landed
        )
        planned = plan(
            book,
            seen,
            wanted,
            proved=self._known.proved,
            refused=frozenset(
                each for each, why in self.refused.items() if why.holds(now, wanted.get(each))
            ),
            unneeded=self._unneeded(now, seen, book, wanted),
            most=self._round.most,
        )
        barred = now < self._barred_until or self._around.paused(self.host)
        if planned.empty or barred:
            return self._settle(now, book, wanted)
        if self._is_updating(now):
            again = self._known.read_at + _AGAIN
            self._known.unread = now >= again
            return self._read(now) if self._known.unread else self._wait(again)
        if self._round.gather_from is None:
            # All changes that come together are gathered.
            self._round.gather_from, self._round.gather_until = now, now + QUIET
        if now < self._round.gather_until:
            return self._wait(self._round.gather_until)
        if not self._round.admitted:
            self._round.admitted = self._around.admit(self.host, "write", now)
            if not self._round.admitted:
                return None
        # Behind the gate: who waits long for his turn is read when it has come, and keeps it.
        if now > self._known.read_at + FRESH:
            return self._read(now)
        if planned.detach and now > self._round.listed_at + FRESH:
            return ListUse()
        return self._write(now, seen, book, planned)

    def _write(
        self, now: float, seen: HostIdentities, book: Ledger, planned: HostPlan
    ) -> Action | None:
        """Return the ledger's write, and behind it the change that it covers."""
        covered = self._book.covered(planned, seen)
        if now > self._round.fenced_at + FRESH or covered.empty:
            return WriteLedger(book.intending(planned, seen, now), self._version)
        if self._around.closed(self.host, "write", now):
            # Azure has refused another host meanwhile.
            self._around.leave(self.host, "write")
            self._round.admitted = self._around.admit(self.host, "write", now)
            return None
        self._round.sent = covered
        return PatchHost(self.host, covered.change(seen), seen.etag)

    def _unneeded(
        self, now: float, seen: HostIdentities, book: Ledger, wanted: Mapping[str, Wanted]
    ) -> frozenset[str]:
        """Return what of ours nothing has needed for the time of grace."""
        ours = {**book.attached, **book.detaching}
        undecided = self._around.undecided(self.host)
        self._unused = {each: since for each, since in self._unused.items() if each in ours}
        found = []
        for folded, entry in ours.items():
            if folded in wanted or folded in undecided:
                self._unused.pop(folded, None)
                continue
            if immutable(entry, folded, seen, self._protected):
                continue
            since = self._unused.setdefault(folded, now)
            if now >= max(since + self._grace, self._held.get(folded, -inf)):
                found.append(folded)
        return frozenset(() if self._around.doubts else found)

    def _settle(self, now: float, book: Ledger, wanted: Mapping[str, Wanted]) -> Action | None:
        """Return the ledger's write if it says what is not so; else rest until something is due."""
        self._round.gather_from = None
        self._give_way()
        if book != self._book:
            return WriteLedger(book, self._version)
        if self._is_updating(now) and any(each not in self._known.proved for each in wanted):
            # Another's change, or one of a MIC before, may bring what is wanted.
            again = self._known.read_at + _AGAIN
            return self._read(now) if now >= again else self._wait(again)
        times = [self._barred_until]
        times += [
            max(since + self._grace, self._held.get(each, -inf))
            for each, since in self._unused.items()
        ]
        times += [why.until for why in self.refused.values()]
        unresolved = (*book.attaching.values(), *book.detaching.values())
        ends = [each.since + LONGEST_CHANGE for each in unresolved]
        if ends := [each for each in ends if each > self._known.read_at]:
            if now >= min(ends):
                return self._read(now)
            times.append(min(ends))
        if self._known.idle_since is not None:
            times.append(self._known.idle_since + IDLE)
        if future := [each for each in times if each > now]:
            self._wait(min(future))
        return None

    def _give_way(self) -> None:
        if self._round.admitted:
            self._round.admitted = False
            self._around.leave(self.host, "write")

    def _read(self, now: float) -> Action | None:
        if self._known.awaits_list or not self._around.admit(self.host, "read", now):
            return None
        return ReadHost(self.host)

    def _poll(self, now: float) -> Action | None:
        if now < self._round.poll_at:
            return self._wait(self._round.poll_at)
        if not self._around.admit(self.host, "poll", now):
            return None
        return PollOperation(self.host, self._round.operation)

    def _leave(self, now: float, wanted: Mapping[str, Wanted]) -> Action | None:
        if not self._around.has_nodes(self.host):
            if self._version:
                return WriteLedger(Ledger(host=self.host), self._version, gone=True)
            return None
        again = self._known.read_at + backoff(60.0, self._failures + 1, 600.0)
        if now >= again and wanted:
            return self._read(now)
        return self._wait(again) if wanted else None

    def _wait(self, until: float) -> Action | None:
        self.due = until if self.due is None else min(self.due, until)
        return None

    def _is_updating(self, now: float) -> bool:
        since = self._known.updating_since
        return since is not None and now < since + PATIENCE

    # Results.

    def take(self, result: Result, now: float) -> None:
        action, self._flight = self._flight, None
        if isinstance(result, Failure):
            # It may take long until this host can go on.
            self._give_way()
        match action:
            case ReadHost():
                self._take_read(result, now)
            case PatchHost():
                self._take_patch(result, now)
            case PollOperation():
                self._take_poll(result, now)
            case ListUse():
                self._take_use(result, now)
            case WriteLedger() | ReadLedger():
                self._take_ledger(action, result, now)
        self._note_statuses(self._around.wanted(self.host))

    def _take_read(self, result: Result, now: float) -> None:
        if isinstance(result, HostIdentities):
            self._see(result, now)
        elif isinstance(result, Failure) and result.kind is Fault.NOT_FOUND:
            self._failures = self._failures + 1 if self._known.gone else 0
            self._known.gone, self._known.unread, self._known.read_at = True, False, now
            self._known.seen = HostIdentities()
        elif isinstance(result, Failure) and result.kind is not Fault.THROTTLED:
            if result.kind in {Fault.FORBIDDEN, Fault.DENIED}:
                self._known.unreadable = True
                self._suffer(result)
            self._rest(now)

    def _see(self, seen: HostIdentities, now: float) -> None:
        self._known.seen, self._known.read_at = seen, now
        if self._known.unreadable:
            self._known.unreadable = False
            self._suffer(None)
        self._known.unread = False
        self._known.gone = seen.being_deleted
        listed = frozenset(seen.user)
        self._known.proved = listed if seen.settled else self._known.proved & listed
        if seen.state != "updating":
            self._known.updating_since = None
        elif self._known.updating_since is None:
            self._known.updating_since = now
        if here := [each for each in self.refused if each in self._known.proved]:
            # Of what is not wanted the detach was refused: that it is there mends nothing.
            wanted = self._around.wanted(self.host)
            for folded in (each for each in here if each in wanted):
                self._forgive(folded)

    def _take_patch(self, result: Result, now: float) -> None:
        self._round.admitted = False
        if isinstance(result, Accepted) or _is_lost(result):
            # The host may list it from now on, whatever becomes of the operation.
            self._landed |= {each.resource_id.folded for each in self._round.sent.attach}
        if isinstance(result, Accepted):
            self._round.begun, self._round.listed_at, self._round.fenced_at = now, -inf, -inf
            if result.operation:
                self._round.operation = result.operation
                self._round.poll_at = now + (result.after or _FIRST_POLL)
            else:
                self._finish(now)
        elif isinstance(result, Failure):
            if _is_lost(result):
                # It may be done, or be done later: the ledger speaks of it until that is known.
                self._ended = False
            self._refuse(result, now)

    def _take_poll(self, result: Result, now: float) -> None:
        if isinstance(result, Progress) and result.done:
            self._finish(now)
        elif isinstance(result, Progress) and now < self._round.begun + LONGEST_OPERATION:
            self._failures = 0
            self._round.operation = result.operation or self._round.operation
            self._round.poll_at = now + min(result.after or _AGAIN, _LONGEST_POLL)
        elif isinstance(result, Failure) and result.kind in _POLL_AGAIN:
            self._failures += 1
            self._round.poll_at = now + backoff(1.0, self._failures, _LONGEST_PAUSE)
        else:
            self._round.operation = ""
            self._known.unread = True
            # An operation that Azure does not know, or that does not end, may still do something.
            self._ended = isinstance(result, Failure) and result.kind is not Fault.NOT_FOUND
            if isinstance(result, Failure):
                self._refuse(result, now)

    def _finish(self, now: float) -> None:
        self._round.operation = ""
        seen, sent = self._known.seen or HostIdentities(), self._round.sent
        attached = {each.resource_id.folded: each.resource_id.spelling for each in sent.attach}
        user = {each: spelled for each, spelled in seen.user.items() if each not in sent.detach}
        user |= attached
        self._known.seen = replace(seen, user=user, state="succeeded")
        self._known.read_at = -inf
        self._known.proved = (self._known.proved | attached.keys()) & user.keys()
        self._known.updating_since = None
        # What was sent before this change names a version that is not the host's any more.
        self._ended = True
        self._failures = 0
        self._suffer(None)
        self._round.most = min(MOST_AT_ONCE, self._round.most * 2)
        for folded in (*attached, *sent.detach):
            self._forgive(folded)
        # Those who waited for the change have waited long enough.
        self._round.gather_from, self._round.gather_until = now, now

    def _take_use(self, result: Result, now: float) -> None:
        if isinstance(result, InUse):
            self._round.listed_at = now
            in_use = self._around.in_use(self.host, result)
            ours = (*self._book.attached, *self._book.detaching)
            self._held = dict.fromkeys(ours if in_use is None else in_use, now + HELD)
        elif isinstance(result, Failure):
            self._rest(now, result.retry_after)

    def _take_ledger(self, action: Action, result: Result, now: float) -> None:
        if isinstance(result, StoredLedger) and isinstance(action, ReadLedger):
            self.adopt(result)
        elif isinstance(result, StoredLedger) and isinstance(action, WriteLedger):
            self._book, self._version = action.ledger, result.version
            self._landed &= action.ledger.attaching.keys()
            self._round.fenced_at = now
        elif isinstance(result, Failure):
            # Whether it was written or not: it is read again, and says so.
            self._book_known, self._round.fenced_at = False, -inf
            self._rest(now, result.retry_after)

    # Refusals and failures.

    def _refuse(self, failure: Failure, now: float) -> None:
        match failure.kind:
            case Fault.BAD_IDENTITIES:
                self._quarantine(failure, now)
            case Fault.DENIED | Fault.FORBIDDEN:
                self._failures += 1
                pause = min(_FORBIDDEN * self._failures, 300.0)
                self._barred_until = now + (_DENIED if failure.kind is Fault.DENIED else pause)
                self._suffer(failure)
            case Fault.THROTTLED:
                pass
            case Fault.UNREACHABLE:
                self._rest(now)
            case Fault.FAILED:
                self._known.unread = True
                self._rest(now, most=_LONGEST_FAILED)
            case _:
                self._known.unread = True
                self._rest(now)

    def _quarantine(self, failure: Failure, now: float) -> None:
        """Leave out the identities that Azure names; the others go on at once."""
        sent = [
            *(each.resource_id.folded for each in self._round.sent.attach),
            *self._round.sent.detach,
        ]
        clients = {each.resource_id.folded: each.clients for each in self._round.sent.attach}
        bad = [each for each in sent if each in failure.bad]
        if not bad and len(sent) > 1:
            # It does not say which: halves find out.
            self._round.most = max(1, len(sent) // 2)
            return
        for folded in bad or sent:
            tries = self.refused[folded].tries + 1 if folded in self.refused else 1
            until = now + backoff(5.0, tries, 600.0)
            self.refused[folded] = RefusedIdentity(
                until, tries, failure.message, clients.get(folded, frozenset())
            )
            self.changed[folded] = None

    def _forgive(self, folded: str) -> None:
        if self.refused.pop(folded, None) is not None:
            self.changed[folded] = None

    def _suffer(self, failure: Failure | None) -> None:
        """Take why the host cannot be changed, or read, at all; None: it can."""
        before = self.trouble and self.trouble.message
        if before != (failure and failure.message):
            self.changed |= dict.fromkeys(self._around.wanted(self.host))
        self.trouble = failure

    def _rest(self, now: float, least: float = 0.0, most: float = _LONGEST_PAUSE) -> None:
        self._failures += 1
        self._rest_until = now + max(least, backoff(1.0, self._failures, most))

    def _note_statuses(self, wanted: Iterable[str]) -> None:
        """Note of which wanted identities the status is another one now."""
        before, self._statuses = self._statuses, {each: self.status(each) for each in wanted}
        for folded, status in self._statuses.items():
            if before.get(folded, Status.UNKNOWN) is not status:
                self.changed[folded] = None


def _is_lost(result: Result) -> bool:
    return isinstance(result, Failure) and result.kind is Fault.LOST


_POLL_AGAIN = {Fault.THROTTLED, Fault.UNREACHABLE, Fault.LOST}

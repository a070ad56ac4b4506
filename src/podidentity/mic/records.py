"""The records: from what AzureAssignedIdentities should say to the next write about each.

A record costs a pod's life two writes where its identity is on the host, or comes within `LATE`
seconds (created as Assigned, deleted), else three. It waits for nothing that does not concern it:
only its own host's state. An old finalizer of the archived project's is taken off where a record is
kept, and before it is deleted, so that none outlives MIC.
"""

from __future__ import annotations

from collections.abc import Callable, KeysView
from dataclasses import replace
from typing import NamedTuple

from podidentity.backoff import backoff
from podidentity.core.assignments import Need, attachment
from podidentity.core.resources import Assignment, ObjectRef
from podidentity.mic.calls import (
    Action,
    CreateRecord,
    DeleteRecord,
    Failure,
    Fault,
    ReadRecord,
    Record,
    Result,
    StoredRecord,
    UpdateRecord,
)
from podidentity.mic.hosts import Status

LATE = 10.0
"""Seconds after which a new record tells that its identity is awaited: more than a fast change of
the host takes where the API server answers after 3 s. A write under way keeps Assigned waiting."""
_LONGEST, _LONGEST_INVALID = 30.0, 300.0

_Wait = tuple[str, str, str]
"""The pod's uid, its node and the ARM id."""
Revisions = tuple[str, str]
"""Of an identity and of a binding."""


class _Trouble(NamedTuple):
    """What failed about a record."""

    failures: int
    until: float
    unread: bool


class Records:
    """The work on all records. Times are seconds since 1970."""

    def __init__(
        self,
        needed: Callable[[ObjectRef], Need | None],
        status: Callable[[Need], Status],
        revisions: Callable[[Need], Revisions],
    ) -> None:
        self._needed = needed
        self._status = status
        self._revisions = revisions
        self._stored: dict[ObjectRef, StoredRecord] = {}
        self._deleted: dict[ObjectRef, str] = {}
        """The uid of the one that we deleted last, until the watch has told it."""
        self._doubted: set[ObjectRef] = set()
        """Those of which the version may be of another history: any other is news."""
        self._flights: dict[ObjectRef, Action] = {}
        self._troubles: dict[ObjectRef, _Trouble] = {}
        self._since: dict[ObjectRef, tuple[_Wait, float]] = {}
        """What a record that does not say Assigned yet waits for, and since when."""
        self._kept: dict[ObjectRef, tuple[Revisions, Revisions]] = {}
        """Revisions that we wrote and what they read as; where the API server prunes a copy."""
        self.due: float | None = None
        """When the record that `next` was asked for last is to be looked at again."""

    # What happens.

    def see(self, stored: StoredRecord) -> bool:
        """Take a record that came or changed; return whether it is news."""
        ref = stored.ref
        if self._deleted.get(ref) == stored.uid:
            return False
        return self._take_in(stored)

    def _take_in(self, stored: StoredRecord) -> bool:
        """Take a version of a record, unless a later one of it is known; return whether it is."""
        ref, known = stored.ref, self._stored.get(stored.ref)
        is_old = known is not None and int(known.version) >= int(stored.version)
        if is_old and ref not in self._doubted:
            return False
        self._stored[ref] = stored
        self._doubted.discard(ref)
        return True

    def doubt(self) -> None:
        """Take that the API server may have another history: versions are not compared with it."""
        self._deleted.clear()
        self._doubted = set(self._stored)

    def lose(self, ref: ObjectRef, uid: str) -> bool:
        """Take that the record of this uid is gone; return whether it is news."""
        if self._deleted.get(ref) == uid:
            del self._deleted[ref]
        known = self._stored.get(ref)
        if known is None or known.uid != uid:
            return False
        del self._stored[ref]
        return True

    @property
    def names(self) -> KeysView[ObjectRef]:
        return self._stored.keys()

    def says_assigned(self, ref: ObjectRef) -> bool:
        stored = self._stored.get(ref)
        record = None if stored is None else stored.record
        return record is not None and record.state is Assignment.ASSIGNED

    def forget_flights(self) -> None:
        """Take that the results of calls under way will not come: another leads."""
        for ref in self._flights:
            self._troubles[ref] = _Trouble(0, 0.0, unread=True)
        self._flights.clear()

    # The next call.

    def next(self, ref: ObjectRef, now: float) -> Action | None:
        self.due = None
        if ref in self._flights:
            return None
        trouble = self._troubles.get(ref)
        if trouble is not None and now < trouble.until:
            self.due = trouble.until
            return None
        action = (
            ReadRecord(ref) if trouble is not None and trouble.unread else self._choose(ref, now)
        )
        if action is not None:
            self._flights[ref] = action
        return action

    def _choose(self, ref: ObjectRef, now: float) -> Action | None:
        need, stored = self._needed(ref), self._stored.get(ref)
        if need is None:
            self._since.pop(ref, None)
            self._kept.pop(ref, None)
            if stored is None:
                self._troubles.pop(ref, None)
                return None
            return self._remove(stored)
        found = attachment(need.identity)
        wait = (need.uid, need.node, found.folded if found else "")
        if ref not in self._since or self._since[ref][0] != wait:
            self._since[ref] = (wait, now)
        since = self._since[ref][1]
        wanted = self._wanted(ref, need, stored, late=now >= since + LATE)
        if wanted is None:
            self.due = since + LATE if now < since + LATE else None
            return None
        if stored is None:
            return CreateRecord(wanted, since)
        held = stored.odd.finalizer is not None
        if stored.deleting:
            return self._remove(stored) if held else None
        if not held and self._says(stored, wanted):
            if wanted.state is Assignment.ASSIGNED:
                self._since.pop(ref, None)
            return None
        return UpdateRecord(ref, wanted, stored.uid, stored.version, since, stored.odd)

    def _remove(self, stored: StoredRecord) -> Action | None:
        if stored.odd.finalizer is not None:
            return UpdateRecord(stored.ref, None, stored.uid, stored.version, 0.0, stored.odd)
        return None if stored.deleting else DeleteRecord(stored.ref, stored.uid)

    def _wanted(
        self, ref: ObjectRef, need: Need, stored: StoredRecord | None, *, late: bool
    ) -> Record | None:
        """Return what the record should say; None if that is not known yet.

        `late` says whether it must tell by now that its identity is awaited.
        """
        if not need.decided:
            return None
        identity_revision, binding_revision = self._revisions(need)
        wanted = Record(
            ref=ref,
            pod=need.pod,
            identity=need.identity.ref,
            binding=need.binding.ref,
            node=need.node,
            state=Assignment.ASSIGNED,
            identity_revision=identity_revision,
            binding_revision=binding_revision,
        )
        if attachment(need.identity) is None:
            return wanted
        status = self._status(need)
        if status is Status.PROVED:
            return wanted
        if status is not Status.ABSENT and stored is not None and self._says(stored, wanted):
            # Nothing shows that it is wrong.
            return wanted
        said = stored.record if stored else None
        if status is Status.UNKNOWN and said:
            identity, binding = said.revisions
            copied = replace(wanted, identity_revision=identity, binding_revision=binding)
            if said == replace(copied, binding=said.binding):
                # What it copies was edited since.
                return None
        if need.host is None or (not late and (stored is None or status is Status.UNKNOWN)):
            return None
        return replace(wanted, state=Assignment.CREATED)

    def _says(self, stored: StoredRecord, wanted: Record) -> bool:
        record = stored.record
        if record is None or record == wanted:
            return record is not None
        identity, binding = found = record.revisions
        same = replace(wanted, identity_revision=identity, binding_revision=binding)
        return record == same and self._kept.get(stored.ref) == (wanted.revisions, found)

    # Results.

    def take(self, ref: ObjectRef, result: Result, now: float) -> Record | None:
        """Take what came of the call about a record; return it if it says Assigned from now on."""
        action = self._flights.pop(ref)
        if isinstance(result, Failure):
            self._fail(ref, action, result, now)
            return None
        self._troubles.pop(ref, None)
        if isinstance(action, CreateRecord | UpdateRecord):
            return self._written(action.record, result)
        if isinstance(action, DeleteRecord):
            self._drop(action)
        elif not isinstance(result, StoredRecord):
            self._stored.pop(ref, None)
        elif self._take_in(result):
            self._deleted.pop(ref, None)
        return None

    def _drop(self, action: DeleteRecord) -> None:
        known = self._stored.get(action.ref)
        if known is not None and known.uid == action.uid:
            self._deleted[action.ref] = action.uid
            del self._stored[action.ref]

    def _written(self, wanted: Record | None, result: Result) -> Record | None:
        if not isinstance(result, StoredRecord):
            return None
        ref = result.ref
        if not self._take_in(result) and self._stored[ref].uid != result.uid:
            self._stored[ref] = result
        if wanted is None:
            return None
        record = result.record
        if record is not None and record.revisions != wanted.revisions:
            self._kept[ref] = (wanted.revisions, record.revisions)
        else:
            self._kept.pop(ref, None)
        if wanted.state is Assignment.ASSIGNED:
            self._since.pop(ref, None)
            return wanted
        return None

    def _fail(self, ref: ObjectRef, action: Action, failure: Failure, now: float) -> None:
        if failure.kind is Fault.NOT_FOUND and isinstance(action, DeleteRecord):
            self._drop(action)
            self._troubles.pop(ref, None)
            return
        before = self._troubles.get(ref)
        failures = 1 if before is None else before.failures + 1
        unread = failure.kind in _READ_AGAIN or (before is not None and before.unread)
        permanent = failure.kind in {Fault.INVALID, Fault.FORBIDDEN}
        pause = backoff(0.2, failures, _LONGEST_INVALID if permanent else _LONGEST)
        if failure.kind is Fault.CONFLICT and failures == 1:
            pause = 0.0
        self._troubles[ref] = _Trouble(failures, now + max(pause, failure.retry_after), unread)


_READ_AGAIN = {Fault.CONFLICT, Fault.NOT_FOUND, Fault.LOST}

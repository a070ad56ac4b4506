"""Bugs that a controller may have, each as a small change of ours: the simulation must find them.

The first ones are those of the archived project: M for its weaknesses as they were read, B for
what it did when it was run. The others are those that people make who write such a program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, NamedTuple

import pytest

from podidentity.core import assignments, decision, ledger
from podidentity.core.hosts import HostChange, HostIdentities
from podidentity.core.resources import Phase
from podidentity.mic import controller, hosts
from podidentity.mic.calls import (
    PLAIN,
    About,
    Failure,
    Fault,
    LedgerList,
    ObjectGone,
    PatchHost,
    Progress,
    RecordSeen,
    StoredLedger,
)
from podidentity.mic.conditions import Conditions
from podidentity.mic.gates import Gate
from podidentity.mic.hosts import HostWork
from podidentity.mic.records import Records

Patch = Callable[[pytest.MonkeyPatch], None]


class Bug(NamedTuple):
    """A bug, and a seed that finds it (`./scripts/simulate --bugs`): it is tried first."""

    source: str
    seed: int
    patch: Patch


BUGS: dict[str, Bug] = {}
"""By a sentence."""


def bug(source: str, sentence: str, seed: int) -> Callable[[Patch], Patch]:
    def listed(patch: Patch) -> Patch:
        BUGS[sentence] = Bug(source, seed, patch)
        return patch

    return listed


def around(patch: pytest.MonkeyPatch, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a function by what `make` makes of it."""
    patch.setattr(owner, name, make(getattr(owner, name)))


# Of the archived project.


@bug("M6", "What failed is not tried again by itself", 1)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hosts, "backoff", lambda *_: inf)


@bug("M8", "Two records may have the same name", 17)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(assignments, "_hashed", lambda plain, _: plain)


@bug("M10, B6.3", "In use is by the pod's name, without its namespace", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def of_the_name(self: assignments.Assignments, need: assignments.Need) -> None:
        found = assignments.attachment(need.identity)
        needs = self._on_hosts.get(need.host, {}).get(found.folded if found else "", {})
        for key in [each for each in needs if each.pod.name == need.pod.name]:
            del needs[key]
        self._touch_host(need.host)

    patch.setattr(assignments.Assignments, "_take_off_host", of_the_name)


@bug("M11, B6.2", "Ids are compared with case", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def as_written(made: Any) -> Any:
        def attachment(identity: Any) -> Any:
            found = made(identity)
            return None if found is None else replace(found, folded=found.spelling)

        return attachment

    around(patch, assignments, "attachment", as_written)


@bug("M12", "A copy in a record stays as it was when its identity is edited", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Records, "_says", lambda _, stored, wanted: _same_but_revisions(stored, wanted))


def _same_but_revisions(stored: Any, wanted: Any) -> bool:
    record = stored.record
    return record is not None and record == replace(
        wanted,
        identity_revision=record.identity_revision,
        binding_revision=record.binding_revision,
    )


@bug("M13", "Immutable identities are detached", 14)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hosts, "immutable", lambda *_: False)


@bug("M16", "A change names no version of the host", 5)
def _(patch: pytest.MonkeyPatch) -> None:
    def blind(choose: Any) -> Any:
        def _choose(self: Any, now: float) -> Any:
            action = choose(self, now)
            return replace(action, etag="") if isinstance(action, PatchHost) else action

        return _choose

    around(patch, HostWork, "_choose", blind)


@bug("M20", "When its last node goes, a host is forgotten with what is on it", 15)
def _(patch: pytest.MonkeyPatch) -> None:
    def hasty(self: HostWork, now: float) -> bool:
        del now
        return not self.busy and not self._around.has_nodes(self.host)

    patch.setattr(HostWork, "droppable", hasty)


@bug("M21", "What was being attached when MIC ended is nobody's", 1)
def _(patch: pytest.MonkeyPatch) -> None:
    def forgetful(self: HostWork, stored: StoredLedger) -> None:
        book = stored.ledger or ledger.Ledger(host=self.host)
        self._book, self._version = replace(book, attaching={}), stored.version
        self._book_known = self._known.unread = True

    patch.setattr(HostWork, "adopt", forgetful)


@bug("M23", "Pods that have ended keep their identities", 5)
def _(patch: pytest.MonkeyPatch) -> None:
    def endless(refuse: Any) -> Any:
        def _refuse_always(pod: Any) -> Any:
            return refuse(replace(pod, phase=Phase.RUNNING))

        return _refuse_always

    around(patch, decision, "_refuse_always", endless)


@bug("M5, M14", "Hosts are never read again: what another detached stays away", 53)
def _(patch: pytest.MonkeyPatch) -> None:
    around(
        patch,
        controller.Controller,
        "__init__",
        lambda init: lambda self, settings: init(self, replace(settings, reconcile=1e12)),
    )


@bug("M4, B5", "One host waits for another", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def one_by_one(look: Any) -> Any:
        def _look_at_host(self: Any, host: Any) -> None:
            if any(work.busy for other, work in self._works.items() if other != host):
                self._timers.set(controller._Owner("host", host), self._now + 0.5)
            else:
                look(self, host)

        return _look_at_host

    around(patch, controller.Controller, "_look_at_host", one_by_one)


@bug("M4, B5", "Once a call had no answer, one host waits for another", 6)
def _(patch: pytest.MonkeyPatch) -> None:
    failed: set[int] = set()

    def noting(take: Any) -> Any:
        def on_result(self: Any, number: int, result: Any, now: float) -> Any:
            if isinstance(result, Failure) and result.kind is Fault.UNREACHABLE:
                failed.add(id(self))
            return take(self, number, result, now)

        return on_result

    def one_by_one(look: Any) -> Any:
        def _look_at_host(self: Any, host: Any) -> None:
            others = (work.busy for other, work in self._works.items() if other != host)
            if id(self) in failed and any(others):
                self._timers.set(controller._Owner("host", host), self._now + 0.5)
            else:
                look(self, host)

        return _look_at_host

    around(patch, controller.Controller, "on_result", noting)
    around(patch, controller.Controller, "_look_at_host", one_by_one)


@bug("M31", "What a Retry-After asks for is not obeyed", 21)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "throttled", lambda *_: None)


@bug("scenario 4", "An AzureIdentity that is deleted counts for the pods that have it", 1)
def _(patch: pytest.MonkeyPatch) -> None:
    forget = controller.Controller._take_gone

    def keeping(self: Any, event: ObjectGone) -> None:
        if event.about is not About.IDENTITY:
            forget(self, event)

    patch.setitem(controller._HANDLERS, ObjectGone, keeping)


@bug("scenario 5", "A binding that is deleted counts for the pods that have it", 9)
def _(patch: pytest.MonkeyPatch) -> None:
    forget = controller.Controller._take_gone

    def keeping(self: Any, event: ObjectGone) -> None:
        if event.about is not About.BINDING:
            forget(self, event)

    patch.setitem(controller._HANDLERS, ObjectGone, keeping)


@bug("M32", "A record is deleted with the archived project's finalizer on", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def plainly(remove: Any) -> Any:
        return lambda self, stored: remove(self, replace(stored, odd=PLAIN))

    around(patch, Records, "_remove", plainly)


@bug("B6.1", "What was there before counts as MIC's", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def greedy(resolved: Any) -> Any:
        def of_all(self: Any, seen: Any, now: float, **more: Any) -> Any:
            book = resolved(self, seen, now, **more)
            known = book.attaching.keys() | book.detaching.keys()
            found = {
                each: ledger.LedgerEntry(spelled, now)
                for each, spelled in seen.user.items()
                if each not in known
            }
            return replace(book, attached={**found, **book.attached})

        return of_all

    around(patch, ledger.Ledger, "resolved", greedy)


@bug("B5", "What a host that is being updated lists counts as attached", 2)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HostIdentities, "settled", property(lambda _: True))


@bug("B5", "A conflict is never tried again by itself", 20)
def _(patch: pytest.MonkeyPatch) -> None:
    def giving_up(refuse: Any) -> Any:
        def _refuse(self: HostWork, failure: Failure, now: float) -> None:
            refuse(self, failure, now)
            if failure.kind is Fault.CONFLICT:
                self._rest_until = inf

        return _refuse

    around(patch, HostWork, "_refuse", giving_up)


@bug("B5", "What Azure refused and was made good silently is not found", 7)
def _(patch: pytest.MonkeyPatch) -> None:
    around(
        patch,
        hosts,
        "RefusedIdentity",
        lambda made: lambda _until, *more: made(inf, *more),
    )


@bug("#466", "One identity that Azure refuses holds up all others", 9)
def _(patch: pytest.MonkeyPatch) -> None:
    def all_of_them(quarantine: Any) -> Any:
        def _quarantine(self: HostWork, failure: Failure, now: float) -> None:
            sent = tuple(each.resource_id.folded for each in self._round.sent.attach)
            quarantine(self, replace(failure, bad=sent), now)

        return _quarantine

    around(patch, HostWork, "_quarantine", all_of_them)


# Those that people make.


@bug("", "A host is changed before the ledger says so", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def hasty(self: HostWork, now: float, seen: Any, book: Any, planned: Any) -> Any:
        del now, book
        self._round.sent = planned
        return PatchHost(self.host, planned.change(seen), seen.etag)

    patch.setattr(HostWork, "_write", hasty)


@bug("", "A new leader does not read the ledgers", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    take = controller.Controller._take_ledgers

    def blind(self: Any, owner: Any, action: Any, result: Any) -> None:
        found = isinstance(result, LedgerList)
        take(self, owner, action, replace(result, ledgers={}) if found else result)

    patch.setitem(controller._TAKERS, "ledgers", blind)


@bug("", "Nobody asks what is in use before a detach", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def trusting(change: Any) -> Any:
        def _change(self: HostWork, now: float, seen: Any, wanted: Any) -> Any:
            self._round.listed_at = now
            return change(self, now, seen, wanted)

        return _change

    around(patch, HostWork, "_change", trusting)


@bug("", "What the list shows in use is detached all the same", 8)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(controller.Controller, "in_use", lambda _self, _host, _listed: frozenset[str]())


@bug("", "A permission that was refused is not asked for again", 78)
def _(patch: pytest.MonkeyPatch) -> None:
    around(
        patch,
        controller.Controller,
        "__init__",
        lambda init: lambda self, settings: init(self, replace(settings, denied=1e12)),
    )


@bug("", "Two calls about one host may be under way", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def careless(following: Any) -> Any:
        def next_(self: HostWork, now: float) -> Any:
            flight, self._flight = self._flight, None
            action = following(self, now)
            if action is None:
                self._flight = flight
            return action

        return next_

    around(patch, HostWork, "next", careless)


@bug("", "MIC writes after its lease has ended", 4)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(controller.Controller, "leads", property(lambda self: self._until > -inf))


@bug("", "An answer that got lost counts as a refusal", 4)
def _(patch: pytest.MonkeyPatch) -> None:
    def certain(take: Any) -> Any:
        def _take_patch(self: HostWork, result: Any, now: float) -> None:
            if isinstance(result, Failure) and result.kind is Fault.LOST:
                result = replace(result, kind=Fault.CONFLICT)
            take(self, result, now)

        return _take_patch

    around(patch, HostWork, "_take_patch", certain)


@bug("", "An operation that failed counts as done", 1)
def _(patch: pytest.MonkeyPatch) -> None:
    def hopeful(take: Any) -> Any:
        def _take_poll(self: HostWork, result: Any, now: float) -> None:
            if isinstance(result, Failure) and result.kind in {Fault.FAILED, Fault.PREEMPTED}:
                result = Progress(done=True)
            take(self, result, now)

        return _take_poll

    around(patch, HostWork, "_take_poll", hopeful)


@bug("", "An accepted change counts as done", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def hopeful(take: Any) -> Any:
        def _take_patch(self: HostWork, result: Any, now: float) -> None:
            take(self, result, now)
            if self._round.operation:
                self._finish(now)

        return _take_patch

    around(patch, HostWork, "_take_patch", hopeful)


@bug("", "What another may still detach counts as attached", 25)
def _(patch: pytest.MonkeyPatch) -> None:
    around(
        patch,
        ledger.Ledger,
        "resolved",
        lambda resolved: (
            lambda self, seen, now, **more: resolved(
                self, seen, now, **(more | {"ended": True, "landed": None})
            )
        ),
    )


@bug("", "After a detach that failed nobody looks whether the machines still have the identity", 30)
def _(patch: pytest.MonkeyPatch) -> None:
    around(
        patch,
        ledger.Ledger,
        "resolved",
        lambda resolved: (
            lambda self, seen, now, **more: resolved(
                self, replace(seen, state="succeeded"), now, **more
            )
        ),
    )


@bug("", "A change forgets the system's half", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    around(
        patch,
        ledger.HostPlan,
        "change",
        lambda change: lambda self, seen: replace(change(self, seen), system=False),
    )


@bug("", "The last identity is taken off without saying that none is left", 3)
def _(patch: pytest.MonkeyPatch) -> None:
    around(
        patch,
        ledger.HostPlan,
        "change",
        lambda change: lambda self, seen: replace(change(self, seen), user=True),
    )


@bug("", "A change names all that is wanted, not what is missing", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def all_of_it(change: Any) -> Any:
        def whole(self: ledger.HostPlan, seen: Any) -> HostChange:
            found: HostChange = change(self, seen)
            return replace(found, attach=(*found.attach, *seen.user.values()), detach=())

        return whole

    around(patch, ledger.HostPlan, "change", all_of_it)


@bug("", "A paused host is changed", 29)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(controller.Controller, "paused", lambda _self, _host: False)


@bug("", "Records that nobody needs are left where they were not seen to change", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    take = controller.Controller._take_stored

    def later(self: Any, event: Any) -> None:
        if self._synced:
            take(self, event)
        else:
            self._records.see(event.stored)

    patch.setattr(Records, "names", property(lambda _: []))
    patch.setitem(controller._HANDLERS, RecordSeen, later)


@bug("", "A record that could not be written is given up", 2)
def _(patch: pytest.MonkeyPatch) -> None:
    def giving_up(fail: Any) -> Any:
        def _fail(self: Records, ref: Any, action: Any, failure: Failure, now: float) -> None:
            fail(self, ref, action, replace(failure, retry_after=inf), now)

        return _fail

    around(patch, Records, "_fail", giving_up)


@bug("", "There is an event for each pod", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(controller, "EVENT_AGAIN", 0.0)


@bug("", "A condition is written though it is there", 0)
def _(patch: pytest.MonkeyPatch) -> None:
    def again(take: Any) -> Any:
        def forgetting(self: Conditions, subject: Any, result: Any, now: float) -> None:
            take(self, subject, result, now)
            self._stored[subject] = None

        return forgetting

    around(patch, Conditions, "take", again)


@bug("", "Pods of a host that nothing shows yet say Assigned", 1)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        HostWork,
        "status",
        lambda self, folded: (
            hosts.Status.ABSENT
            if self._known.seen is not None and folded not in self._known.seen.user
            else hosts.Status.PROVED
        ),
    )

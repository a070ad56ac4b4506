"""The next call about one host, from what is known of it, at times that are numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from podidentity.core.hosts import Host, HostChange, HostIdentities
from podidentity.core.ledger import LONGEST_CHANGE, Ledger, LedgerEntry, Wanted
from podidentity.mic.calls import (
    Accepted,
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
from podidentity.mic.hosts import (
    FRESH,
    GATHER,
    HELD,
    IDLE,
    LONGEST_OPERATION,
    PATIENCE,
    QUIET,
    HostWork,
    Kind,
    RefusedIdentity,
    Status,
)
from tests.core.objects import client_id, resource_id

HOST = Host.parse(
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/one"
)
IDS = {number: resource_id(number).folded for number in range(1, 9)}
GRACE = 300.0


def seen(*numbers: int, state: str = "succeeded", etag: str = "") -> HostIdentities:
    user = {IDS[number]: resource_id(number).spelling for number in numbers}
    return HostIdentities(state=state, user=user, etag=etag)


def book(
    attached: Iterable[int] = (),
    attaching: Iterable[int] = (),
    detaching: Iterable[int] = (),
    since: float = 0.0,
) -> Ledger:
    parts = [
        {
            IDS[number]: LedgerEntry(resource_id(number).spelling, since, str(client_id(number)))
            for number in part
        }
        for part in (attached, attaching, detaching)
    ]
    return Ledger(host=HOST, attached=parts[0], attaching=parts[1], detaching=parts[2])


def attach(*numbers: int) -> HostChange:
    return HostChange(attach=tuple(resource_id(each).spelling for each in numbers), user=True)


class Around:
    """What the work on a host sees of the rest of the controller."""

    def __init__(self, wanted: Iterable[int]) -> None:
        self.want = {*wanted}
        self.open = frozenset[str]()
        self.used: frozenset[str] | None = frozenset()
        self.nodes = self.admits = True
        self.shut = self.pausing = self.doubts = False
        self.asked: list[Kind] = []
        self.left: list[Kind] = []
        self.lines: list[LogLine] = []

    def wanted(self, host: Host) -> dict[str, Wanted]:
        assert host is HOST
        return {
            IDS[each]: Wanted(resource_id(each), str(client_id(each))) for each in sorted(self.want)
        }

    def undecided(self, _: Host) -> frozenset[str]:
        return self.open

    def in_use(self, host: Host, listed: InUse) -> frozenset[str] | None:
        assert (host, listed) == (HOST, NOTHING_USED)
        return self.used

    def has_nodes(self, _: Host) -> bool:
        return self.nodes

    def admit(self, _: Host, kind: Kind, __: float) -> bool:
        self.asked.append(kind)
        return self.admits

    def closed(self, _: Host, kind: Kind, __: float) -> bool:
        return self.shut and kind == "write"

    def leave(self, _: Host, kind: Kind) -> None:
        self.left.append(kind)

    def paused(self, _: Host) -> bool:
        return self.pausing

    def report(self, report: LogLine) -> None:
        self.lines.append(report)


NOTHING_USED = InUse((), (), ())


class Course:
    """The work on one host, on a clock that a test moves."""

    def __init__(
        self,
        *wanted: int,
        ledger: Ledger | None = None,
        there: HostIdentities | None = None,
        protected: frozenset[str] = frozenset(),
    ) -> None:
        self.around = Around(wanted)
        self.work = HostWork(HOST, self.around, grace=GRACE, protected=protected)
        self.now = 0.0
        if ledger is not None:
            self.work.adopt(StoredLedger(ledger, "1"))
        if there is not None:
            assert self.step(there) == ReadHost(HOST)

    def next(self, at: float | None = None) -> Any:
        self.now = self.now if at is None else at
        return self.work.next(self.now)

    def take(self, result: Result) -> None:
        self.work.take(result, self.now)

    def step(self, result: Result, at: float | None = None) -> Any:
        """Have the call that is due give this; return it."""
        call = self.next(at)
        assert call is not None, f"nothing is due before {self.work.due}"
        self.take(result)
        return call

    def fail(self, kind: Fault, at: float | None = None, **facts: Any) -> Any:
        return self.step(Failure(kind=kind, **facts), at)

    def due(self) -> float | None:
        """Return when the next look is due; nothing is due now."""
        assert self.next() is None
        return self.work.due

    def gathered(self) -> None:
        """Go on to the time at which changes have been gathered."""
        assert self.next() is None
        assert self.work.due is not None
        self.now = self.work.due

    def written(self, version: str = "2") -> Ledger:
        """Have the ledger written; return it."""
        call = self.next()
        assert isinstance(call, WriteLedger)
        self.take(StoredLedger(call.ledger, version))
        return call.ledger

    def sent(self) -> HostChange:
        """Have a change gathered and its ledger written; return it as it is sent."""
        self.gathered()
        self.written()
        call = self.next()
        assert isinstance(call, PatchHost)
        return call.change

    def busy(self) -> bool:
        return self.work.busy

    def news(self) -> set[int]:
        """Return of which identities there was news since the last time."""
        found, self.work.changed = self.work.changed, {}
        return {number for number, folded in IDS.items() if folded in found}

    def status(self, number: int = 1) -> Status:
        return self.work.status(IDS[number])


# From what is wanted to what is there.


def test_an_identity_is_attached_call_by_call_and_the_ledger_is_written_before_and_after() -> None:
    course = Course(1, there=seen(2, etag="e"))
    assert course.due() == QUIET
    course.now = QUIET
    assert course.written("7") == book(attaching=[1], since=QUIET)
    assert course.next() == PatchHost(HOST, attach(1), "e")
    assert course.busy()
    course.take(Accepted("op", after=3.0))
    assert course.busy()
    assert course.due() == QUIET + 3
    moved = Progress(done=False, after=7.0, operation="op-2")
    assert course.step(moved, QUIET + 3) == PollOperation(HOST, "op")
    assert course.due() == QUIET + 10
    assert course.status() is Status.ABSENT
    assert course.step(Progress(done=True), QUIET + 10) == PollOperation(HOST, "op-2")
    assert [course.status(each) for each in (1, 2)] == [Status.PROVED] * 2
    assert not course.busy()
    assert course.next() == WriteLedger(book([1], since=QUIET), "7")
    course.take(StoredLedger(book([1], since=QUIET), "8"))
    assert course.due() is None
    assert course.around.asked == ["read", "write", "poll", "poll"]


def test_a_poll_waits_for_its_turn() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted("op"))
    course.around.admits = False
    assert course.next(course.now + 1) is None
    assert course.around.asked[-1] == "poll"
    course.around.admits = True
    assert course.next() == PollOperation(HOST, "op")


def test_a_change_that_is_done_at_once_is_not_polled() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted())
    assert course.status() is Status.PROVED
    assert course.written() == book([1], since=QUIET)


@pytest.mark.parametrize(("asked", "pause"), [(0.0, 5.0), (12.0, 12.0), (99.0, 60.0)])
def test_a_change_is_polled_when_azure_asks_for_it_within_bounds(
    asked: float, pause: float
) -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted("op"))
    assert course.due() == course.now + 1
    course.step(Progress(done=False, after=asked), course.now + 1)
    assert course.due() == course.now + pause


def test_what_is_there_already_costs_nothing_but_a_read() -> None:
    course = Course(1, there=seen(1))
    assert course.status() is Status.PROVED
    assert course.news() == {1}
    assert course.due() is None


def test_a_host_of_which_nothing_is_wanted_is_not_even_read() -> None:
    course = Course()
    assert course.due() is None
    assert course.around.asked == []


def test_a_host_with_a_ledger_is_read_though_nothing_is_wanted() -> None:
    assert Course(ledger=book()).next() == ReadHost(HOST)


def test_a_host_that_was_read_is_read_again_when_it_is_to_be_looked_at() -> None:
    course = Course(1, there=seen(1))
    course.around.want.clear()
    course.work.look_again()
    assert course.next() == ReadHost(HOST)


def test_changes_are_gathered_until_none_came_for_a_while_and_no_longer_than_that() -> None:
    course = Course(1, there=seen())
    assert course.due() == QUIET
    now = 0.0
    while now < GATHER - QUIET:
        now += 0.3
        course.work.touch(now)
        course.now = now
        assert course.due() == min(now + QUIET, GATHER)
    course.now = GATHER
    assert isinstance(course.next(), WriteLedger)


def test_what_comes_while_a_change_is_under_way_goes_behind_it_without_gathering() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted("op"))
    course.around.want.add(2)
    course.work.touch(course.now)
    course.step(Progress(done=True), course.now + 40)
    assert course.step(seen(1)) == ReadHost(HOST)
    assert course.written().attaching.keys() == {IDS[2]}
    assert course.next().change == attach(2)
    assert course.around.asked.count("write") == 2


def test_after_a_change_the_host_is_read_before_the_next_one() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted())
    course.written()
    course.around.want.add(2)
    course.gathered()
    assert course.next() == ReadHost(HOST)


def test_a_change_names_what_the_ledger_that_is_written_speaks_of() -> None:
    course = Course(1, there=seen())
    course.gathered()
    course.next()
    course.around.want.add(2)
    course.take(StoredLedger(book(attaching=[1], since=QUIET), "2"))
    assert course.next().change == attach(1)


# Who may go, and what is fresh.


def test_who_is_not_admitted_waits_for_its_turn_and_is_read_again_when_that_came_late() -> None:
    course = Course(1, there=seen())
    course.gathered()
    course.around.admits = False
    assert course.due() is None
    course.around.admits = True
    assert isinstance(course.next(FRESH), WriteLedger)


@pytest.mark.parametrize(("late", "then"), [(0.0, PatchHost), (0.1, WriteLedger)])
def test_a_read_and_a_ledger_allow_the_change_for_five_seconds(late: float, then: type) -> None:
    course = Course(1, there=seen())
    course.gathered()
    course.around.admits = False
    course.next()
    course.around.admits = True
    assert course.step(seen(), FRESH + 0.1) == ReadHost(HOST)
    course.written()
    course.around.shut = True
    assert course.next() is None
    course.around.shut = False
    call = course.next(course.now + FRESH + late)
    if late:
        assert call == ReadHost(HOST)
        course.take(seen())
        call = course.next()
    assert isinstance(call, then)


def test_where_azure_refused_another_meanwhile_the_turn_is_given_back_and_asked_for_anew() -> None:
    course = Course(1, there=seen())
    course.gathered()
    course.written()
    course.around.shut, course.around.admits = True, False
    course.around.asked.clear()
    assert course.next() is None
    assert (course.around.left, course.around.asked) == (["write"], ["write"])
    course.around.shut = False
    assert course.next() is None
    course.around.admits = True
    assert isinstance(course.next(), PatchHost)


def test_a_turn_is_given_back_when_nothing_is_to_be_done_any_more() -> None:
    course = Course(1, there=seen())
    course.gathered()
    course.next()
    course.around.want.clear()
    course.take(StoredLedger(book(attaching=[1]), "2"))
    assert course.written() == book()
    assert course.around.left == ["write"]
    course.around.want.add(2)
    course.gathered()
    course.next()
    assert course.around.asked.count("write") == 2


@pytest.mark.parametrize("paused", [True, False])
def test_a_paused_host_is_read_and_not_changed(paused: bool) -> None:
    course = Course(1, there=seen())
    course.around.pausing = paused
    course.next()
    call = course.next(QUIET)
    assert (call is None) is paused


# What is not needed any more.


def test_what_is_ours_is_detached_after_its_grace_and_a_list_of_what_is_in_use() -> None:
    course = Course(ledger=book([1]), there=seen(1, 2))
    assert course.due() == GRACE
    assert course.next(GRACE) is None
    assert course.step(seen(1, 2), GRACE + QUIET) == ReadHost(HOST)
    assert course.step(NOTHING_USED) == ListUse()
    assert course.written() == book(detaching=[1], since=GRACE + QUIET)
    change = HostChange(detach=(resource_id(1).spelling,), user=True)
    assert course.next() == PatchHost(HOST, change, "")
    assert course.status() is Status.LISTED
    course.take(Accepted())
    assert course.status() is Status.ABSENT
    assert course.written() == book()


def test_what_a_leader_before_was_detaching_is_detached_after_its_grace() -> None:
    assert Course(ledger=book(detaching=[1]), there=seen(1)).due() == GRACE


def test_what_the_list_shows_in_use_is_held_for_a_while() -> None:
    course = Course(ledger=book([1]), there=seen(1))
    course.next()
    course.next(GRACE)
    course.step(seen(1), GRACE + QUIET)
    course.around.used = frozenset({IDS[1]})
    assert course.step(NOTHING_USED) == ListUse()
    assert course.due() == course.now + HELD
    course.around.used = frozenset()
    course.next(course.now + HELD)
    course.step(seen(1), course.now + QUIET)
    assert course.step(NOTHING_USED) == ListUse()
    assert course.written().detaching.keys() == {IDS[1]}


@pytest.mark.parametrize("ledger", [book([1, 2]), book([1], detaching=[2])])
def test_what_anything_may_need_is_held_for_a_while(ledger: Ledger) -> None:
    course = Course(ledger=ledger, there=seen(1, 2))
    course.next()
    course.next(GRACE)
    course.step(seen(1, 2), GRACE + QUIET)
    course.around.used = None
    assert course.step(NOTHING_USED) == ListUse()
    assert course.due() == course.now + HELD


@pytest.mark.parametrize(("late", "then"), [(0.0, WriteLedger), (0.1, ListUse)])
def test_a_list_allows_a_detach_for_five_seconds(late: float, then: type) -> None:
    course = Course(ledger=book([1]), there=seen(1))
    course.next()
    course.next(GRACE)
    course.step(seen(1), GRACE + QUIET)
    course.step(NOTHING_USED)
    call = course.next(course.now + FRESH + late)
    if late:
        assert call == ReadHost(HOST)
        course.take(seen(1))
        call = course.next()
    assert isinstance(call, then)


def test_what_is_needed_again_has_its_whole_grace_when_it_is_not_any_more() -> None:
    course = Course(ledger=book([1]), there=seen(1))
    assert course.due() == GRACE
    course.around.want.add(1)
    course.work.touch(100.0)
    course.around.want.clear()
    course.work.touch(200.0)
    course.now = 200.0
    assert course.due() == 200 + GRACE


def test_a_grace_is_no_longer_for_what_other_pods_need() -> None:
    course = Course(ledger=book([1]), there=seen(1, 2))
    assert course.due() == GRACE
    course.around.want.add(2)
    course.work.touch(100.0)
    assert course.news() == {2}
    assert course.next(100.0) is None
    assert course.work.due == GRACE


def test_what_may_be_needed_is_not_detached() -> None:
    course = Course(ledger=book([1]), there=seen(1))
    course.next()
    course.around.open = frozenset({IDS[1]})
    assert course.next(GRACE + 1) is None
    assert course.work.due is None
    course.around.open = frozenset()
    assert course.due() == 2 * GRACE + 1


@pytest.mark.parametrize("protected", [IDS[1], str(client_id(1))])
def test_what_is_immutable_is_never_detached(protected: str) -> None:
    course = Course(ledger=book([1]), there=seen(1), protected=frozenset({protected}))
    assert course.due() is None


def test_what_another_attached_is_never_detached() -> None:
    assert Course(ledger=book(), there=seen(1)).due() == IDLE


# What is known of an identity.


@pytest.mark.parametrize(
    ("there", "status"),
    [
        (seen(1), Status.PROVED),
        (seen(1, state="updating"), Status.LISTED),
        (seen(1, state="failed"), Status.LISTED),
        (seen(1, state="deleting"), Status.ABSENT),
        (seen(2), Status.ABSENT),
    ],
)
def test_an_identity_is_proved_where_a_settled_host_lists_it(
    there: HostIdentities, status: Status
) -> None:
    assert Course(1).status() is Status.UNKNOWN
    assert Course(1, there=there).status() is status


@pytest.mark.parametrize("state", ["updating", "failed"])
def test_what_was_proved_stays_so_while_the_host_lists_it(state: str) -> None:
    course = Course(1, 2, there=seen(1, 2))
    assert course.news() == {1, 2}
    course.work.look_again()
    course.step(seen(1, 3, state=state))
    assert [course.status(each) for each in (1, 2, 3)] == [
        Status.PROVED,
        Status.ABSENT,
        Status.LISTED,
    ]
    assert course.news() == {2}


# Another's change.


def test_a_host_that_another_changes_is_looked_at_each_five_seconds_for_its_patience() -> None:
    course = Course(1, there=seen(state="updating"))
    assert course.due() == 5
    assert course.step(seen(state="updating"), 5.0) == ReadHost(HOST)
    assert course.due() == 10
    assert course.step(seen(state="updating"), PATIENCE - 0.1) == ReadHost(HOST)
    course.now = PATIENCE
    assert course.due() == PATIENCE + QUIET


@pytest.mark.parametrize("more", [[], [2]], ids=["alone", "beside one that is proved"])
def test_what_another_change_may_bring_is_waited_for(more: list[int]) -> None:
    course = Course(1, *more, there=seen(*more))
    course.work.look_again()
    course.step(seen(1, *more, state="updating"))
    assert course.due() == 5
    assert course.step(seen(1, *more), 5.0) == ReadHost(HOST)
    assert course.status() is Status.PROVED
    assert course.due() is None


def test_after_our_own_change_another_has_the_patience_anew() -> None:
    course = Course(1, there=seen(state="updating"))
    course.next(PATIENCE)
    course.step(seen(state="updating"), PATIENCE + QUIET)
    course.written()
    assert isinstance(course.step(Accepted()), PatchHost)
    course.written()
    course.around.want.add(2)
    course.work.look_again()
    course.step(seen(1, state="updating"))
    assert course.due() == course.now + 5


def test_a_host_that_settled_and_is_changed_again_has_its_patience_anew() -> None:
    course = Course(1, there=seen(state="updating"))
    course.step(seen(), 5.0)
    course.work.look_again()
    course.step(seen(state="updating"), PATIENCE)
    assert course.due() == PATIENCE + 5


# Refusals.


def refused(course: Course, *numbers: int) -> None:
    """Have Azure refuse the change that is due, for these identities."""
    while not isinstance(call := course.next(), PatchHost):
        if call is None:
            course.gathered()
        elif isinstance(call, WriteLedger):
            course.take(StoredLedger(call.ledger, "3"))
        else:
            course.take(seen())
    course.news()
    course.take(
        Failure(kind=Fault.BAD_IDENTITIES, message="gone", bad=tuple(IDS[each] for each in numbers))
    )


def test_an_identity_that_azure_refuses_is_left_out_and_the_others_go_on() -> None:
    course = Course(1, 2, there=seen())
    refused(course, 1)
    refusal = course.work.refusal(IDS[1])
    assert refusal is not None
    assert refusal.reason == "RefusedByAzure"
    assert refusal.message == "It cannot be attached to one: gone"
    assert course.work.refusal(IDS[2]) is None
    assert course.news() == {1}
    assert course.next().change == attach(2)


def test_what_azure_refuses_when_the_change_is_under_way_is_left_out_as_well() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted("op"))
    course.fail(Fault.BAD_IDENTITIES, course.due(), bad=(IDS[1],))
    assert {*course.work.refused} == {IDS[1]}


def test_what_azure_refuses_is_tried_again_later_each_time() -> None:
    course, until = Course(1, there=seen()), []
    for _ in range(9):
        refused(course, 1)
        until.append(course.work.refused[IDS[1]].until - course.now)
        course.now += until[-1]
    assert until == [pytest.approx(each) for each in (5, 10, 20, 40, 80, 160, 320, 600, 600)]


def test_where_azure_does_not_say_which_it_refuses_halves_find_out() -> None:
    course = Course(1, 2, 3, 4, 5, there=seen())
    refused(course)
    assert course.work.refused == {}
    assert course.next().change == attach(1, 2)
    course.take(Failure(kind=Fault.BAD_IDENTITIES))
    assert course.next().change == attach(1)
    course.take(Failure(kind=Fault.BAD_IDENTITIES))
    assert {*course.work.refused} == {IDS[1]}


def test_after_each_success_a_change_may_name_twice_as_many() -> None:
    course, sizes = Course(*range(1, 9), there=seen()), list[int]()
    for _ in range(3):
        refused(course)
    while len(sizes) < 3:
        call = course.next()
        if isinstance(call, PatchHost):
            sizes.append(len(call.change.attach))
            course.take(Accepted())
        elif isinstance(call, WriteLedger):
            course.take(StoredLedger(call.ledger, "3"))
        else:
            course.take(seen(*range(1, 1 + sum(sizes))))
    assert sizes == [1, 2, 4]


def test_an_identity_that_was_refused_and_is_there_after_all_is_forgiven() -> None:
    course = Course(1, there=seen())
    refused(course, 1)
    assert course.news() == {1}
    course.work.look_again()
    assert course.step(seen(1)) == ReadHost(HOST)
    assert course.work.refusal(IDS[1]) is None
    assert course.news() == {1}


def test_a_detach_that_azure_refuses_is_tried_again_later_each_time_until_it_is_done() -> None:
    course, pauses = Course(ledger=book([1]), there=seen(1)), []
    assert course.due() == GRACE
    for _ in range(4):
        assert course.work.due is not None
        course.next(course.work.due)
        course.step(seen(1), course.work.due)
        course.step(NOTHING_USED)
        course.written()
        course.news()
        course.fail(Fault.BAD_IDENTITIES, bad=(IDS[1],))
        assert course.news() == {1}
        assert course.work.refusal(IDS[1]) is not None
        course.written()
        due = course.due()
        assert due is not None
        pauses.append(due - course.now)
    assert pauses == [pytest.approx(each) for each in (5, 10, 20, 40)]
    course.next(due)
    course.step(seen(1), course.work.due)
    course.step(NOTHING_USED)
    course.written()
    assert isinstance(course.step(Accepted()), PatchHost)
    assert course.news() == {1}
    assert course.work.refusal(IDS[1]) is None


@pytest.mark.parametrize(
    ("kind", "again"), [(Fault.DENIED, [3600, 3600]), (Fault.FORBIDDEN, [*range(30, 301, 30), 300])]
)
def test_a_host_that_may_not_be_changed_says_so_and_is_tried_again_later(
    kind: Fault, again: list[float]
) -> None:
    course, told = Course(1, there=seen(2)), []
    for pause in again:
        while not isinstance(call := course.next(), PatchHost):
            if call is None:
                course.gathered()
            else:
                ledger = isinstance(call, WriteLedger)
                course.take(StoredLedger(call.ledger, "3") if ledger else seen(2))
        course.news()
        course.take(Failure(kind=kind, message="no"))
        refusal = course.work.refusal(IDS[1])
        assert refusal is not None
        assert refusal.reason == kind.value.capitalize()
        assert course.work.ailment() == "no"
        told.append(course.news())
        while isinstance(call := course.next(), WriteLedger):
            course.take(StoredLedger(call.ledger, "3"))
        assert course.due() == course.now + pause
        course.now += pause
    assert told == [{1}, *[set()] * (len(again) - 1)]


def test_of_a_host_that_may_not_be_changed_what_it_has_is_not_refused() -> None:
    course = Course(1, 2, there=seen(2))
    course.sent()
    course.take(Failure(kind=Fault.DENIED, message="no"))
    assert course.work.refusal(IDS[2]) is None


def test_a_change_that_succeeds_ends_what_was_wrong_with_the_host() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Failure(kind=Fault.FORBIDDEN, message="no"))
    course.news()
    assert course.step(seen(), 31.0) == ReadHost(HOST)
    course.written()
    course.step(Accepted())
    assert (course.work.refusal(IDS[1]), course.work.ailment()) == (None, "")
    assert course.news() == {1}


def test_a_read_ends_what_was_wrong_with_reading_alone() -> None:
    course = Course(1)
    course.fail(Fault.FORBIDDEN, message="not read")
    course.step(seen(), 1.0)
    course.sent()
    course.take(Failure(kind=Fault.DENIED, message="locked"))
    course.work.look_again()
    course.step(seen())
    assert course.work.ailment() == "locked"


# Failures.


@pytest.mark.parametrize(
    ("kind", "pause", "then"),
    [
        (Fault.THROTTLED, None, PatchHost),
        (Fault.UNREACHABLE, 1.0, PatchHost),
        (Fault.CONFLICT, 1.0, ReadHost),
        (Fault.PREEMPTED, 1.0, ReadHost),
        (Fault.LOST, 1.0, ReadHost),
        (Fault.NOT_FOUND, 1.0, ReadHost),
        (Fault.FAILED, 1.0, ReadHost),
    ],
)
def test_after_a_change_that_failed_the_host_is_read_where_it_may_be_another_now(
    kind: Fault, pause: float | None, then: type
) -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Failure(kind=kind))
    if pause is not None:
        assert course.due() == course.now + pause
        course.now += pause
    assert isinstance(course.next(), then)
    assert course.around.asked[-1] == ("read" if then is ReadHost else "write")


@pytest.mark.parametrize(("kind", "longest"), [(Fault.CONFLICT, 60), (Fault.FAILED, 600)])
def test_failures_in_a_row_are_rested_after_longer_and_told_from_the_third_on(
    kind: Fault, longest: float
) -> None:
    course, pauses, ailing = Course(1, there=seen()), [], []
    for _ in range(12):
        while not isinstance(call := course.next(), PatchHost):
            if call is None:
                course.gathered()
            else:
                ledger = isinstance(call, WriteLedger)
                course.take(StoredLedger(call.ledger, "3") if ledger else seen())
        course.take(Failure(kind=kind))
        due = course.due()
        assert due is not None
        pauses.append(due - course.now)
        ailing.append(course.work.ailment())
        course.now = due
    assert pauses == [pytest.approx(min(2.0**number, longest)) for number in range(12)]
    assert ailing[:3] == ["", "", "3 tries in a row have failed"]


def test_after_a_success_failures_are_counted_anew() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Failure(kind=Fault.UNREACHABLE))
    assert isinstance(course.step(Accepted(), course.now + 1), PatchHost)
    course.written()
    course.work.look_again()
    course.fail(Fault.UNREACHABLE)
    assert course.due() == course.now + 1


@pytest.mark.parametrize("kind", [Fault.THROTTLED, Fault.UNREACHABLE, Fault.LOST])
def test_a_poll_that_had_no_answer_is_made_again(kind: Fault) -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted("op", after=2.0))
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        due = course.due()
        assert course.fail(kind, due) == PollOperation(HOST, "op")
        assert course.due() == course.now + pause
    course.step(Progress(done=False), course.due())
    assert course.fail(kind, course.due()) == PollOperation(HOST, "op")
    assert course.due() == course.now + 1


@pytest.mark.parametrize(
    ("kind", "ended"),
    [(Fault.PREEMPTED, True), (Fault.FAILED, True), (Fault.NOT_FOUND, False)],
)
def test_what_a_change_was_to_attach_stays_noted_where_it_may_still_come(
    kind: Fault, ended: bool
) -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted("op"))
    course.fail(kind, course.due())
    assert not course.busy()
    course.around.want.clear()
    assert course.step(seen(), course.now + 1) == ReadHost(HOST)
    if ended:
        assert course.written() == book()
    else:
        assert course.due() == QUIET + LONGEST_CHANGE


@pytest.mark.parametrize("kind", [Fault.DENIED, Fault.FORBIDDEN])
def test_a_change_of_which_the_end_may_not_be_read_is_looked_for_on_the_host(kind: Fault) -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted("op"))
    course.fail(kind, course.due())
    assert course.step(seen(1)) == ReadHost(HOST)
    assert course.work.status(IDS[1]) is Status.PROVED


def test_nothing_else_is_due_while_a_call_is_under_way() -> None:
    course = Course(1)
    assert course.next() == ReadHost(HOST)
    assert course.next() is None
    course.take(seen(1))
    assert course.status() is Status.PROVED


def test_a_list_that_began_before_the_host_was_known_counts_for_nothing() -> None:
    course = Course(1)
    course.work.show(seen(1), 0.0)
    assert course.status() is Status.UNKNOWN
    course.work.compare(StoredLedger(book([1]), "9"))
    course.around.nodes = False
    course.around.want.clear()
    assert course.work.droppable(0.0)


def test_what_comes_within_two_seconds_is_one_change_and_nothing_waits_for_three() -> None:
    course = Course(1, there=seen())
    begun = course.now
    course.next()
    for tick in range(1, 12):
        course.work.touch(begun + tick * 0.3)
    due = course.due()
    assert due is not None
    assert 2.0 < due - begun < 3.0


def test_a_refusal_holds_for_the_client_ids_by_which_the_identity_was_wanted() -> None:
    refused = RefusedIdentity(10.0, 1, "", frozenset({"a"}))
    wanted = {each: Wanted(resource_id(1), "", frozenset({each})) for each in "ab"}
    assert refused.holds(9.0, None)
    assert refused.holds(9.0, wanted["a"])
    assert not refused.holds(9.0, wanted["b"])
    assert not refused.holds(10.0, wanted["a"])


def test_a_change_proves_what_it_named_and_the_host_has_not_failed_any_more() -> None:
    course = Course(1, there=seen(2, state="failed"))
    course.sent()
    course.take(Accepted())
    assert [course.status(each) for each in (1, 2)] == [Status.PROVED, Status.LISTED]
    course.written()
    course.around.want.add(2)
    course.work.touch(course.now)
    # Nothing is sent again because of the failure before.
    assert course.due() is None


def test_while_another_changes_the_host_only_what_waits_for_that_is_looked_for() -> None:
    course = Course(1, there=seen(1))
    course.work.look_again()
    course.step(seen(1, 2, state="updating"))
    assert course.status() is Status.PROVED
    assert course.due() is None
    course.around.want.add(2)
    assert course.due() == course.now + 5.0


def test_a_change_detaches_only_what_its_ledger_names() -> None:
    course = Course(2, there=seen(1, 2), ledger=book([1, 2]))
    course.due()
    course.around.want.clear()
    assert course.next(2.0) is None
    course.now = GRACE
    course.gathered()
    course.step(seen(1, 2))
    course.step(NOTHING_USED)
    assert course.written().detaching.keys() == {IDS[1]}
    # By now the grace of the other one has ended, too.
    call = course.next(GRACE + 2.5)
    assert isinstance(call, PatchHost)
    assert call.change.detach == (resource_id(1).spelling,)


def test_what_another_has_detached_has_no_grace_any_more() -> None:
    course = Course(there=seen(1), ledger=book([1]))
    assert course.due() == GRACE
    course.work.look_again()
    course.step(seen(), 10.0)
    assert course.written() == book()
    assert course.due() == 10.0 + IDLE


def test_a_host_of_which_a_ledger_comes_to_light_is_not_idle() -> None:
    course = Course(ledger=book(), there=seen())
    assert course.due() == IDLE
    course.work.adopt(StoredLedger(book([1]), "2"))
    course.step(seen(1), 100.0)
    course.next()
    course.work.look_again()
    course.step(seen(), 200.0)
    assert course.written() == book()
    course.next()
    assert [course.work.droppable(200 + at) for at in (IDLE - 1, IDLE)] == [False, True]


def test_a_change_is_waited_for_until_it_takes_too_long() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Accepted("op"))
    begun = course.now
    course.step(Progress(done=False, after=1.0), begun + LONGEST_OPERATION - 1)
    assert course.busy()
    course.step(Progress(done=False), begun + LONGEST_OPERATION)
    assert not course.busy()
    course.around.want.clear()
    assert course.next() == ReadHost(HOST)


def test_a_change_whose_answer_was_lost_stays_noted_until_it_cannot_come_any_more() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Failure(kind=Fault.LOST))
    course.around.want.clear()
    assert course.step(seen(), course.now + 1) == ReadHost(HOST)
    assert course.due() == QUIET + LONGEST_CHANGE
    assert course.step(seen(), QUIET + LONGEST_CHANGE) == ReadHost(HOST)
    assert course.written() == book()


def test_a_change_that_succeeded_ends_those_of_which_nothing_was_heard() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Failure(kind=Fault.LOST))
    course.around.want = {2}
    course.step(seen(), course.now + 1)
    assert course.written().attaching.keys() == {IDS[1], IDS[2]}
    assert isinstance(course.step(Accepted()), PatchHost)
    assert course.written().attached.keys() == {IDS[2]}
    assert course.due() is None


def test_what_came_late_of_a_change_whose_answer_was_lost_is_ours() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Failure(kind=Fault.LOST))
    course.around.want.clear()
    course.step(seen(), course.now + 1)
    assert course.step(seen(1), QUIET + LONGEST_CHANGE) == ReadHost(HOST)
    assert course.written() == book([1], since=QUIET)


def test_a_host_that_is_not_changed_is_not_read_on_and_on_for_what_stays_in_doubt() -> None:
    later = book(detaching=[1], since=99.0).detaching
    course = Course(ledger=replace(book(attaching=[3]), detaching=later))
    course.around.pausing = True
    course.step(seen(2, state="failed"), LONGEST_CHANGE - 1)
    assert course.due() == LONGEST_CHANGE
    course.step(seen(2, state="failed"), LONGEST_CHANGE)
    assert course.written().detaching == later
    assert course.due() == LONGEST_CHANGE + 99
    course.step(seen(2, state="failed"), LONGEST_CHANGE + 99)
    assert course.next() is None


def test_a_change_whose_answer_was_lost_and_that_came_is_ours() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Failure(kind=Fault.LOST))
    assert course.step(seen(1), course.now + 1) == ReadHost(HOST)
    assert course.written() == book([1], since=QUIET)


def test_what_another_attached_while_ours_was_refused_is_the_others() -> None:
    course = Course(1, there=seen())
    course.sent()
    course.take(Failure(kind=Fault.CONFLICT))
    assert course.step(seen(1), course.now + 1) == ReadHost(HOST)
    assert course.written() == book()


def test_what_was_ours_once_is_anothers_when_it_came_while_ours_was_refused() -> None:
    course = Course(1, ledger=book(attaching=[1]), there=seen(1))
    assert course.written() == book([1])
    course.work.look_again()
    course.step(seen())
    assert course.sent() == attach(1)
    course.take(Failure(kind=Fault.CONFLICT))
    course.step(seen(1), course.now + 1)
    assert course.written() == book()


@pytest.mark.parametrize("kind", [Fault.UNREACHABLE, Fault.FAILED])
def test_a_read_that_failed_is_made_again_later_each_time(kind: Fault) -> None:
    course = Course(ledger=book())
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        course.fail(kind)
        assert course.due() == course.now + pause
        course.now += pause


def test_a_first_read_that_failed_is_made_again_after_a_second() -> None:
    course = Course(1)
    course.fail(Fault.UNREACHABLE)
    assert course.due() == 1


def test_a_read_that_azure_throttles_is_made_when_the_gate_opens() -> None:
    course = Course(1)
    course.fail(Fault.THROTTLED)
    assert course.next() == ReadHost(HOST)


@pytest.mark.parametrize("kind", [Fault.FORBIDDEN, Fault.DENIED])
def test_a_host_that_may_not_be_read_says_so_until_it_is(kind: Fault) -> None:
    course = Course(1)
    course.fail(kind)
    assert course.work.ailment() == kind.value
    course.fail(kind, 1.0, message="no")
    assert course.work.ailment() == "no"
    assert course.news() == {1}
    course.step(seen(), 4.0)
    assert course.work.ailment() == ""
    assert course.news() == {1}


@pytest.mark.parametrize("asked", [0.0, 20.0])
def test_a_list_that_failed_is_made_again_and_the_turn_given_back(asked: float) -> None:
    course = Course(ledger=book([1]), there=seen(1))
    course.next()
    course.next(GRACE)
    course.step(seen(1), GRACE + QUIET)
    course.around.left.clear()
    assert course.fail(Fault.THROTTLED, retry_after=asked) == ListUse()
    assert course.around.left == ["write"]
    assert course.due() == course.now + max(1.0, asked)


@pytest.mark.parametrize("asked", [0.0, 20.0])
def test_a_ledger_that_could_not_be_written_is_read_again_and_then_the_host(asked: float) -> None:
    course = Course(1, there=seen())
    course.gathered()
    assert isinstance(course.fail(Fault.CONFLICT, retry_after=asked), WriteLedger)
    assert course.due() == course.now + max(1.0, asked)
    course.now += max(1.0, asked)
    assert course.fail(Fault.UNREACHABLE) == ReadLedger(HOST)
    assert course.step(StoredLedger(book(), "9"), course.now + 2) == ReadLedger(HOST)
    assert course.step(seen()) == ReadHost(HOST)
    call = course.next(course.now + QUIET)
    assert isinstance(call, WriteLedger)
    assert call.version == "9"


# The ledger of another.


@pytest.mark.parametrize(
    ("stored", "lost"),
    [
        (StoredLedger(None, ""), True),
        (StoredLedger(None, "5", malformed="no JSON"), True),
        (StoredLedger(book([1]), "5"), False),
    ],
)
def test_a_ledger_that_is_lost_is_told_and_what_it_named_is_not_ours_any_more(
    stored: StoredLedger, lost: bool
) -> None:
    course = Course(ledger=book([1]), there=seen(1))
    course.work.adopt(stored)
    assert course.step(seen(1)) == ReadHost(HOST)
    assert [each.topic for each in course.around.lines] == ["ledger-lost"] * lost
    assert all(
        stored.malformed in each.message and each.host is HOST for each in course.around.lines
    )
    assert course.due() == (IDLE if lost else GRACE)


def test_a_first_ledger_that_cannot_be_read_is_told() -> None:
    course = Course()
    course.work.adopt(StoredLedger(None, "5", malformed="no JSON"))
    assert ["no JSON" in each.message for each in course.around.lines] == [True]


def test_that_there_was_no_ledger_is_not_told() -> None:
    course = Course()
    course.work.adopt(StoredLedger(None, ""))
    assert course.around.lines == []


def test_a_change_that_a_leader_before_began_is_finished_by_what_the_host_shows() -> None:
    course = Course(ledger=book(attaching=[1, 2]), there=seen(1))
    assert course.written() == book([1], attaching=[2])


# Lists of the group and of all ledgers.


def test_a_list_that_shows_the_host_is_a_read_of_it() -> None:
    course = Course(1)
    course.work.expect()
    assert course.due() is None
    course.work.show(seen(1), 1.0)
    assert course.status() is Status.PROVED
    assert course.news() == {1}
    assert course.around.asked == []


@pytest.mark.parametrize("there", [None, seen(1)], ids=["new", "known"])
def test_a_host_that_a_list_does_not_show_is_read_alone(there: HostIdentities | None) -> None:
    course = Course(1, there=there)
    course.work.expect()
    course.work.show(None, 1.0)
    assert course.next() == ReadHost(HOST)


@pytest.mark.parametrize("answered", [False, True])
def test_a_list_that_began_before_a_call_of_the_host_says_nothing_of_it(answered: bool) -> None:
    course = Course(1, there=seen())
    course.work.expect()
    course.work.expect_ledger()
    course.gathered()
    course.next()
    if answered:
        course.take(StoredLedger(book(attaching=[1]), "2"))
    course.work.show(seen(1), 1.0)
    course.work.compare(StoredLedger(book([1]), "1"))
    assert course.status() is Status.ABSENT
    assert isinstance(course.next(), PatchHost) is answered


def test_a_list_that_begins_while_the_host_is_busy_says_nothing_of_it() -> None:
    course = Course(1, there=seen())
    course.gathered()
    course.next()
    course.work.expect()
    course.take(StoredLedger(book(attaching=[1]), "2"))
    course.work.show(seen(1), 1.0)
    assert course.status() is Status.ABSENT


def test_a_list_says_something_once() -> None:
    course = Course(1, there=seen())
    course.work.expect()
    course.work.show(seen(1), 1.0)
    course.work.show(seen(), 2.0)
    assert course.status() is Status.PROVED


def test_a_ledger_that_a_list_shows_counts_where_another_wrote_it() -> None:
    course = Course(ledger=book(), there=seen(1))
    course.work.compare(StoredLedger(book([1]), "9"))
    assert course.due() == IDLE
    course.work.expect_ledger()
    course.work.compare(StoredLedger(book([1]), "1"))
    assert course.due() == IDLE
    course.work.compare(StoredLedger(book([1]), "9"))
    course.step(seen(1))
    assert course.due() == GRACE


# A host that is gone, or that nothing needs.


def test_a_host_that_is_gone_is_looked_for_as_long_as_nodes_name_it() -> None:
    course = Course(1)
    course.fail(Fault.NOT_FOUND)
    assert course.status() is Status.ABSENT
    for pause in (60, 120, 240, 480, 600, 600):
        assert course.due() == course.now + pause
        course.fail(Fault.NOT_FOUND, course.now + pause)
    course.around.want.clear()
    assert course.next(course.now + 600) is None
    assert course.work.due is None


def test_the_ledger_of_a_host_that_is_gone_is_deleted_when_no_node_names_it() -> None:
    course = Course(ledger=book([1]))
    course.fail(Fault.NOT_FOUND)
    assert course.due() is None
    course.around.nodes = False
    assert course.next() == WriteLedger(book(), "1", gone=True)
    course.take(StoredLedger(None, ""))
    assert course.due() is None
    assert course.work.droppable(course.now)


def test_a_host_that_is_gone_and_has_no_nodes_is_not_looked_for() -> None:
    course = Course(1)
    course.fail(Fault.NOT_FOUND)
    course.around.nodes = False
    assert course.next(60.0) is None


def test_a_host_that_came_back_is_changed_again() -> None:
    course = Course(1)
    course.fail(Fault.NOT_FOUND)
    course.step(seen(), 60.0)
    assert course.due() == 60 + QUIET


def test_a_host_of_which_nothing_is_wanted_is_forgotten_after_a_while() -> None:
    course = Course(ledger=book(), there=seen())
    assert course.due() == IDLE
    assert [course.work.droppable(at) for at in (IDLE - 1, IDLE)] == [False, True]
    assert course.next(IDLE) is None
    assert course.work.due is None
    course.around.want.add(1)
    course.work.touch(1.0)
    assert not course.work.droppable(IDLE)
    course.around.want.clear()
    course.now = 10.0
    assert course.due() == 10 + IDLE


@pytest.mark.parametrize(
    ("ledger", "wanted", "nodes", "droppable"),
    [
        (book(), [], False, True),
        (book(), [], True, False),
        (book(), [1], False, False),
        (book([1]), [], False, False),
    ],
)
def test_a_host_without_nodes_is_forgotten_unless_something_is_to_be_remembered(
    ledger: Ledger, wanted: list[int], nodes: bool, droppable: bool
) -> None:
    course = Course(ledger=ledger, there=seen(1))
    course.around.want, course.around.nodes = {*wanted}, nodes
    assert course.work.droppable(0.0) is droppable


@pytest.mark.parametrize("ledger", [None, book()])
def test_a_host_that_is_gone_is_forgotten_though_it_is_wanted_but_not_its_ledger(
    ledger: Ledger | None,
) -> None:
    course = Course(1, ledger=ledger)
    course.fail(Fault.NOT_FOUND)
    assert not course.work.droppable(0.0)
    course.around.nodes = False
    assert course.work.droppable(0.0) is (ledger is None)


def test_a_host_without_a_ledger_is_forgotten_though_it_was_to_be_read() -> None:
    course = Course(1, there=seen())
    course.around.nodes = False
    assert not course.work.droppable(0.0)
    course.around.want.clear()
    course.work.look_again()
    course.around.nodes = True
    assert not course.work.droppable(0.0)
    course.around.nodes = False
    assert course.work.droppable(0.0)
    assert course.next() == ReadHost(HOST)
    assert not course.work.droppable(0.0)


def test_a_host_that_is_busy_or_has_an_unread_ledger_is_not_forgotten() -> None:
    assert not Course().work.droppable(0.0)
    course = Course(ledger=book())
    course.around.nodes = False
    assert not course.work.droppable(0.0)
    course.next()
    assert not course.work.droppable(0.0)
    course.take(seen())
    assert course.work.droppable(0.0)

"""What is written about a record, from what it should say and what is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from podidentity.core.assignments import Need
from podidentity.core.resources import Assignment, ObjectRef
from podidentity.mic.calls import (
    CreateRecord,
    DeleteRecord,
    Failure,
    Fault,
    Oddities,
    ReadRecord,
    Record,
    Result,
    StoredRecord,
    UpdateRecord,
)
from podidentity.mic.hosts import Status
from podidentity.mic.records import LATE, Records
from tests.core.objects import binding, identity, principal
from tests.mic.simulator import HOSTS

REF = ObjectRef("blue", "web-blue-id")
NEED = Need(
    pod=ObjectRef("blue", "web"),
    uid="pod-1",
    node="n1",
    identity=identity("blue", "id"),
    binding=binding("blue", "b", "id", "app"),
    decided=True,
    host=HOSTS[0],
)
ASSIGNED = Record(
    ref=REF,
    pod=NEED.pod,
    identity=NEED.identity.ref,
    binding=NEED.binding.ref,
    node="n1",
    state=Assignment.ASSIGNED,
    identity_revision="i1",
    binding_revision="b1",
)
CREATED = replace(ASSIGNED, state=Assignment.CREATED)


def stored(record: Record | None = ASSIGNED, **facts: Any) -> StoredRecord:
    return StoredRecord(**({"ref": REF, "uid": "r-1", "version": "5", "record": record} | facts))


class Course:
    """The records of a cluster in which one pod needs one identity."""

    def __init__(self, status: Status = Status.PROVED, *known: StoredRecord) -> None:
        self.need: Need | None = NEED
        self.status = status
        self.revisions = ("i1", "b1")
        self.records = Records(lambda _: self.need, lambda _: self.status, lambda _: self.revisions)
        for each in known:
            self.records.see(each)

    def next(self, now: float = 0.0) -> Any:
        return self.records.next(REF, now)

    def take(self, result: Result, now: float = 0.0) -> Record | None:
        return self.records.take(REF, result, now)

    def fails(self, kind: Fault, now: float, **facts: Any) -> Any:
        """Have the call that is due fail; return when the next one is."""
        assert self.next(now) is not None
        self.take(Failure(kind=kind, **facts), now)
        return now if self.records.next(REF, now) else self.records.due


# The next call.

CREATE_ASSIGNED = CreateRecord(ASSIGNED, 7.0)
TO_CREATED = UpdateRecord(REF, CREATED, "r-1", "5", 7.0)
TO_ASSIGNED = UpdateRecord(REF, ASSIGNED, "r-1", "5", 7.0)
HELD = Oddities(finalizer=0)
RELEASE = UpdateRecord(REF, None, "r-1", "5", 0.0, HELD)


@pytest.mark.parametrize(
    ("status", "known", "call"),
    [
        (Status.ABSENT, None, None),
        (Status.LISTED, None, None),
        (Status.PROVED, None, CREATE_ASSIGNED),
        (Status.UNKNOWN, None, None),
        (Status.UNKNOWN, stored(), None),
        (Status.UNKNOWN, stored(CREATED), None),
        (Status.UNKNOWN, stored(odd=HELD), replace(TO_ASSIGNED, odd=HELD)),
        (Status.UNKNOWN, stored(replace(ASSIGNED, node="n2")), None),
        (Status.LISTED, stored(), None),
        (Status.LISTED, stored(replace(ASSIGNED, node="n2")), TO_CREATED),
        (Status.ABSENT, stored(), TO_CREATED),
        (Status.ABSENT, stored(CREATED), None),
        (Status.PROVED, stored(), None),
        (Status.PROVED, stored(CREATED), TO_ASSIGNED),
        (Status.PROVED, stored(None), TO_ASSIGNED),
        (Status.PROVED, stored(odd=HELD), replace(TO_ASSIGNED, odd=HELD)),
        (Status.PROVED, stored(deleting=True), None),
        (Status.PROVED, stored(deleting=True, odd=HELD), RELEASE),
    ],
)
def test_a_record_that_is_needed_is_made_to_say_what_its_host_shows(
    status: Status, known: StoredRecord | None, call: object
) -> None:
    course = Course(status, *([] if known is None else [known]))
    assert course.next(7.0) == call


@pytest.mark.parametrize("status", [Status.UNKNOWN, Status.ABSENT, Status.LISTED])
def test_a_record_waits_for_its_identity_for_a_while_and_then_tells_that_it_does(
    status: Status,
) -> None:
    course = Course(status)
    assert course.next(7.0) is None
    assert course.records.due == 7.0 + LATE
    assert course.next(6.9 + LATE) is None
    assert course.next(7.0 + LATE) == CreateRecord(CREATED, 7.0)


def test_a_record_whose_identity_comes_within_that_while_is_written_once() -> None:
    course = Course(Status.ABSENT)
    assert course.next(7.0) is None
    course.status = Status.PROVED
    assert course.next(9.0) == CREATE_ASSIGNED


def test_a_record_says_what_it_said_while_its_host_cannot_be_read() -> None:
    course = Course(Status.UNKNOWN, stored())
    for now in (7.0, 7.0 + LATE, 700.0):
        assert course.next(now) is None


@pytest.mark.parametrize(
    "before",
    [
        replace(ASSIGNED, identity_revision="i0"),
        replace(ASSIGNED, binding_revision="b0"),
        replace(ASSIGNED, binding=ObjectRef("blue", "earlier"), binding_revision="b0"),
    ],
    ids=["identity", "binding", "another binding"],
)
def test_a_record_of_what_was_edited_says_what_it_said_until_its_host_is_read(
    before: Record,
) -> None:
    course = Course(Status.UNKNOWN, stored(before))
    for now in (7.0, 7.0 + LATE, 700.0):
        assert course.next(now) is None
    course.status = Status.PROVED
    assert course.next(701.0) == replace(TO_ASSIGNED, since=7.0)


def test_a_record_of_another_node_tells_that_its_identity_is_awaited() -> None:
    course = Course(Status.UNKNOWN, stored(replace(ASSIGNED, node="n2")))
    course.next(7.0)
    assert course.next(7.0 + LATE) == TO_CREATED


def test_a_node_that_is_no_machine_of_azures_has_no_record_that_waits() -> None:
    course = Course(Status.UNKNOWN)
    course.need = replace(NEED, host=None)
    course.next(7.0)
    assert course.next(7.0 + LATE) is None
    assert course.records.due is None


@pytest.mark.parametrize(
    ("known", "call"),
    [
        (None, None),
        (stored(), DeleteRecord(REF, "r-1")),
        (stored(None), DeleteRecord(REF, "r-1")),
        (stored(odd=HELD), RELEASE),
        (stored(deleting=True, odd=HELD), RELEASE),
        (stored(deleting=True), None),
    ],
)
def test_a_record_that_nothing_needs_is_deleted_its_finalizer_first(
    known: StoredRecord | None, call: object
) -> None:
    course = Course(Status.PROVED, *([] if known is None else [known]))
    course.need = None
    assert course.next(7.0) == call


def test_while_a_permission_is_not_known_nothing_is_written() -> None:
    course = Course(Status.ABSENT, stored())
    course.need = replace(NEED, decided=False)
    assert course.next() is None


def test_an_identity_that_is_not_attached_is_assigned_whatever_the_host() -> None:
    course = Course(Status.UNKNOWN)
    course.need = replace(NEED, identity=principal("blue", "id"))
    assert course.next().record.state is Assignment.ASSIGNED


def test_a_record_has_one_call_at_a_time() -> None:
    course = Course()
    assert course.next() is not None
    assert course.next() is None


# What the watch tells.


def test_what_the_watch_tells_is_news_once_and_in_its_order() -> None:
    records = Course().records
    versions = ["9", "9", "10", "8"]
    assert [records.see(stored(version=each)) for each in versions] == [True, False, True, False]


def test_the_end_of_a_record_is_news_where_it_is_the_one_that_is_known() -> None:
    records = Course(Status.PROVED, stored(uid="r-2")).records
    assert not records.lose(ObjectRef("blue", "another"), "r-2")
    assert not records.lose(REF, "r-1")
    assert {*records.names} == {REF}
    assert records.lose(REF, "r-2")
    assert {*records.names} == set()


@pytest.mark.parametrize(
    ("known", "says"),
    [([], False), ([stored(None)], False), ([stored(CREATED)], False), ([stored()], True)],
)
def test_a_record_says_assigned_or_not(known: list[StoredRecord], says: bool) -> None:
    assert Course(Status.PROVED, *known).records.says_assigned(REF) is says


# Results.


@pytest.mark.parametrize("result", [None, Failure(kind=Fault.NOT_FOUND)])
def test_what_was_deleted_is_gone_though_the_watch_tells_of_it_later(result: Result) -> None:
    course = Course(Status.PROVED, stored())
    course.need = None
    course.fails(Fault.FAILED, 0.0)
    assert isinstance(course.next(1.0), DeleteRecord)
    assert course.take(result, 1.0) is None
    assert {*course.records.names} == set()
    assert not course.records.see(stored(version="6", deleting=True))
    course.need = NEED
    assert course.fails(Fault.FAILED, 1.0) == pytest.approx(1.2)
    assert isinstance(course.next(1.2), CreateRecord)
    assert course.records.see(stored(uid="r-2", version="7"))


def test_a_record_that_came_while_another_was_deleted_stays() -> None:
    course = Course(Status.PROVED, stored())
    course.need = None
    course.next()
    course.records.lose(REF, "r-1")
    course.records.see(stored(uid="r-2", version="7"))
    course.take(None)
    assert course.next() == DeleteRecord(REF, "r-2")


def test_of_a_record_whose_end_was_told_before_its_deletion_is_answered_nothing_is_left() -> None:
    course = Course(Status.PROVED, stored())
    course.need = None
    course.next()
    assert course.records.lose(REF, "r-1")
    course.take(None)
    assert {*course.records.names} == set()
    assert course.next() is None


def test_an_update_of_what_is_gone_reads_it_and_does_not_take_it_for_deleted() -> None:
    course = Course(Status.PROVED, stored(CREATED))
    assert course.fails(Fault.NOT_FOUND, 0.0) == pytest.approx(0.2)
    assert course.next(0.2) == ReadRecord(REF)
    course.take(None)
    assert isinstance(course.next(0.2), CreateRecord)


@pytest.mark.parametrize(
    ("read", "call"),
    [
        (None, CreateRecord(ASSIGNED, 0.0)),
        (stored(CREATED, version="6"), None),
        (stored(CREATED, version="8"), UpdateRecord(REF, ASSIGNED, "r-1", "8", 0.0)),
    ],
    ids=["gone", "older than the watch's", "newer"],
)
def test_what_is_read_counts_unless_the_watch_was_ahead(
    read: StoredRecord | None, call: object
) -> None:
    course = Course(Status.PROVED, stored(CREATED))
    course.next()
    course.take(Failure(kind=Fault.CONFLICT))
    assert course.next() == ReadRecord(REF)
    course.records.see(stored(version="7"))
    course.take(read)
    assert course.next() == call


def test_what_is_read_is_there_though_it_was_deleted() -> None:
    course = Course(Status.PROVED, stored())
    course.need = None
    course.next()
    course.take(None)
    course.need = NEED
    course.next()
    course.take(Failure(kind=Fault.CONFLICT))  # it is there already
    course.next()
    course.take(stored(version="6", deleting=True))
    assert {*course.records.names} == {REF}
    assert course.records.see(stored(version="7", deleting=True))


def test_a_write_gives_the_record_that_says_assigned_from_now_on() -> None:
    course = Course(Status.ABSENT)
    course.next()
    course.next(LATE)
    assert course.take(stored(CREATED)) is None
    course.status = Status.PROVED
    course.next()
    assert course.take(stored(version="6")) == ASSIGNED
    assert course.next() is None


def test_to_take_a_finalizer_off_says_nothing_of_the_record() -> None:
    course = Course(Status.PROVED, stored(odd=HELD))
    course.need = None
    course.next()
    assert course.take(stored(version="6")) is None
    assert course.next() == DeleteRecord(REF, "r-1")
    assert course.take(None) is None


@pytest.mark.parametrize(
    ("seen", "version"),
    [(stored(version="7"), "7"), (stored(version="5"), "6"), (stored(uid="r-0", version="9"), "6")],
    ids=["the watch was ahead", "the watch was behind", "another"],
)
def test_what_a_write_gives_is_stored_unless_the_watch_was_ahead(
    seen: StoredRecord, version: str
) -> None:
    course = Course(Status.PROVED)
    course.next()
    course.records.see(seen)
    course.take(stored(version="6"))
    course.status = Status.ABSENT
    assert course.next().version == version


PRUNED = {"identity": {"identity_revision": "p"}, "binding": {"binding_revision": "p"}}


@pytest.mark.parametrize("of", PRUNED)
def test_a_copy_that_the_api_server_prunes_is_not_written_again_and_an_edited_one_is(
    of: str,
) -> None:
    course, pruned = Course(), replace(ASSIGNED, **PRUNED[of])  # type: ignore[arg-type]
    course.next()
    assert course.take(stored(pruned)) == ASSIGNED
    assert course.next() is None
    course.revisions = ("i2", "b2")
    assert course.next().record.identity_revision == "i2"
    edited = replace(ASSIGNED, identity_revision="i2", binding_revision="b2")
    course.take(stored(edited, version="6"))
    assert course.next() is None
    # What it kept whole is known no more by what it pruned before.
    course.revisions = ("i1", "b1")
    course.records.see(stored(pruned, version="7"))
    assert isinstance(course.next(), UpdateRecord)


def test_a_record_with_a_pruned_copy_is_written_again_where_it_says_something_else() -> None:
    course, pruned = Course(), replace(ASSIGNED, identity_revision="p")
    course.next()
    course.take(stored(pruned))
    course.records.see(stored(replace(pruned, node="n2"), version="6"))
    assert course.next().record == ASSIGNED


def test_what_another_record_was_pruned_to_does_not_count_for_the_next_of_its_name() -> None:
    course, pruned = Course(), replace(ASSIGNED, identity_revision="pruned")
    course.next()
    course.take(stored(pruned))
    course.need = None
    course.next()
    course.need = NEED
    course.take(None)
    course.records.see(stored(pruned, uid="r-2", version="8"))
    assert isinstance(course.next(), UpdateRecord)


def test_a_record_that_cannot_be_read_after_its_write_is_written_again() -> None:
    course = Course()
    course.next()
    course.take(stored(None))
    assert isinstance(course.next(), UpdateRecord)


# Since when a pod waits.


def test_a_pod_waits_from_its_first_need_until_its_record_says_assigned() -> None:
    course = Course(Status.ABSENT)
    course.next(1.0)
    assert course.next(1.0 + LATE).since == 1.0
    course.take(stored(CREATED), 5.0)
    course.status = Status.PROVED
    assert course.next(5.0).since == 1.0
    course.take(stored(version="6"), 6.0)
    course.status = Status.ABSENT
    assert course.next(9.0).since == 9.0


@pytest.mark.parametrize(
    "other", [{"uid": "pod-2"}, {"node": "n2"}, {"identity": identity("blue", "id", 2)}]
)
def test_another_pod_node_or_identity_waits_for_itself(other: dict[str, Any]) -> None:
    course = Course(Status.ABSENT)
    course.next(1.0)
    course.next(1.0 + LATE)
    course.take(stored(CREATED), 5.0)
    course.need, course.status = replace(NEED, **other), Status.PROVED
    assert course.next(5.0).since == 5.0


def test_a_need_that_ended_and_came_back_waits_anew() -> None:
    course = Course(Status.ABSENT)
    course.next(1.0)
    course.need = None
    assert course.next(3.0) is None
    course.need = NEED
    course.next(5.0)
    assert course.next(5.0 + LATE).since == 5.0


def test_a_record_that_was_found_assigned_waits_anew_when_its_identity_is_gone() -> None:
    course = Course(Status.PROVED, stored())
    assert course.next(1.0) is None
    course.status = Status.ABSENT
    assert course.next(9.0).since == 9.0


# Failures.


@pytest.mark.parametrize(
    ("kind", "longest"), [(Fault.FAILED, 30), (Fault.FORBIDDEN, 300), (Fault.INVALID, 300)]
)
def test_what_fails_is_tried_later_each_time(kind: Fault, longest: float) -> None:
    course, now, pauses = Course(), 0.0, []
    for _ in range(13):
        due = course.fails(kind, now)
        pauses.append(due - now)
        now = due
    assert isinstance(course.next(now), CreateRecord)
    expected = [min(0.1 * 2**number, longest) for number in range(1, 14)]
    assert pauses == [pytest.approx(each) for each in expected]


def test_a_failure_waits_for_as_long_as_the_api_server_asks() -> None:
    assert Course().fails(Fault.THROTTLED, 10.0, retry_after=60.0) == 70.0


def test_after_a_success_failures_are_counted_anew() -> None:
    course = Course()
    course.fails(Fault.FAILED, 0.0)
    assert course.next(0.2) is not None
    assert course.records.due is None
    course.take(stored(), 0.2)
    course.status = Status.ABSENT
    assert course.fails(Fault.FAILED, 1.0) == pytest.approx(1.2)


@pytest.mark.parametrize("kind", [Fault.CONFLICT, Fault.NOT_FOUND, Fault.LOST])
def test_where_it_is_not_known_what_is_stored_it_is_read_first(kind: Fault) -> None:
    course = Course()
    course.next()
    course.take(Failure(kind=kind))
    assert course.next(0.2) == ReadRecord(REF)
    # Until it has been read.
    course.take(Failure(kind=Fault.FAILED), 0.2)
    assert course.next(60.0) == ReadRecord(REF)


def test_after_a_first_conflict_it_is_read_at_once() -> None:
    course = Course()
    course.next()
    course.take(Failure(kind=Fault.CONFLICT))
    assert course.next(0.0) == ReadRecord(REF)
    course.take(Failure(kind=Fault.CONFLICT))
    assert course.next(0.0) is None
    assert course.records.due == pytest.approx(0.4)


@pytest.mark.parametrize("kind", [Fault.FORBIDDEN, Fault.INVALID])
def test_a_refused_record_is_forgotten_when_its_pod_is_gone(kind: Fault) -> None:
    course = Course()
    due = course.fails(kind, 0.0)
    course.need = None
    assert course.next(due) is None
    assert course.records._troubles == {}


def test_a_new_leader_reads_what_was_under_way_at_once() -> None:
    course = Course()
    course.next()
    course.records.forget_flights()
    assert course.next(0.0) == ReadRecord(REF)
    course.take(Failure(kind=Fault.FAILED))
    course.next(0.0)
    assert course.records.due == pytest.approx(0.2)

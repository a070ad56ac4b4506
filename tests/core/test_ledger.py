from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podidentity.core.hosts import Host, HostChange, HostIdentities
from podidentity.core.ledger import (
    LONGEST_CHANGE,
    HostPlan,
    Ledger,
    LedgerEntry,
    Wanted,
    immutable,
    plan,
)
from tests.core.objects import client_id, resource_id

HOST = Host.parse(
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/one"
)
NUMBERS = range(1, 6)
IDS = {number: resource_id(number).folded for number in NUMBERS}


def entry(number: int, since: float = 0.0) -> LedgerEntry:
    return LedgerEntry(resource_id(number).spelling, since, str(client_id(number)))


def ledger(
    attached: Iterable[int] = (),
    attaching: Iterable[int] = (),
    detaching: Iterable[int] = (),
    since: float = 0.0,
) -> Ledger:
    parts = [
        {IDS[number]: entry(number, since) for number in part}
        for part in (attached, attaching, detaching)
    ]
    return Ledger(host=HOST, attached=parts[0], attaching=parts[1], detaching=parts[2])


def seen(*numbers: int, state: str = "succeeded", system: bool = False) -> HostIdentities:
    # Azure spells an id as it likes.
    user = {IDS[number]: resource_id(number).spelling.upper() for number in numbers}
    return HostIdentities(state=state, system=system, user=user)


def wanted(*numbers: int) -> dict[str, Wanted]:
    return {IDS[number]: Wanted(resource_id(number), str(client_id(number))) for number in numbers}


def ids(*numbers: int) -> frozenset[str]:
    return frozenset(IDS[number] for number in numbers)


def planned(
    book: Ledger,
    there: HostIdentities,
    want: Iterable[int] = (),
    *,
    proved: Iterable[int] = (),
    refused: Iterable[int] = (),
    unneeded: Iterable[int] = (),
    most: int = 150,
) -> tuple[list[int], list[int]]:
    found = plan(
        book,
        there,
        wanted(*want),
        proved=ids(*proved),
        refused=ids(*refused),
        unneeded=ids(*unneeded),
        most=most,
    )
    number = {folded: each for each, folded in IDS.items()}
    attach = [number[each.resource_id.folded] for each in found.attach]
    return attach, [number[each] for each in found.detach]


# The plan.


@pytest.mark.parametrize(
    ("book", "there", "given", "expected"),
    [
        (ledger(), seen(), {"want": [1, 2]}, ([1, 2], [])),
        (ledger(), seen(2), {"want": [1, 2]}, ([1], [])),
        (ledger(), seen(1, 2), {"want": [1, 2]}, ([], [])),
        (ledger(), seen(), {"want": [1, 2], "refused": [1]}, ([2], [])),
        (ledger(), seen(), {"want": [1, 2, 3], "most": 2}, ([1, 2], [])),
        (ledger([1]), seen(1, 2), {"unneeded": [1, 2]}, ([], [1])),
        (ledger([1]), seen(2), {"unneeded": [1]}, ([], [])),
        (ledger([1]), seen(1), {}, ([], [])),
        (ledger([1]), seen(1), {"unneeded": [1], "refused": [1]}, ([], [])),
        (ledger([1, 2]), seen(1, 2), {"want": [3], "unneeded": [1, 2], "most": 2}, ([3], [1])),
        (ledger(detaching=[1]), seen(1), {"want": [1]}, ([1], [])),
        (ledger(detaching=[1]), seen(1), {"unneeded": [1]}, ([], [1])),
        (ledger(), seen(1, state="failed"), {"want": [1]}, ([1], [])),
        (ledger(), seen(1, state="failed"), {"want": [1], "proved": [1]}, ([], [])),
    ],
    ids=[
        "missing",
        "one there",
        "all there",
        "refused",
        "more than a change may name",
        "ours and unneeded, and another's",
        "gone already",
        "ours within the grace",
        "ours, but Azure refuses it",
        "room for one",
        "in doubt and wanted",
        "in doubt and unneeded",
        "after a failed change",
        "proved before the failed change",
    ],
)
def test_a_plan_is_what_is_missing_and_what_is_ours_and_unneeded(
    book: Ledger, there: HostIdentities, given: dict[str, object], expected: object
) -> None:
    assert planned(book, there, **given) == expected  # type: ignore[arg-type]


def test_a_plan_names_at_most_150_identities() -> None:
    many = {resource_id(number).folded: Wanted(resource_id(number), "") for number in range(200)}
    nothing = frozenset[str]()
    found = plan(ledger(), seen(), many, proved=nothing, refused=nothing, unneeded=nothing)
    assert len(found.attach) == 150


# What is written before a change, and what is known after it.


def test_what_the_host_had_before_our_change_never_becomes_ours() -> None:
    book = ledger().intending(HostPlan(attach=tuple(wanted(1, 2).values())), seen(2), 5.0)
    assert dict(book.attaching) == {IDS[1]: entry(1, 5.0)}
    assert dict(book.attached) == {}


def test_what_is_to_be_detached_is_noted_before_and_gone_after_it() -> None:
    book = ledger([1, 2]).intending(HostPlan(detach=(IDS[1],)), seen(1, 2), 5.0)
    assert book == replace(ledger([2]), detaching={IDS[1]: entry(1, 5.0)})
    after = book.resolved(seen(2), 6.0, ended=True)
    assert after == ledger([2])
    assert not after.unresolved


@pytest.mark.parametrize(
    ("book", "there", "ended", "expected"),
    [
        (ledger(attaching=[2]), seen(2), False, ledger([2])),
        (ledger(attaching=[1]), seen(1), False, ledger()),
        (ledger(attaching=[1]), seen(), True, ledger()),
        (ledger(attaching=[1]), seen(1), True, ledger()),
        (ledger(attaching=[2]), seen(2), True, ledger([2])),
        (ledger(attaching=[2]), seen(), True, ledger()),
        (ledger(attaching=[1]), seen(), False, ledger(attaching=[1])),
        (ledger(detaching=[1]), seen(), False, ledger()),
        (ledger(detaching=[1]), seen(1), True, ledger([1])),
        (ledger(detaching=[1]), seen(1), False, ledger(detaching=[1])),
        (ledger([1]), seen(), False, ledger()),
    ],
    ids=[
        "a crash after the change",
        "another's, before our change was sent",
        "a change that did nothing",
        "another's, since ours did nothing",
        "a change that landed",
        "a change that landed, and another took it off",
        "a change that may still come",
        "detached before a crash",
        "a detach that did nothing",
        "a detach that may still come",
        "another took it off",
    ],
)
def test_a_read_resolves_what_a_change_left_open(
    book: Ledger, there: HostIdentities, ended: bool, expected: Ledger
) -> None:
    assert book.resolved(there, 10.0, ended=ended, landed=ids(2)) == expected


def test_a_change_of_which_nothing_was_heard_is_given_up_after_the_longest_time() -> None:
    book = ledger(attaching=[1], detaching=[2])
    late = LONGEST_CHANGE
    assert book.resolved(seen(2), late - 1, ended=False) == book
    assert book.resolved(seen(2), late, ended=False) == ledger([2])


def test_a_detach_in_doubt_is_taken_back_by_attaching_the_identity_again() -> None:
    book = ledger(detaching=[1])
    change = HostPlan(attach=tuple(wanted(1).values()))
    written = book.intending(change, seen(1), 9.0)
    assert written == book
    assert written.covered(change, seen(1)) == change
    # Only when that change has ended is it certain that no earlier one comes.
    assert written.resolved(seen(1), 10.0, ended=False) == book
    assert written.resolved(seen(1), 10.0, ended=True) == ledger([1])


def test_a_ledger_covers_a_change_that_it_was_written_for_and_no_larger_one() -> None:
    change = HostPlan(attach=tuple(wanted(1).values()), detach=(IDS[2],))
    written = ledger([2, 3]).intending(change, seen(2, 3, 4), 0.0)
    assert written.covered(change, seen(2, 3, 4)) == change
    assert written.covered(HostPlan(attach=tuple(wanted(4).values())), seen(2, 3, 4)) == HostPlan(
        attach=tuple(wanted(4).values())
    )
    assert written.covered(HostPlan(attach=tuple(wanted(5).values())), seen(2, 3, 4)).empty
    assert written.covered(HostPlan(detach=(IDS[3],)), seen(2, 3, 4)).empty


def test_after_a_change_that_failed_what_it_detached_may_be_on_the_machines_still() -> None:
    book, there = ledger(detaching=[1]), seen(2, state="failed")
    assert book.resolved(there, 10.0, ended=True) == book
    nothing = frozenset[str]()
    found = plan(book, there, {}, proved=nothing, refused=nothing, unneeded=nothing)
    assert found == HostPlan(again=True)
    assert found.change(there).attach == (resource_id(2).spelling.upper(),)
    empty = seen(state="failed")
    assert found.change(empty) == HostChange()
    assert book.resolved(seen(2), 11.0, ended=True) == ledger()


def test_what_is_attached_again_is_not_noted_as_being_detached_any_more() -> None:
    change = HostPlan(attach=tuple(wanted(1).values()))
    written = ledger(detaching=[1]).intending(change, seen(2, state="failed"), 5.0)
    assert written == ledger(attaching=[1], since=5.0)


@pytest.mark.parametrize(
    ("book", "there", "again"),
    [
        (ledger(detaching=[1]), seen(2, state="failed"), True),
        (ledger(detaching=[1]), seen(1, state="failed"), False),
        (ledger(), seen(2, state="failed"), False),
        (ledger(detaching=[1]), seen(2), False),
    ],
    ids=["it failed, and is not listed", "listed", "nothing to detach", "it succeeded"],
)
def test_what_is_listed_is_sent_again_where_a_detach_failed_of_what_is_not_listed(
    book: Ledger, there: HostIdentities, again: bool
) -> None:
    nothing = frozenset[str]()
    found = plan(book, there, {}, proved=nothing, refused=nothing, unneeded=nothing)
    assert found.again is again


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (HostPlan(attach=(*wanted(3).values(),)), ([3], [])),
        (HostPlan(detach=(IDS[1],)), ([], [1])),
        (HostPlan(again=True), ([1], [])),
    ],
    ids=["attach", "detach", "again"],
)
def test_a_change_names_what_its_plan_does_and_one_that_is_there_where_it_does_nothing(
    change: HostPlan, names: tuple[list[int], list[int]]
) -> None:
    found = change.change(seen(1, 2))
    assert found.clients == ()
    folded = [each.lower() for each in found.attach], [each.lower() for each in found.detach]
    assert folded == tuple([IDS[number] for number in part] for part in names)


@pytest.mark.parametrize("part", ["attached", "attaching", "detaching"])
def test_a_ledger_is_empty_that_has_nothing_in_any_part(part: str) -> None:
    book = ledger(**{part: [1]})  # type: ignore[arg-type]
    assert (ledger().empty, book.empty) == (True, False)
    assert book.unresolved is (part != "attached")


@pytest.mark.parametrize(
    "change",
    [HostPlan(attach=(*wanted(1).values(),)), HostPlan(detach=(IDS[1],)), HostPlan(again=True)],
    ids=["attach", "detach", "again"],
)
def test_a_plan_is_empty_that_attaches_detaches_and_repeats_nothing(change: HostPlan) -> None:
    assert (HostPlan().empty, change.empty) == (True, False)


@pytest.mark.parametrize(
    ("protected", "expected"),
    [(str(client_id(1)), True), (IDS[1], True), (str(client_id(2)), False)],
)
def test_an_immutable_identity_is_known_by_its_client_id_or_its_arm_id(
    protected: str, expected: bool
) -> None:
    assert immutable(entry(1), IDS[1], seen(1), frozenset({protected})) is expected


def test_an_immutable_identity_is_known_by_the_client_id_that_azure_says() -> None:
    there = HostIdentities(user={IDS[1]: IDS[1]}, clients={IDS[1]: str(client_id(9))})
    mistaken = LedgerEntry(IDS[1], 0.0, str(client_id(1)))
    assert immutable(mistaken, IDS[1], there, frozenset({str(client_id(9))}))


# The change itself.


@pytest.mark.parametrize("system", [True, False])
def test_a_change_keeps_the_systems_half_and_says_whether_any_other_is_left(system: bool) -> None:
    there = seen(1, 2, system=system)
    change = HostChange.of(there, attach=[resource_id(3)], detach=[IDS[1]])
    assert change == HostChange(
        attach=(resource_id(3).spelling,),
        detach=(resource_id(1).spelling.upper(),),
        system=system,
        user=True,
    )
    assert not HostChange.of(there, detach=ids(1, 2)).user


# Whatever the ledger, the host and the wish.

some = st.frozensets(st.sampled_from(NUMBERS))
CHOICES = ("proved", "refused", "unneeded")


PARTS = ("attached", "attaching", "detaching")


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    part = {number: draw(st.sampled_from([*PARTS, None])) for number in NUMBERS}
    attached, attaching, detaching = (
        [number for number in NUMBERS if part[number] == each] for each in PARTS
    )
    return ledger(attached, attaching, detaching)


@given(ledgers(), some, some, st.fixed_dictionaries(dict.fromkeys(CHOICES, some)), st.booleans())
@settings(deadline=None)
def test_no_plan_touches_what_is_not_ours_or_wanted_or_refused(
    book: Ledger,
    there: frozenset[int],
    want: frozenset[int],
    choices: dict[str, frozenset[int]],
    failed: bool,
) -> None:
    host = seen(*there, state="failed" if failed else "succeeded")
    attach, detach = planned(book, host, want, **choices)  # type: ignore[arg-type]
    refused, unneeded = choices["refused"], choices["unneeded"]
    ours = book.attached.keys() | book.detaching.keys()
    assert ids(*detach) <= ours & ids(*(unneeded & there - want - refused))
    assert set(attach) <= want - refused
    assert want - there - refused <= set(attach)


@given(ledgers(), some, some, some, st.booleans())
@settings(deadline=None)
def test_once_its_change_is_done_a_ledger_is_resolved_and_the_plan_is_empty(
    book: Ledger,
    there: frozenset[int],
    want: frozenset[int],
    unneeded: frozenset[int],
    before: bool,
) -> None:
    host = seen(*there)
    known = book.resolved(host, 1.0, ended=before)
    attach, detach = planned(known, host, want, unneeded=unneeded)
    change = HostPlan(
        attach=tuple(wanted(*attach).values()), detach=tuple(IDS[each] for each in detach)
    )
    written = known.intending(change, host, 2.0)
    assert written.covered(change, host) == change
    after = seen(*(there | set(attach)) - set(detach))
    done = written.resolved(after, 3.0, ended=True, landed=ids(*attach))
    assert not done.unresolved
    assert done.attached.keys() <= after.user.keys()
    # What is ours now was ours before, or absent in the read before.
    ours = book.attached.keys() | book.attaching.keys() | book.detaching.keys()
    assert done.attached.keys() <= ours | (ids(*attach) - ids(*there))
    assert planned(done, after, want, unneeded=unneeded) == ([], [])
    assert done.resolved(after, 4.0, ended=True) == done

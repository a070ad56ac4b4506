"""What holds for every configuration, whoever applies it, and over whatever is there."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from podidentity_sandbox.cluster.apply import fieldsets
from podidentity_sandbox.cluster.apply.managers import (
    Conflicts,
    Managed,
    after_apply,
    after_update,
    decode,
    encode,
)
from podidentity_sandbox.cluster.apply.typed import compare, field_set, merged
from tests.core.worlds import occurs
from tests.sandbox.cluster.apply.schemas import (
    OBJECTS,
    SCHEMA,
    applier,
    updater,
    without_nulls,
)

Object = dict[str, Any]
many = settings(max_examples=100, deadline=None)


def force(name: str, managed: Managed, live: Object, config: Object) -> tuple[Object, Managed]:
    new, after = after_apply(applier(name), managed, live, config, force=True)
    return without_nulls(new), after


def history(steps: list[tuple[str, str, Object]]) -> tuple[Object, Managed]:
    """Return what comes of several writers in turn."""
    live: Object = {}
    managed: Managed = {}
    for way, name, obj in steps:
        if way == "apply":
            live, managed = force(name, managed, live, obj)
        else:
            managed = after_update(updater(name), managed, live, obj)
            live = obj
    return live, managed


def stopped(past: tuple[Object, Managed], config: Object) -> fieldsets.FieldSet:
    """Return the fields of others that keep a stranger's configuration from being applied."""
    live, managed = past
    try:
        after_apply(applier("stranger"), managed, live, config, force=False)
    except Conflicts as refusal:
        return refusal.fields()
    return fieldsets.EMPTY


HISTORIES = st.lists(
    st.tuples(st.sampled_from(["apply", "update"]), st.sampled_from("xyz"), OBJECTS), max_size=4
).map(history)


@many
@given(HISTORIES, OBJECTS)
def test_what_was_applied_is_there_and_owned(past: tuple[Object, Managed], config: Object) -> None:
    live, managed = force("m", past[1], past[0], config)
    assert without_nulls(merged(SCHEMA, live, config)) == live
    share = managed.get(applier("m").manager)
    assert (share.fields if share else frozenset()) == field_set(SCHEMA, config)


@many
@given(HISTORIES, OBJECTS)
def test_applying_twice_changes_nothing(past: tuple[Object, Managed], config: Object) -> None:
    live, managed = force("m", past[1], past[0], config)
    again, after = after_apply(applier("m", "later"), managed, live, config, force=False)
    assert without_nulls(again) == live
    assert encode(after) == encode(managed)


@many
@given(OBJECTS, OBJECTS)
def test_those_who_apply_disjoint_fields_never_conflict(one: Object, other: Object) -> None:
    assume(not field_set(SCHEMA, one) & field_set(SCHEMA, other))
    live, managed = force("one", {}, {}, one)
    live, managed = after_apply(applier("other"), managed, live, other, force=False)
    assert {manager.name for manager in managed} == {
        name for name, config in (("one", one), ("other", other)) if field_set(SCHEMA, config)
    }


@many
@given(OBJECTS, OBJECTS)
def test_a_conflict_names_exactly_the_fields_of_others_that_would_change(
    one: Object, other: Object
) -> None:
    live, managed = force("one", {}, {}, one)
    owned = managed[applier("one").manager].fields if managed else frozenset()
    changed = compare(SCHEMA, live, merged(SCHEMA, live, other))
    assert stopped((live, managed), other) == owned & changed.written


@many
@given(OBJECTS, OBJECTS)
def test_what_nobody_else_owns_goes_with_the_configuration(one: Object, other: Object) -> None:
    live, managed = force("one", {}, {}, one)
    live, managed = force("other", managed, live, other)
    live, managed = force("one", managed, live, {})
    assert _full(live) == _full(other)
    assert {manager.name for manager in managed} <= {"other"}


def _full(value: Any) -> Any:
    """Return what is left of a value without all that holds nothing."""
    if isinstance(value, dict):
        kept = {key: _full(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ({}, [])}
    return [_full(item) for item in value] if isinstance(value, list) else value


@many
@given(HISTORIES)
def test_managed_fields_are_written_and_read_without_loss(past: tuple[Object, Managed]) -> None:
    assert decode(encode(past[1])) == past[1]


@many
@given(HISTORIES, OBJECTS)
def test_an_update_takes_what_it_changes_and_leaves_the_rest(
    past: tuple[Object, Managed], new: Object
) -> None:
    live, managed = past
    after = after_update(updater("u"), managed, live, new)
    difference = compare(SCHEMA, live, new)
    for manager, share in managed.items():
        left = after[manager].fields if manager in after else fieldsets.EMPTY
        if manager != updater("u").manager:
            assert left == share.fields - difference.written - difference.removed
    assert not difference.written or difference.written <= after[updater("u").manager].fields


def test_the_worlds_are_of_every_sort() -> None:
    pairs = st.tuples(HISTORIES, OBJECTS)
    occurs(pairs, lambda pair: len(stopped(*pair)) > 1)
    occurs(pairs, lambda pair: bool(pair[0][0] and pair[1]) and not stopped(*pair))
    occurs(HISTORIES, lambda past: any(len(share.fields) > 4 for share in past[1].values()))
    occurs(HISTORIES, lambda past: len(past[1]) > 2)

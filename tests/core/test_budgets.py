from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.budgets import BUDGETS, Ration, kept_bytes, within_budget
from podidentity.core.resources import (
    AzureIdentity,
    AzurePodIdentityException,
    Malformed,
    ObjectRef,
    Pod,
)
from tests.fakes import assigned, binding, identity, pod

OBJECTS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.integers(1, 3), st.integers(0, 9_000)), max_size=8
)
"""By name: creation time and bytes."""
BUDGET = 12_000


def ref(name: str) -> ObjectRef:
    return ObjectRef("blue", name)


def fitting(objects: dict[str, tuple[int, int]]) -> set[str]:
    """Return the names of the oldest objects that fit into the budget."""
    size, kept = 0, set()
    for name in sorted(objects, key=lambda each: (objects[each][0], each)):
        size += objects[name][1] + 700
        if size > BUDGET:
            break
        kept.add(name)
    return kept


def take(ration: Ration, name: str, created: int, size: int) -> None:
    """Do as a reflector does."""
    if ration.has_no_room(ref(name), created):
        ration.lose(ref(name))
    else:
        ration.keep(ref(name), created, size)


def names(ration: Ration) -> set[str]:
    return {each.name for each in ration.refs()}


@given(OBJECTS, st.randoms())
def test_the_objects_that_are_kept_do_not_depend_on_the_order_of_a_list(
    objects: dict[str, tuple[int, int]], random: Random
) -> None:
    ration, order = Ration(BUDGET), list(objects)
    random.shuffle(order)
    for name in order:
        take(ration, name, *objects[name])
    assert names(ration) == fitting(objects)
    assert not ration.stale
    rest = objects.keys() - fitting(objects)
    oldest = min(rest, key=lambda each: (objects[each][0], each), default=None)
    assert ration.left_out("blue") == (None if oldest is None else ref(oldest))


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 3), st.integers(-1, 9_000))))
def test_after_any_events_the_oldest_that_fit_are_kept_or_a_list_is_due(
    events: list[tuple[str, int, int]],
) -> None:
    """A size of -1 deletes. A creation time does not change while an object is there."""
    ration, objects = Ration(BUDGET), dict[str, tuple[int, int]]()
    for name, created, size in events:
        since = objects.get(name, (created, 0))[0]
        if size < 0:
            objects.pop(name, None)
            ration.lose(ref(name), since)
        else:
            objects[name] = (since, size)
            take(ration, name, since, size)
        kept = names(ration)
        assert sum(objects[each][1] + 700 for each in kept) <= BUDGET
        assert kept == fitting(objects) if not ration.stale else kept <= objects.keys()


def test_a_namespace_over_its_budget_takes_nothing_from_another() -> None:
    ration = Ration(BUDGET)
    assert ration.keep(ObjectRef("red", "a"), 1, 5_000) == []
    for number in range(9):
        take(ration, f"b{number}", 1, 5_000)
    assert ObjectRef("red", "a") in ration
    assert ration.namespaces() == ["blue"]


def test_a_list_that_broke_off_keeps_what_was_known_before_it() -> None:
    before, ration = Ration(BUDGET), Ration(BUDGET)
    before.keep(ref("a"), 1, 5_000)
    before.keep(ref("c"), 3, 5_000)
    ration.keep(ref("b"), 2, 5_000)
    assert ration.resume(before) == [ref("c")]
    assert names(ration) == {"a", "b"}


def many(kind: str, number: int) -> Iterator[Any]:
    """Yield objects as large clusters have them: long names, and a dozen labels a pod."""
    labels = {
        f"app.kubernetes.io/label-{each}": "a-value-of-thirty-characters--" for each in range(12)
    }
    for each in range(number):
        name = f"orders-service-{each:05}-7d4b9c7f6d-x2x4z"
        match kind:
            case "Pod":
                yield pod(name, labels=labels, addresses=(f"10.244.{each // 250}.{each % 250}",))
            case "AzureIdentity":
                yield replace(identity(), ref=ObjectRef("shop", name))
            case "AzureIdentityBinding":
                yield replace(binding(), ref=ObjectRef("shop", name))
            case "AzureAssignedIdentity":
                yield replace(assigned(), ref=ObjectRef("shop", f"{name}-shop-orders-service"))


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("Pod", 5_000),
        ("AzureIdentity", 2_000),
        ("AzureIdentityBinding", 2_000),
        ("AzureAssignedIdentity", 5_000),
    ],
)
def test_an_ordinary_namespace_loses_nothing(kind: str, number: int) -> None:
    listed = [(each.ref, 1, each) for each in many(kind, number)]
    counted = within_budget(kind, listed)
    assert not [each for each in counted if isinstance(each, Malformed)]


def test_what_is_left_out_of_a_list_says_why() -> None:
    labels = {f"{each:03}{'a' * 250}/{'b' * 63}": "c" * 63 for each in range(100)}
    listed = [
        (ref(f"e{each}"), each, AzurePodIdentityException(ref=ref(f"e{each}"), pod_labels=labels))
        for each in range(40)
    ]
    counted = within_budget("AzurePodIdentityException", listed)
    out = [each for each in counted if isinstance(each, Malformed)]
    assert 0 < len(out) < 40
    assert counted[-len(out) :] == out
    assert out[0].left_out
    assert out[0].why == (
        "its namespace has more than 1 MiB of AzurePodIdentityException objects, "
        "and the youngest do not count"
    )


def test_the_bytes_of_a_value_grow_with_what_it_holds() -> None:
    small = Pod(ref=ref("a"), uid="u")
    large = replace(small, labels={"a": "b" * 1000}, csi_drivers=frozenset({"c" * 500}))
    assert kept_bytes(large) > kept_bytes(small) + 1500
    assert kept_bytes(AzureIdentity(ref=ref("a"), type=identity().type)) < 1000
    assert kept_bytes(None) == 0
    assert BUDGETS["Pod"].namespace > 0

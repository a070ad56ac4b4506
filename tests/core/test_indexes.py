from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.decision import MOST_BOUND, by_weight
from podidentity.core.indexes import FEW, BindingIndex
from podidentity.core.resources import AzureIdentityBinding, Malformed, ObjectRef
from tests.core.objects import binding


def bad(name: str, selector: str = "") -> Malformed:
    return Malformed(
        ref=ObjectRef("blue", name), kind="AzureIdentityBinding", why="x", selector=selector
    )


def index(*bindings: AzureIdentityBinding | Malformed) -> BindingIndex:
    made = BindingIndex()
    for each in bindings:
        assert made.put(each)
    return made


def numbered(numbers: Iterable[int], weight: int = 0) -> list[AzureIdentityBinding]:
    return [binding("blue", f"b{n}", "id", "app", weight=weight) for n in numbers]


def names(found: Iterable[AzureIdentityBinding | Malformed]) -> set[str]:
    return {each.ref.name for each in found}


def test_a_binding_is_found_by_its_namespace_and_its_exact_selector() -> None:
    known = index(*numbered([1, 2]), binding("red", "b1", "id", "app"))
    assert names(known.heaviest("blue", "app")) == {"b1", "b2"}
    assert not known.heaviest("blue", "App")
    assert not known.heaviest("green", "app")
    assert known.get(ObjectRef("red", "b1")) == binding("red", "b1", "id", "app")


def test_what_is_put_again_changes_nothing() -> None:
    known = index(*numbered([1]))
    assert not known.put(*numbered([1]))
    assert known.put(*numbered([1], weight=1))
    assert known.heaviest("blue", "app") == numbered([1], weight=1)


def test_what_is_removed_is_returned_once_and_found_no_more() -> None:
    known = index(*numbered([1]))
    assert known.remove(ObjectRef("blue", "b1")) == numbered([1])[0]
    assert known.remove(ObjectRef("blue", "b1")) is None
    assert not known.heaviest("blue", "app")
    assert not [*known.values(), *known.sorted()]


def test_a_binding_that_cannot_be_used_selects_nobody() -> None:
    known = index(*numbered([1]))
    known.put(bad("b1", "app"))
    assert not known.heaviest("blue", "app")
    assert known.by_key(("blue", "app", "malformed")) == (bad("b1", "app"),)
    assert known.namespaces_with("app") == []
    known.put(*numbered([1]))
    assert known.heaviest("blue", "app") == numbered([1])
    assert known.by_key(("blue", "app", "malformed")) == ()


def test_a_binding_that_changes_its_selector_is_found_by_the_new_one_alone() -> None:
    known = index(*numbered([1, 2]))
    known.put(binding("blue", "b1", "id", "other"))
    assert names(known.heaviest("blue", "app")) == {"b2"}
    assert names(known.heaviest("blue", "other")) == {"b1"}


@pytest.mark.parametrize("many", [MOST_BOUND, MOST_BOUND + 1])
def test_of_more_bindings_than_count_the_heaviest_are_returned_until_one_changes(many: int) -> None:
    known = index(*numbered(range(many - 1)), *numbered([many], weight=-1))
    found = known.heaviest("blue", "app")
    assert len(found) == MOST_BOUND
    assert (f"b{many}" in names(found)) == (many == MOST_BOUND)
    assert (known.heaviest("blue", "app") is found) == (many > MOST_BOUND), "found once"
    [heavy] = numbered([1], weight=99)
    known.put(heavy)
    assert heavy in known.heaviest("blue", "app")
    known.remove(heavy.ref)
    assert heavy not in known.heaviest("blue", "app")
    [other] = numbered([many + 1], weight=99)
    known.put(other)
    assert other in known.heaviest("blue", "app")


def test_a_selector_is_of_the_namespaces_that_have_a_binding_with_it_now() -> None:
    known = index()
    for namespace in ("c", "a", "b"):
        for name in ("x", "y"):
            known.put(binding(namespace, name, "id", "app"))
    assert known.namespaces_with("app") == ["a", "b", "c"]
    known.remove(ObjectRef("a", "x"))
    known.remove(ObjectRef("b", "x"))
    known.remove(ObjectRef("b", "y"))
    assert known.namespaces_with("app") == ["a", "c"]
    assert known.namespaces_with("other") == []


def test_what_comes_and_goes_leaves_nothing_behind() -> None:
    known = index()
    for number in (*range(1, 40), MOST_BOUND + 1):
        for namespace in ("blue", "red"):
            for each in range(number):
                known.put(binding(namespace, f"b{each}", "id", f"app-{number}"))
        known.put(bad("bad", f"app-{number}"))
        known.heaviest("blue", f"app-{number}")
        for one in [*known.values()]:
            known.remove(one.ref)
    assert not known._by_key
    assert not known._heaviest
    assert not known._namespaces


CHANGES = st.lists(
    st.tuples(st.integers(0, FEW + 4), st.sampled_from(["app", "other", ""]), st.integers(0, 2)),
    max_size=40,
)


@given(CHANGES)
def test_whatever_came_before_all_objects_of_a_key_are_found_and_no_others(
    changes: list[tuple[int, str, int]],
) -> None:
    known, there = index(), dict[ObjectRef, AzureIdentityBinding]()
    for number, selector, weight in changes:
        ref = ObjectRef("blue", f"b{number}")
        if not selector:
            assert known.remove(ref) == there.pop(ref, None)
            continue
        there[ref] = binding("blue", ref.name, "id", selector, weight=weight)
        known.put(there[ref])
    for selector in ("app", "other"):
        found = known.heaviest("blue", selector)
        alike = [each for each in there.values() if each.selector == selector]
        assert sorted(found, key=by_weight) == sorted(alike, key=by_weight)
        assert known.namespaces_with(selector) == (["blue"] if alike else [])
    assert list(known.sorted()) == [there[ref] for ref in sorted(there)]

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.decision import MOST_BOUND
from podidentity.core.shares import MOST_OF_NAMESPACE, SHARES, Shares
from tests.core.worlds import occurs


def shares(*, cross_namespace: bool = False) -> Shares:
    return Shares(cross_namespace=cross_namespace)


@pytest.mark.parametrize(
    ("pods", "bindings", "share"),
    [
        (100, 500, 500),
        (101, 500, 256),
        (195, 500, 256),
        (196, 500, 128),
        (400, 500, 64),
        (1_562, 500, 32),
        (1_563, 500, 16),
        (1_000_000, 500, 16),
        (101, 495, 500),
        (101, 496, 256),
        (3_125, 16, 500),
        (50_000, 1, 500),
        (1, 10_000, 500),
    ],
)
def test_as_many_bindings_of_a_pod_count_as_leave_fifty_thousand_needs(
    pods: int, bindings: int, share: int
) -> None:
    known = shares()
    known.count_bindings("blue", "app", bindings)
    known.count_pods("blue", "app", pods)
    assert known.of("blue") == share


def test_a_pod_that_nothing_is_bound_to_takes_nothing_from_others() -> None:
    known = shares()
    known.count_bindings("blue", "app", 500)
    known.count_pods("blue", "app", 100)
    assert known.count_pods("blue", "idle", 1_000_000) == []
    assert known.of("blue") == MOST_BOUND
    assert known.count_bindings("blue", "idle", 1) == ["blue"]
    assert known.of("blue") == SHARES[-1]


def test_pods_with_few_bindings_take_only_what_they_need_from_those_with_many() -> None:
    known = shares()
    known.count_bindings("blue", "app", 1)
    known.count_pods("blue", "app", 45_000)
    known.count_bindings("blue", "many", 500)
    known.count_pods("blue", "many", 10)
    assert known.of("blue") == MOST_BOUND


def test_another_namespace_has_its_own_share() -> None:
    known = shares()
    known.count_bindings("blue", "app", 500)
    known.count_pods("blue", "app", 1_000)
    known.count_pods("red", "app", 1)
    assert (known.of("red"), known.bound("red", "app")) == (MOST_BOUND, 0)
    assert known.bound("blue", "app") == 500


def test_where_a_binding_selects_the_pods_of_all_namespaces_it_counts_in_each() -> None:
    known = shares(cross_namespace=True)
    known.count_pods("blue", "app", 101)
    known.count_pods("red", "app", 1)
    known.count_pods("red", "other", 1_000)
    assert known.count_bindings("green", "app", 495) == []
    assert known.count_bindings("red", "app", 5) == ["blue"]
    assert known.bound("nowhere", "app") == 500
    assert (known.of("blue"), known.of("red")) == (256, MOST_BOUND)


def test_a_smaller_share_is_news_until_the_namespace_needs_nothing() -> None:
    known = shares()
    known.count_bindings("blue", "app", 500)
    assert not known.is_news("blue")
    known.count_pods("blue", "app", 100)
    assert not known.is_news("blue")
    told = []
    for change in (1, -1, 1, 100, -200, 200):
        known.count_pods("blue", "app", change)
        told.append(known.is_news("blue"))
    assert told == [True, False, False, True, False, False]
    known.count_pods("blue", "app", -201)
    assert not known.is_news("blue")
    known.count_pods("blue", "app", 101)
    assert known.is_news("blue")
    known.count_bindings("blue", "app", -500)
    known.count_bindings("blue", "app", 500)
    assert known.is_news("blue")


class Event(NamedTuple):
    kind: str
    namespace: str
    selector: str
    change: int


EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(["pods", "bindings"]),
        st.sampled_from(["blue", "red"]),
        st.sampled_from(["app", "other"]),
        st.sampled_from([-250, -1, 1, 10, 250]),
    ),
    max_size=12,
)


def needs(
    pods: Counter[tuple[str, str]],
    bindings: Counter[tuple[str, str]],
    namespace: str,
    share: int,
    *,
    cross_namespace: bool,
) -> int:
    """Return what the pods of a namespace need if of each so many bindings count."""
    return sum(
        count
        * min(
            share,
            sum(
                bound
                for (where, other), bound in bindings.items()
                if other == selector and (cross_namespace or where == namespace)
            ),
        )
        for (space, selector), count in pods.items()
        if space == namespace
    )


@given(EVENTS, st.booleans())
def test_a_share_is_the_largest_that_leaves_what_may_be_and_each_change_of_it_is_told(
    events: list[Event], cross_namespace: bool
) -> None:
    known = shares(cross_namespace=cross_namespace)
    pods, bindings = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for kind, namespace, selector, change in events:
        counted = pods if kind == "pods" else bindings
        change = max(change, -counted[namespace, selector])
        counted[namespace, selector] += change
        before = {each: known.of(each) for each in ("blue", "red")}
        count = known.count_pods if kind == "pods" else known.count_bindings
        told = count(namespace, selector, change)
        for each in ("blue", "red"):
            fitting = [
                share
                for share in SHARES
                if needs(pods, bindings, each, share, cross_namespace=cross_namespace)
                <= MOST_OF_NAMESPACE
            ]
            assert known.of(each) == (fitting or SHARES[-1:])[0]
        assert sorted(told) == [each for each in before if known.of(each) != before[each]]


def test_the_shares_that_are_tried_become_smaller_and_larger() -> None:
    def becomes_larger_again(events: list[Event]) -> bool:
        known = shares()
        seen = []
        totals = Counter[tuple[str, str, str]]()
        for kind, namespace, selector, change in events:
            change = max(change, -totals[kind, namespace, selector])
            totals[kind, namespace, selector] += change
            count = known.count_pods if kind == "pods" else known.count_bindings
            count(namespace, selector, change)
            seen.append(known.of("blue"))
        return any(one < other for one, other in pairwise(seen))

    occurs(EVENTS, becomes_larger_again)


def test_what_comes_and_goes_leaves_nothing_behind() -> None:
    for cross_namespace in (False, True):
        known = shares(cross_namespace=cross_namespace)
        for number in range(50):
            space = f"n{number}"
            for change in (1, -1):
                known.count_pods(space, "app", change)
                known.count_bindings(space, "app", change)
        assert not known._pods
        assert not known._bindings
        assert not known._namespaces

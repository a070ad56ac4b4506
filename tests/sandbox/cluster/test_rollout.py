"""The steps of a rollout: never too few pods, never too many, and to the end.

The expected numbers of the table are those of
https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/controller/deployment/rolling_test.go
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity_sandbox.cluster.controllers.rollout import (
    Bounds,
    SetState,
    bounds,
    new_size,
    old_sizes,
)


def running(size: int) -> SetState:
    return SetState(wanted=size, pods=size, available=size)


@pytest.mark.parametrize(
    ("wanted", "surge", "unavailable", "expected"),
    [
        (3, "25%", "25%", Bounds(surge=1, unavailable=0)),
        (10, "25%", "25%", Bounds(surge=3, unavailable=2)),
        (10, 0, "5%", Bounds(surge=0, unavailable=1)),
        (2, 1, 5, Bounds(surge=1, unavailable=2)),
        (0, "25%", "25%", Bounds(surge=0, unavailable=0)),
    ],
)
def test_shares_are_rounded_up_for_more_and_down_for_fewer(
    wanted: int, surge: int | str, unavailable: int | str, expected: Bounds
) -> None:
    assert bounds(wanted, surge, unavailable) == expected


@pytest.mark.parametrize(
    ("wanted", "surge", "new", "old", "expected"),
    [
        (10, 0, 0, 10, 0),
        (10, 2, 0, 10, 2),
        (10, 2, 5, 0, 10),
        (10, 2, 10, 2, 10),
        (10, 2, 20, 2, 10),
    ],
)
def test_the_new_set_grows_as_far_as_there_is_room(
    wanted: int, surge: int, new: int, old: int, expected: int
) -> None:
    limits = Bounds(surge=surge, unavailable=0)
    assert new_size(wanted, limits, running(new), [running(old)]) == expected


@pytest.mark.parametrize(
    ("wanted", "unavailable", "new", "old", "expected"),
    [
        (10, 0, (0, 0), (10, 10), 10),
        (10, 2, (0, 0), (10, 10), 8),
        (10, 2, (2, 0), (8, 8), 8),
        (10, 0, (1, 1), (10, 10), 9),
        (10, 0, (10, 0), (10, 8), 10),
        (10, 2, (2, 2), (8, 2), 6),
    ],
)
def test_the_old_set_shrinks_as_far_as_it_can_be_spared(
    wanted: int, unavailable: int, new: tuple[int, int], old: tuple[int, int], expected: int
) -> None:
    first, second = (SetState(wanted=w, pods=w, available=a) for w, a in (new, old))
    limits = Bounds(surge=0, unavailable=unavailable)
    assert old_sizes(wanted, limits, first, [second]) == [expected]


@given(
    wanted=st.integers(0, 12),
    surge=st.one_of(st.integers(0, 6), st.sampled_from(["0%", "25%", "100%"])),
    unavailable=st.one_of(st.integers(0, 6), st.sampled_from(["0%", "25%", "100%"])),
    old=st.lists(st.integers(0, 6), min_size=1, max_size=3),
)
def test_a_rollout_ends_and_keeps_its_bounds_on_the_way(
    wanted: int, surge: int | str, unavailable: int | str, old: list[int]
) -> None:
    limits = bounds(wanted, surge, unavailable)
    new, olds = 0, list(old)
    least = min(wanted - limits.unavailable, sum(olds))
    most = max(wanted + limits.surge, sum(olds))
    for _ in range(40):  # every pod becomes ready between two steps
        grown = new_size(wanted, limits, running(new), [running(o) for o in olds])
        if grown != new:
            new = grown
        else:
            olds = old_sizes(wanted, limits, running(new), [running(o) for o in olds])
        assert least <= new + sum(olds) <= most
    assert (new, sum(olds)) == (wanted, 0)

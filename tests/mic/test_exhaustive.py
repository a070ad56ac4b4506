"""The small world: any one fault, and two, of which the first is one of a third of all.

`./scripts/simulate --exhaustive` plays every pair, and counts the states.
"""

from __future__ import annotations

import pytest

from podidentity.mic.calls import DeleteRecord
from tests.mic.exhaustive import (
    BINDINGS_GO,
    GOES,
    IDENTITIES_GO,
    SMALL,
    THREE_PODS,
    explored,
    first_faults,
    singly,
    watched,
)
from tests.mic.simulator import Scenario, few_collections

EACH_THIRD = 3
WORLDS = {
    "two pods": SMALL,
    "three pods": THREE_PODS,
    "identities go": IDENTITIES_GO,
    "bindings go": BINDINGS_GO,
}
WITHOUT_PODS_GOING = ("identities go", "bindings go")


@pytest.mark.parametrize("name", ["two pods", *WITHOUT_PODS_GOING])
def test_the_undisturbed_course_attaches_and_detaches_on_both_hosts(name: str) -> None:
    names = [type(action).__name__ for _, action in watched(WORLDS[name])]
    assert (names.count("PatchHost"), names.count("CreateRecord")) == (4, 2)


@pytest.mark.parametrize("name", WITHOUT_PODS_GOING)
def test_where_no_pod_goes_all_is_the_same_until_something_else_does(name: str) -> None:
    """So pairs of faults of which the first is before that are played with two pods alone."""
    before, after = (
        [(at, type(action).__name__) for at, action in watched(world) if at < GOES]
        for world in (SMALL, WORLDS[name])
    )
    assert before == after
    assert any(isinstance(action, DeleteRecord) for _, action in watched(WORLDS[name]))


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_any_one_fault_leaves_the_small_world_as_it_should_be(world: Scenario) -> None:
    with few_collections():
        assert singly(world) > 150


@pytest.mark.parametrize(
    ("name", "since"),
    [("two pods", 0.0), *((name, GOES) for name in WITHOUT_PODS_GOING)],
)
def test_two_faults_leave_it_so_too(name: str, since: float) -> None:
    world = WORLDS[name]
    firsts = sorted(first_faults(world, since))[::EACH_THIRD]
    with few_collections():
        assert explored(firsts, world) > 500

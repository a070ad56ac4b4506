"""The small world; `./scripts/simulate --exhaustive` takes the faults at all other calls too."""

from __future__ import annotations

import pytest

from tests.mic.exhaustive import SMALL, THREE_PODS, explored, first_faults, singly, watched
from tests.mic.simulator import Scenario

FIRSTS = sorted(first_faults(deep=True))
PARTS = 4


def test_the_undisturbed_course_attaches_and_detaches_on_both_hosts() -> None:
    names = [type(action).__name__ for action in watched(SMALL)]
    assert (names.count("PatchHost"), names.count("CreateRecord")) == (4, 2)


@pytest.mark.parametrize("world", [SMALL, THREE_PODS], ids=["two pods", "three pods"])
def test_any_one_fault_leaves_the_small_world_as_it_should_be(world: Scenario) -> None:
    assert singly(world) > 200


@pytest.mark.parametrize("part", range(PARTS))
def test_any_two_faults_at_changes_and_ledgers_leave_it_so_too(part: int) -> None:
    pairs = explored(FIRSTS[part::PARTS], deep=True)
    print(f"{pairs} pairs of faults")
    assert pairs > 300

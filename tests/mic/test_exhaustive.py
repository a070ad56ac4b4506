"""The small world: any one fault and any two; `./scripts/simulate` counts its states too."""

from __future__ import annotations

import pytest

from tests.mic.exhaustive import SMALL, THREE_PODS, explored, first_faults, singly, watched
from tests.mic.simulator import Scenario, few_collections

FIRSTS = sorted(first_faults())
PARTS = 8


def test_the_undisturbed_course_attaches_and_detaches_on_both_hosts() -> None:
    names = [type(action).__name__ for action in watched(SMALL)]
    assert (names.count("PatchHost"), names.count("CreateRecord")) == (4, 2)


@pytest.mark.parametrize("world", [SMALL, THREE_PODS], ids=["two pods", "three pods"])
def test_any_one_fault_leaves_the_small_world_as_it_should_be(world: Scenario) -> None:
    with few_collections():
        assert singly(world) > 150


@pytest.mark.parametrize("part", range(PARTS))
def test_any_two_faults_leave_it_so_too(part: int) -> None:
    with few_collections():
        pairs = explored(FIRSTS[part::PARTS])
    print(f"{pairs} pairs of faults")
    assert pairs > 700

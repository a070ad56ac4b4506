"""The seeds of the simulation, what a seed is, and that the suite's seeds find the bugs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podidentity.mic import hosts
from tests.mic import scenarios
from tests.mic.bugs import BUGS
from tests.mic.scenarios import SEEDS, failing, fails, scenario, shrunk
from tests.mic.simulator import journal, played

BEGIN = (0.2, "pod")


@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_whatever_fails_all_that_must_hold_holds_and_all_settles(first: int) -> None:
    assert not (replay := failing(range(first, first + 100))), replay


def test_a_seed_is_a_world_in_which_much_happens() -> None:
    """Its hundred calls are counted where it is played (`scenarios.failing`)."""
    found = [scenario(seed) for seed in range(SEEDS)]
    first = [
        {step.args[:2] for step in each.steps if (step.at, step.what) == BEGIN} for each in found
    ]
    pods = [sum(step.what == "pod" for step in each.steps) for each in found]
    assert min(map(len, first)) >= 12
    assert sum(pods) / len(pods) >= 25
    assert min(each.hosts for each in found) >= 3
    assert sum(bool(each.faults or each.changes) for each in found) >= SEEDS / 2


def test_a_seed_in_which_too_little_happens_counts_as_failing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = played(scenario(0)).effects
    monkeypatch.setattr(scenarios, "LEAST_CALLS", calls)
    assert not failing([0])
    monkeypatch.setattr(scenarios, "LEAST_CALLS", calls + 1)
    assert failing([0]) == f"seed 0 has {calls} calls only"


@pytest.mark.parametrize("turns", [True, False])
def test_hosts_that_wait_for_each_other_after_a_fault_are_found_by_the_pods_that_come_last(
    turns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = BUGS["Once a call had no answer, one host waits for another"]
    found.patch(monkeypatch)
    assert fails(replace(scenario(found.seed), turns=turns)) is turns


def test_the_same_seed_runs_the_same_way() -> None:
    found = scenario(3)
    assert list(journal(found)) == list(journal(found))


@pytest.mark.parametrize("sentence", BUGS)
def test_the_simulation_finds_the_bug(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = BUGS[sentence]
    found.patch(monkeypatch)
    # The seed that found it last finds it still, unless the calls have other numbers now.
    seeds = (found.seed, *range(SEEDS))
    assert any(fails(scenario(seed)) for seed in seeds), "no seed of the suite finds it"


def test_a_failing_seed_is_made_small_and_told_step_by_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "immutable", lambda *_: False)
    sentence = "Immutable identities are detached"
    found = scenario(BUGS[sentence].seed)

    small = shrunk(found, fails)
    assert fails(small)
    assert len(small.steps) <= 12 < len(found.steps)
    lines = list(journal(small))
    assert "detaching" in lines[-2]
    assert "is immutable, and is detached" in lines[-1]
    assert not fails(replace(small, protected=()))

"""The weather: its decisions, its words, and the texts that it refuses."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity_sandbox import weather
from podidentity_sandbox.weather import (
    CALM,
    CHANCES,
    NAMED,
    RULES,
    SERVICES,
    TIMES,
    Effect,
    Span,
    WeatherError,
    WeatherInForce,
)
from tests.docs.blocks import ROOT, blocks_of

STORM, REAL = NAMED["storm"], NAMED["real"]
SEVEN = ["5:denied", "13:locked", "14:429", "17:500", "24:500", "27:429", "29:503"]
"""What befalls the first 30 requests of a kind with the seed 7."""
FIRST_ROLE = 45.301


def blows(seed: int, kind: str = "PATCH", count: int = 200) -> list[weather.Blow | None]:
    forecast = weather.named("storm", seed=seed)
    return [forecast.blow("arm", kind, n, n, writes=True) for n in range(1, count + 1)]


# ---- What befalls whom


def test_the_same_seed_gives_the_same_weather_and_another_seed_another() -> None:
    assert blows(7) == blows(7)
    assert blows(7) != blows(8)
    assert blows(7) != blows(7, "GET"), "each kind of request has a fate of its own"


def test_a_seed_means_the_same_in_every_run_of_these_rules() -> None:
    """If this fails, RULES has to change: people replay what they saw by its seed."""
    assert RULES == 1
    found = [f"{at}:{blow.effect}" for at, blow in enumerate(blows(7, count=30)) if blow]
    assert found == SEVEN
    assert round(REAL.seconds("roles", 1), 3) == FIRST_ROLE


def test_a_storm_strikes_the_shares_that_it_names() -> None:
    counted = Counter(blow.effect for blow in blows(1, count=5000) if blow)
    for fault in STORM.faults["arm"]:
        assert counted[fault.effect] / 5000 == pytest.approx(fault.share, abs=0.012)


def test_calm_strikes_nobody_and_waits_for_scale_sets_alone() -> None:
    assert all(
        CALM.blow(service, "any", n, n, writes=True) is None
        for service in SERVICES
        for n in range(50)
    )
    assert {word for word in TIMES if CALM.seconds(word, 1)} == {"scale-sets", "operations"}
    assert CALM.outcome(1) == weather.Outcome(seconds=0.2)


@given(st.sampled_from(sorted(NAMED)), st.sampled_from(sorted(TIMES)), st.integers(1, 10**6))
def test_every_time_lies_within_its_bounds(name: str, word: str, number: int) -> None:
    span = NAMED[name].times.get(word, Span(0, 0))
    assert span.least <= NAMED[name].seconds(word, number) <= span.most


def test_half_of_all_times_lie_in_the_first_eighth() -> None:
    times = sorted(REAL.seconds("roles", n) for n in range(1000))
    assert times[500] == pytest.approx(5 + 55 / 8, abs=1)


def test_a_lock_hinders_no_reader() -> None:
    locked = weather.changed(CALM, ["arm=[{effect: locked}]"])
    assert locked.blow("arm", "GET x", 1, 1, writes=False) is None
    assert locked.blow("arm", "PUT x", 1, 1, writes=True) == weather.Blow(effect=Effect.LOCKED)


def test_the_first_requests_are_counted_over_all_kinds_since_the_weather_was_set() -> None:
    present = WeatherInForce(weather=weather.changed(CALM, ["imds=[{effect: reset, first: 2}]"]))
    struck = [present.blow("imds", f"node-{n}") is not None for n in range(4)]
    assert struck == [True, True, False, False]
    present.set(present.now)
    assert present.blow("imds", "node-0") is not None


def test_a_fault_of_one_kind_strikes_no_other_and_counts_its_own() -> None:
    only = ["arm=[{effect: reset, kind: PATCH virtual*, first: 1}]"]
    present = WeatherInForce(weather=weather.changed(CALM, only))
    kinds = ["GET virtualMachines", "PATCH virtualMachines", "PATCH vaults"]
    kinds += ["PATCH virtualMachines", "PATCH virtualMachineScaleSets"]
    struck = [kind for kind in kinds if present.blow("arm", kind)]
    assert struck == ["PATCH virtualMachines", "PATCH virtualMachineScaleSets"]


def test_operations_fail_and_are_preempted_at_their_shares() -> None:
    errors = Counter(o.error[0] if o.error else "" for o in map(STORM.outcome, range(2000)))
    assert errors["OperationPreempted"] / 2000 == pytest.approx(0.1, abs=0.03)
    assert errors["InternalExecutionError"] / 2000 == pytest.approx(0.1, abs=0.03)


# ---- Texts


def test_a_process_sees_a_new_weather_at_once_as_it_was_written(tmp_path: Path) -> None:
    present = WeatherInForce(tmp_path)
    assert weather.read(tmp_path) == CALM == present.now
    assert not weather.journal(tmp_path)
    for each in (REAL, STORM, CALM, REAL):
        weather.write(tmp_path, each)
        assert present.now == each


def test_what_the_weather_did_stands_in_its_journal(tmp_path: Path) -> None:
    faults = ["imds=[{effect: 429, first: 1}]", "scale-sets=1", "failing=1"]
    weather.write(tmp_path, weather.changed(CALM, faults))
    present = WeatherInForce(tmp_path)
    began = time.time()
    for _ in range(2):
        present.blow("imds", "node-0", about="a\ttab")
    present.outcome("/a/scale/set")
    told = weather.journal(tmp_path)
    assert [(each.service, each.kind, each.number, each.effect, each.about) for each in told] == [
        ("imds", "node-0", 1, "429", "a tab"),
        ("arm", "operation", 1, "InternalExecutionError", "/a/scale/set"),
    ]
    assert all(began - 1 <= each.at <= time.time() + 1 for each in told)


def test_the_file_of_the_reference_is_one(tmp_path: Path) -> None:
    page = ROOT / "docs/reference/sandbox.md"
    (block,) = [each for each in blocks_of(page) if "from: real" in each.text]
    path = tmp_path / "shown.yaml"
    path.write_text(block.text)
    found = weather.named(str(path))
    assert (found.seed, found.times["roles"], found.chances["failing"]) == (7, Span(30, 600), 0.2)
    assert [str(fault) for fault in found.faults["arm"]] == [
        "429 (1 to 30 s): 50%",
        "504: 100% of the first 1 of 'PATCH virtual*'",
    ]
    assert [str(fault) for fault in found.faults["imds"]] == ["reset: 100% of the first 3"]


@pytest.mark.parametrize("word", [*TIMES, *CHANCES, *SERVICES])
def test_the_reference_has_every_word(word: str) -> None:
    section = (ROOT / "docs/reference/sandbox.md").read_text().partition("## Weather")[2]
    assert f"`{word}`" in section.partition("\n## ")[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("roles: [", ", line 1: not YAML"),
        ("[]", ": a weather is a mapping"),
        ("", ": a weather is a mapping"),
        ("from: real\nrolls: 5", ": there is no 'rolls': the words are from, seed, answers,"),
        ("from: fog", ": from: 'fog' is none of calm, real, storm"),
        ("roles: 5\nroles: 6", ", line 1: not YAML: roles is there twice"),
        ("roles: -1", ": roles: give seconds"),
        ("roles: [9, 1]", "(the least of these seconds is more than the most)"),
        ("roles: [1, 2, 3]", ": roles: give seconds"),
        ("roles: .inf", ": roles: give seconds"),
        ("roles: inf", ": roles: give seconds"),
        ("roles: nan", ": roles: give seconds"),
        ("roles: yes", ": roles: give seconds"),
        ("failing: 1.1", ": failing: give a share from 0 to 1"),
        ("seed: 1.5", ": seed: give a whole number"),
        ("rules: 0", ": it is of rules 0, and this program has rules 1"),
        ("imds: hang", ": imds: give a list of faults"),
        ("imds:\n- effect: locked", ": imds: 'locked' is none of its effects: 410, 429"),
        ("imds:\n- effect: fog", "each with an effect: 410, 429, 500, 503, cut, hang, html, "),
        ("imds:\n- effect: fog", "(Invalid enum value 'fog' - at `$[0].effect`)"),
        ("imds:\n- share: 1", "(Object missing required field `effect` - at `$[0]`)"),
        ("imds:\n- {effect: hang, mode: x}", "unknown field `mode` - at `$[0]`"),
        ("imds: [{effect: 500, share: 0.6}, {effect: 503, share: 0.6}]", "the shares are 1.2"),
        ("imds: [{effect: 500, first: -1}]", "(Expected `int` >= 0 - at `$[0].first`)"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(WeatherError, match=re.escape(why)) as raised:
        weather.named(str(path))
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(("text", "seed"), [("7", 7), (f"{RULES}:7", 7), ("0", 0)])
def test_a_seed_is_a_number_or_what_status_shows(text: str, seed: int) -> None:
    assert weather.seed_of(text) == seed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2:7", "the seed 2:7 is of rules 2, and this program has rules 1"),
        ("x", "'x' is no seed"),
        ("", "'' is no seed"),
        ("-1", "'-1' is no seed"),
        ("a:1", "'a:1' is no seed"),
    ],
)
def test_a_seed_of_another_version_or_no_seed_is_refused(text: str, why: str) -> None:
    with pytest.raises(WeatherError, match=re.escape(why)):
        weather.seed_of(text)

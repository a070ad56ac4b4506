"""What a storm's journal makes of a refusal."""

from __future__ import annotations

import pytest

from podidentity_sandbox.weather import CHANCES, NAMED
from tests.acceptance.causes import WORDS, cause

JOURNAL = [
    "apiserver\tsystem:admin get nodes\t3\t500",
    "arm\tPATCH virtualMachineScaleSets\t1\tlocked",
]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("Azure says ScopeLocked: The scope", JOURNAL[1]),
        ("Error from server: etcdserver: request timed out", JOURNAL[0]),
        ("Azure says InternalServerError: of which the journal knows nothing", ""),
        ("assert 503 == 200", ""),
    ],
)
def test_a_refusal_has_a_cause_if_it_names_what_the_weather_did(said: str, line: str) -> None:
    assert cause(said, JOURNAL) == line


def test_whatever_a_storm_does_has_words() -> None:
    storm = NAMED["storm"]
    struck: dict[str, set[str]] = {
        name: {fault.effect.value for fault in faults} for name, faults in storm.faults.items()
    }
    struck["arm"] |= {error[0] for n in range(99) if (error := storm.outcome(n).error)}
    assert {name: set(words) for name, words in WORDS.items()} == struck
    assert set(storm.chances) == set(CHANCES), "both kinds of failed operations"

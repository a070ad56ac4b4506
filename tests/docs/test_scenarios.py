"""The table of the archived suite's scenarios names a test for each, and every test of one."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT

FOLDER = ROOT / "tests/acceptance"
ROWS = [
    line.split(" | ")
    for line in (ROOT / "docs/reference/scenarios.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]
NAMED = {name for row in ROWS for name in re.findall(r"`([\w/]+\.py::\w+)`", row[-1])}


def test_each_scenario_has_one_row() -> None:
    numbers = [int(each) for row in ROWS for each in re.findall(r"\d+", row[0])]
    assert sorted(numbers) == list(range(1, 31))


def test_each_row_names_a_test() -> None:
    assert all("::test_" in row[-1] for row in ROWS)


def test_the_tests_that_are_named_exist() -> None:
    for each in NAMED:
        path, _, name = each.partition("::")
        assert f"def {name}(" in (FOLDER / path).read_text(), each


def test_every_test_of_a_scenario_is_named() -> None:
    found = {
        f"{path.relative_to(FOLDER)}::{name}"
        for path in FOLDER.rglob("test_*.py")
        for name in re.findall(r"^def (test_scenarios?_\d\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert found <= NAMED
    assert len(found) > 25


def test_a_test_of_scenarios_stands_in_the_rows_of_its_numbers() -> None:
    for row in ROWS:
        for name in re.findall(r"::test_scenarios?_((?:\d+_(?:and_)?)+)", row[-1]):
            numbers = {int(each) for each in re.findall(r"\d+", name)}
            assert numbers & {int(each) for each in re.findall(r"\d+", row[0])}, name

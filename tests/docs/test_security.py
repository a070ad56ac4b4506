"""The tests that docs/security.md and docs/reference/nodes.md name are there."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import ROOT

PAGES = ("security.md", "reference/nodes.md")
TESTS = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
FOUND = {page: set(TESTS.findall((ROOT / "docs" / page).read_text())) for page in PAGES}
NAMED = sorted(set().union(*FOUND.values()))


def test_threats_and_networks_have_tests() -> None:
    assert [len(found) > 5 for found in FOUND.values()] == [True, True]
    assert len(NAMED) > 20


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_a_page_names_exists(path: str, name: str) -> None:
    text = (ROOT / path).read_text()
    assert not name or f"def {name}(" in text

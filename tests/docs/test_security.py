"""The tests that docs/security.md names are there."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import ROOT

TEXT = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))


def test_threats_have_tests() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_a_threat_names_exists(path: str, name: str) -> None:
    text = (ROOT / path).read_text()
    assert not name or f"def {name}(" in text

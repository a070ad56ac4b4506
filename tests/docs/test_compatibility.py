"""Each switch back to an old rule is documented, with a test of it."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from podidentity.settings import Compat
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs/reference/compatibility.md").read_text()
SWITCHES = [f"--compat-{switch.name.replace('_', '-')}" for switch in fields(Compat)]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_has_a_row_that_names_its_test(switch: str) -> None:
    [row] = [line for line in PAGE.splitlines() if f"`{switch}`" in line and line.startswith("|")]
    assert "`tests/" in row


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_a_switch_names_exists(path: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / path).read_text()


def test_every_switch_is_off_by_default() -> None:
    assert Compat() == Compat(**dict.fromkeys((each.name for each in fields(Compat)), False))

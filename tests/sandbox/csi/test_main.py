from __future__ import annotations

import argparse

import pytest
from click.testing import CliRunner

from podidentity_sandbox.cli import sandbox
from podidentity_sandbox.csi.main import duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("2m", 120), ("90s", 90), ("500ms", 0.5), ("1h", 3600)]
)
def test_an_interval_is_written_as_go_writes_it(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "2", "m", "-1s", "1.5s", "2 m", "1m30s"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="invalid duration"):
        duration(text)
    ran = CliRunner().invoke(sandbox, ["csi", "--rotation-poll-interval", text])
    assert ran.exit_code == 2
    assert "invalid duration" in ran.output


def test_without_a_sandbox_the_command_says_so() -> None:
    ran = CliRunner().invoke(sandbox, ["csi", "--name", "there-is-none"])
    assert ran.exit_code == 1
    assert "there-is-none" in ran.output

from __future__ import annotations

import pytest
from click.testing import CliRunner

from podidentity_sandbox.cli import sandbox


@pytest.mark.parametrize("text", ["", "0s", "2", "m", "-1s", "1.5s", "2 m", "1m30s"])
def test_what_is_no_interval_as_go_writes_one_is_refused(text: str) -> None:
    ran = CliRunner().invoke(sandbox, ["csi", "--rotation-poll-interval", text])
    assert ran.exit_code == 2
    assert "invalid duration" in ran.output


def test_without_a_sandbox_the_command_says_so() -> None:
    ran = CliRunner().invoke(sandbox, ["csi", "--name", "there-is-none"])
    assert ran.exit_code == 1
    assert "there-is-none" in ran.output

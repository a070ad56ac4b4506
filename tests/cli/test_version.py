from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

import podidentity
from podidentity.cli import main, version


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the record of a build, of a package that the command takes for its own."""
    monkeypatch.setattr(version, "files", lambda _: tmp_path)
    return tmp_path / version.RECORD


def said(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main.run(["version", *flags]) == 0
    return capsys.readouterr().out


def test_a_build_names_its_commit_and_itself(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.write_text('{"commit": "0123abc", "build": "release 7"}')
    assert json.loads(said(capsys, "-o", "json")) == {
        "version": podidentity.__version__,
        "commit": "0123abc",
        "build": "release 7",
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def test_a_person_reads_it_in_columns(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded.write_text('{"commit": "0123abc", "build": "release 7"}')
    rows = [line.split(maxsplit=1) for line in said(capsys).splitlines()]
    assert rows[:3] == [
        ["podidentity", podidentity.__version__],
        ["commit", "0123abc"],
        ["build", "release 7"],
    ]


def test_a_checkout_guesses_neither(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "-o", "json"))
    assert (found["commit"], found["build"]) == ("unknown", "unknown")
